//! A change is live on a hundred connected nodes within 100 ms.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::support::{backend, listener, mesh, node, route};

const NODES: usize = 100;
const CHANGES: u16 = 100;

#[tokio::test]
async fn a_change_is_live_on_a_hundred_nodes_within_100_ms() {
    let mesh = mesh().await;
    let control = &mesh.control;
    control.put([listener("web", &[]), route("shop", "web", "api"), backend("api", 1)]).await.unwrap();
    let (report, mut live) = mpsc::unbounded_channel();
    for index in 0..NODES {
        let mut link = node(control, &format!("node-{index}")).await;
        let report = report.clone();
        tokio::spawn(async move {
            loop {
                let (_, revision) = link.change().await;
                link.applied(revision, vec![]).await;
                if report.send(revision).is_err() {
                    return;
                }
            }
        });
    }
    for _ in 0..NODES {
        live.recv().await.unwrap();
    }

    let mut times = Vec::new();
    for change in 0..CHANGES {
        let start = Instant::now();
        let revision = control.put([backend("api", 1000 + change)]).await.unwrap();
        let mut waiting = NODES;
        while waiting > 0 {
            if live.recv().await.unwrap() == revision {
                waiting -= 1;
                times.push(start.elapsed());
            }
        }
        control.wait_for_nodes(|nodes| nodes.iter().all(|node| node.revision == revision)).await;
    }
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    let (p50, p99, most) = (at(50), at(99), at(100));
    println!("live on {NODES} nodes: p50 {p50:?}, p99 {p99:?}, longest {most:?} from the put on");
    // Without optimisation cryptography aside everything is slow: the figure counts in a release build.
    let limit = if cfg!(debug_assertions) { Duration::from_secs(2) } else { Duration::from_millis(100) };
    assert!(p99 < limit, "p99 is {p99:?}");
}
