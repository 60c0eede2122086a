//! The control API and the real client of a node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_certs::Identity;
use outrigger_config::Resource;
use outrigger_control::{Refusal, Sink};
use outrigger_control_api::{Options, start};
use tokio::sync::mpsc;

use crate::support::{HOUR, backend, listener, mesh, name, options, route};

/// Reports each revision that is applied, with how many objects there are.
struct Report {
    applied: mpsc::UnboundedSender<(u64, usize)>,
    identities: mpsc::UnboundedSender<Arc<Identity>>,
}

impl Sink for Report {
    fn identity(&mut self, identity: Arc<Identity>) {
        self.identities.send(identity).unwrap();
    }

    async fn apply(&mut self, revision: u64, resources: Vec<Arc<Resource>>, _: usize) -> Vec<Refusal> {
        self.applied.send((revision, resources.len())).unwrap();
        Vec::new()
    }
}

#[tokio::test]
async fn a_node_is_kept_in_step_through_a_restart_of_the_control_api() {
    let mesh = mesh().await;
    let home = tempfile::tempdir().unwrap();
    let token_file = home.path().join("token");
    std::fs::write(&token_file, mesh.control.token(&name("web-1"), None, HOUR).unwrap()).unwrap();
    let (applied, mut live) = mpsc::unbounded_channel();
    let (identities, mut identity) = mpsc::unbounded_channel();
    let stream = mesh.control.stream();
    let node = tokio::spawn(outrigger_control::run(
        outrigger_control::Options {
            url: format!("https://localhost:{}", stream.port()),
            token_file: Some(token_file),
            node: name("web-1"),
            state_dir: home.path().join("state"),
            version: "1.2.3".into(),
        },
        Report { applied, identities },
    ));
    assert_eq!(identity.recv().await.unwrap().id().as_str(), "spiffe://outrigger.local/node/web-1");
    assert_eq!(live.recv().await, Some((0, 0)));
    mesh.control.put([listener("web", &[]), route("shop", "web", "api"), backend("api", 1)]).await.unwrap();
    assert_eq!(live.recv().await, Some((1, 3)));
    mesh.control.wait_for_nodes(|nodes| nodes[0].connected && nodes[0].behind == 0).await;

    mesh.control.shutdown().await;
    let again = start(Options { stream, ..options(mesh.data.path()) }).await.unwrap();
    let back = Instant::now();
    again.put([backend("api", 2)]).await.unwrap();
    assert_eq!(live.recv().await, Some((2, 3)));
    assert!(back.elapsed() < Duration::from_secs(5), "caught up after {:?}", back.elapsed());
    node.abort();
}

#[tokio::test]
async fn short_lived_certificates_are_renewed() {
    let data = tempfile::tempdir().unwrap();
    let options = Options { leaf_lifetime: Duration::from_secs(2), ..options(data.path()) };
    let control = start(options).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let token_file = home.path().join("token");
    std::fs::write(&token_file, control.token(&name("web-1"), None, HOUR).unwrap()).unwrap();
    let (applied, _live) = mpsc::unbounded_channel();
    let (identities, mut identity) = mpsc::unbounded_channel();
    let node = tokio::spawn(outrigger_control::run(
        outrigger_control::Options {
            url: format!("https://127.0.0.1:{}", control.stream().port()),
            token_file: Some(token_file),
            node: name("web-1"),
            state_dir: home.path().join("state"),
            version: "1.2.3".into(),
        },
        Report { applied, identities },
    ));
    let first = identity.recv().await.unwrap();
    let second = identity.recv().await.unwrap();
    assert_eq!(first.id(), second.id());
    assert!(second.not_after() > first.not_after());
    node.abort();
}
