//! A node and its control API, over real sockets.

mod api;
mod kept;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_certs::{Identity, control};
use outrigger_config::Resource;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::api::{Api, Realm, Session, id, within};
use super::wire::Origin;
use super::{Options, Pulse, Sink, run_with};
use crate::Refusal;
use crate::message::{FromControl, FromNode};

/// What a sink was told.
#[derive(Debug)]
enum Told {
    Identity(Arc<Identity>),
    /// Revision, the names of the objects with their endpoints' ports, how many were rejected.
    Applied(u64, Vec<String>, usize),
    Connected(bool),
}

/// Writes down what it is told, and refuses backends whose name begins with `odd`.
struct Recorder(mpsc::UnboundedSender<Told>);

impl Sink for Recorder {
    fn identity(&mut self, identity: Arc<Identity>) {
        drop(self.0.send(Told::Identity(identity)));
    }

    async fn apply(&mut self, revision: u64, resources: Vec<Arc<Resource>>, rejected: usize) -> Vec<Refusal> {
        let port = |resource: &Resource| {
            let spec = resource.spec_json();
            let address = spec["endpoints"][0]["address"].as_str().unwrap_or(":none").to_owned();
            address.rsplit_once(':').unwrap().1.to_owned()
        };
        let names =
            resources.iter().map(|resource| format!("{}:{}", resource.key(), port(resource))).collect();
        drop(self.0.send(Told::Applied(revision, names, rejected)));
        let odd = resources.iter().filter(|resource| resource.name.as_str().starts_with("odd"));
        odd.map(|resource| Refusal {
            kind: resource.kind().to_string(),
            name: resource.name.clone(),
            field: "name".into(),
            reason: "it is odd".into(),
        })
        .collect()
    }

    fn connected(&mut self, up: bool) {
        drop(self.0.send(Told::Connected(up)));
    }
}

/// A running node. Dropping it ends it.
struct Node {
    told: mpsc::UnboundedReceiver<Told>,
    task: JoinHandle<String>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const STEADY: Pulse = Pulse { heartbeat: Duration::from_millis(50), dead_after: Duration::from_secs(15) };
const NERVOUS: Pulse = Pulse { heartbeat: Duration::from_millis(50), dead_after: Duration::from_millis(400) };

impl Node {
    /// Ends it, as the end of a proxy's runtime does.
    async fn end(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.is_err_and(|end| end.is_cancelled()));
    }

    fn start(url: &str, dir: &TempDir, token: Option<&str>, pulse: Pulse) -> Self {
        let token_file = token.map(|token| {
            let path = dir.path().join("token");
            std::fs::write(&path, format!("{token}\n")).unwrap();
            path
        });
        let options = Options {
            url: url.to_owned(),
            token_file,
            node: "a".parse().unwrap(),
            state_dir: dir.path().join("state"),
            version: "0.1.0".into(),
        };
        let (tell, told) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let Err(error) = run_with(options, Recorder(tell), pulse).await;
            error.to_string()
        });
        Self { told, task }
    }

    async fn told(&mut self) -> Told {
        within(self.told.recv()).await.expect("the node runs")
    }

    async fn identity(&mut self) -> Arc<Identity> {
        match self.told().await {
            Told::Identity(identity) => identity,
            other => panic!("expected an identity, was told {other:?}"),
        }
    }

    /// The next configuration, as `REVISION: OBJECTS (REJECTED)`.
    async fn applied(&mut self) -> String {
        match self.told().await {
            Told::Applied(revision, names, rejected) => {
                format!("{revision}: {} ({rejected})", names.join(" "))
            }
            other => panic!("expected a configuration, was told {other:?}"),
        }
    }

    async fn connected(&mut self) -> bool {
        match self.told().await {
            Told::Connected(up) => up,
            other => panic!("expected a connection, was told {other:?}"),
        }
    }

    /// Why it ended.
    async fn error(mut self) -> String {
        within(&mut self.task).await.unwrap()
    }
}

fn backend(port: u16) -> Value {
    json!({ "endpoints": [{ "address": format!("127.0.0.1:{port}") }] })
}

/// A control API, a node that has just got its identity from it, and their stream.
async fn pair(realm: &Arc<Realm>, dir: &TempDir, pulse: Pulse) -> (Api, Node, Session) {
    let mut api = Api::start(realm, None).await;
    let mut node = Node::start(&api.url(), dir, Some(&realm.token()), pulse);
    assert_eq!(node.identity().await.id(), &id());
    let session = api.session().await;
    (api, node, session)
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_node_gets_its_identity_by_token_and_then_its_configuration() {
    let (realm, dir) = (Realm::new(), dir());
    let (_api, mut node, mut session) = pair(&realm, &dir, STEADY).await;
    let hello = FromNode::Hello {
        node: "a".parse().unwrap(),
        version: "0.1.0".into(),
        store: None,
        revision: 0,
        have: BTreeMap::new(),
    };
    assert_eq!(session.hear().await, hello);
    assert_eq!(*realm.signed.lock().unwrap(), ["token"]);
    session.welcome("s1").await;
    assert!(node.connected().await);
    session.put(1, "Backend", "web", backend(1)).await;
    session.put(2, "Backend", "api", backend(2)).await;
    assert_eq!(session.commit(2).await, []);
    assert_eq!(node.applied().await, "2: Backend/api:2 Backend/web:1 (0)");
    let gone = FromControl::Delete { revision: 3, kind: "Backend".into(), name: "web".parse().unwrap() };
    session.say(&gone).await;
    assert_eq!(session.commit(3).await, []);
    assert_eq!(node.applied().await, "3: Backend/api:2 (0)");
    assert_eq!(session.hear_all().await, FromNode::Heartbeat {});
}

#[tokio::test]
async fn the_first_commit_counts_though_it_is_empty_and_later_empty_ones_do_not() {
    let (realm, dir) = (Realm::new(), dir());
    let (_api, mut node, mut session) = pair(&realm, &dir, STEADY).await;
    session.hear().await;
    session.welcome("s1").await;
    assert!(node.connected().await);
    assert_eq!(session.commit(0).await, []);
    assert_eq!(node.applied().await, "0:  (0)");
    assert_eq!(session.commit(7).await, []);
    session.put(8, "Backend", "web", backend(1)).await;
    assert_eq!(session.commit(8).await, []);
    assert_eq!(node.applied().await, "8: Backend/web:1 (0)", "nothing was told of revision 7");
}

#[tokio::test]
async fn a_bad_object_keeps_its_last_good_version() {
    let (realm, dir) = (Realm::new(), dir());
    let (_api, mut node, mut session) = pair(&realm, &dir, STEADY).await;
    session.hear().await;
    session.welcome("s1").await;
    assert!(node.connected().await);
    session.put(1, "Backend", "web", backend(1)).await;
    session.put(1, "Teapot", "brown", json!({ "spout": 1 })).await;
    session.put(1, "Backend", "odd", backend(9)).await;
    let refused = session.commit(1).await;
    let said = |refused: &[Refusal]| -> Vec<String> {
        refused.iter().map(|r| format!("{}/{}: {}: {}", r.kind, r.name, r.field, r.reason)).collect()
    };
    assert_eq!(
        said(&refused),
        ["Teapot/brown: kind: this version does not know the kind Teapot", "Backend/odd: name: it is odd",]
    );
    assert_eq!(node.applied().await, "1: Backend/odd:9 Backend/web:1 (1)");

    session.put(2, "Backend", "web", json!({ "endpoints": [{ "address": "nowhere" }] })).await;
    session.put(2, "Backend", "api", backend(2)).await;
    let refused = session.commit(2).await;
    assert_eq!(refused.len(), 3);
    assert!(said(&refused)[0].starts_with("Backend/web: endpoints[0].address: "), "{refused:?}");
    assert_eq!(node.applied().await, "2: Backend/api:2 Backend/odd:9 Backend/web:1 (2)");

    session.put(3, "Backend", "web", backend(3)).await;
    for (kind, name) in [("Teapot", "brown"), ("Backend", "odd")] {
        let (kind, name) = (kind.to_owned(), name.parse().unwrap());
        session.say(&FromControl::Delete { revision: 3, kind, name }).await;
    }
    assert_eq!(session.commit(3).await, []);
    assert_eq!(node.applied().await, "3: Backend/api:2 Backend/web:3 (0)");
}

#[tokio::test]
async fn a_control_api_that_was_killed_is_caught_up_with() {
    let (realm, dir) = (Realm::new(), dir());
    let (api, mut node, mut session) = pair(&realm, &dir, STEADY).await;
    session.hear().await;
    session.welcome("s1").await;
    assert!(node.connected().await);
    session.put(1, "Backend", "web", backend(1)).await;
    session.put(2, "Backend", "api", backend(2)).await;
    session.commit(2).await;
    node.applied().await;
    session.put(3, "Backend", "api", json!({ "unheard": true })).await;
    session.commit(3).await;
    assert_eq!(node.applied().await, "3: Backend/api:2 Backend/web:1 (1)");
    // Put, but not committed.
    session.put(4, "Backend", "web", backend(4)).await;
    let address = api.address;
    drop((api, session));
    assert!(!node.connected().await);

    let back = Instant::now();
    let mut api = Api::start(&realm, Some(address)).await;
    let mut session = api.session().await;
    let FromNode::Hello { store, revision, have, .. } = session.hear().await else {
        panic!("the first line is a hello")
    };
    assert_eq!((store.as_deref(), revision), (Some("s1"), 3));
    let expected = [("Backend/api".to_owned(), 2), ("Backend/web".to_owned(), 1)];
    assert_eq!(have, BTreeMap::from(expected), "what was refused stands with its last good revision");
    session.welcome("s2").await;
    session.put(1, "Backend", "api", backend(7)).await;
    assert_eq!(session.commit(1).await, []);
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    assert!(node.connected().await);
    assert_eq!(node.applied().await, "1: Backend/api:7 Backend/web:1 (0)");
    assert_eq!(*realm.signed.lock().unwrap(), ["token"], "the certificate is still good");
}

#[tokio::test]
async fn a_silent_stream_is_dead() {
    let (realm, dir) = (Realm::new(), dir());
    let (mut api, mut node, mut session) = pair(&realm, &dir, NERVOUS).await;
    session.hear().await;
    session.welcome("s1").await;
    assert!(node.connected().await);
    // Heartbeats keep it alive for longer than it bears silence.
    for _ in 0..12 {
        session.say(&FromControl::Heartbeat {}).await;
        assert_eq!(session.hear_all().await, FromNode::Heartbeat {});
    }
    // Then nothing.
    assert!(!node.connected().await);
    let mut again = api.session().await;
    assert!(matches!(again.hear().await, FromNode::Hello { store: None, .. }), "nothing was committed");
}

#[tokio::test]
async fn a_line_that_is_no_message_ends_the_stream_and_nothing_else() {
    let (realm, dir) = (Realm::new(), dir());
    let (mut api, mut node, mut session) = pair(&realm, &dir, STEADY).await;
    session.hear().await;
    session.welcome("s1").await;
    assert!(node.connected().await);
    session.put(1, "Backend", "web", backend(1)).await;
    session.commit(1).await;
    node.applied().await;
    session.garbage().await;
    assert!(!node.connected().await);
    let mut again = api.session().await;
    assert!(matches!(again.hear().await, FromNode::Hello { revision: 1, .. }));
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_life_while_the_stream_goes_on() {
    let (realm, dir) = (Realm::new(), dir());
    *realm.lifetime.lock().unwrap() = Duration::from_secs(4);
    let mut api = Api::start(&realm, None).await;
    let mut node = Node::start(&api.url(), &dir, Some(&realm.token()), STEADY);
    let first = node.identity().await;
    let mut session = api.session().await;
    session.hear().await;
    session.welcome("s1").await;
    assert!(node.connected().await);
    let second = node.identity().await;
    assert_eq!(second.id(), first.id());
    assert_ne!(second.key_pem().expose(), first.key_pem().expose());
    assert!(second.not_after() > first.not_after());
    assert_eq!(*realm.signed.lock().unwrap(), ["token", "certificate"]);
    session.put(1, "Backend", "web", backend(1)).await;
    assert_eq!(session.commit(1).await, []);
    assert_eq!(node.applied().await, "1: Backend/web:1 (0)", "the stream is the one it was");
}

#[tokio::test]
async fn a_refused_signature_is_asked_for_again() {
    let (realm, dir) = (Realm::new(), dir());
    *realm.refuse.lock().unwrap() = 2;
    let (_api, _node, mut session) = pair(&realm, &dir, STEADY).await;
    assert!(matches!(session.hear().await, FromNode::Hello { .. }));
}

#[tokio::test]
async fn what_can_never_get_better_ends_it() {
    for (url, said) in [
        ("http://localhost:15012", "it must begin with https://"),
        ("localhost", "it must begin with https://"),
        ("https://localhost/v1", "it must not have a path"),
        ("https:// x", "invalid"),
    ] {
        let error = Node::start(url, &dir(), Some("e30.e30.e30"), STEADY).error().await;
        assert!(error.contains(said) && error.contains("write https://HOST:15012"), "{error}");
    }
    let url = "https://127.0.0.1:1";
    let error = Node::start(url, &dir(), None, STEADY).error().await;
    assert!(error.contains("outrigger-control token --node a"), "{error}");
    let error = Node::start(url, &dir(), Some("nonsense"), STEADY).error().await;
    assert!(error.contains("three parts"), "{error}");
}

#[tokio::test]
async fn an_address_that_speaks_no_tls_is_said_to_be_the_wrong_one() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let rest = tokio::spawn(async move {
        let (mut caller, _) = listener.accept().await.unwrap();
        caller.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        // Closed by the other end: closing first could drop what was said.
        drop(caller.read_to_end(&mut Vec::new()).await);
    });
    let hello = FromNode::Heartbeat {};
    let tried = Origin::parse(&url).unwrap().stream(control::pinned([0; 32]), &hello).await;
    let error = tried.err().unwrap().to_string();
    assert!(error.contains("does not speak TLS: is it the control API's stream address"), "{error}");
    rest.await.unwrap();
}
