//! POSTs, while connections are reset at every byte: none is delivered twice, and what provably was not is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use outrigger_testkit::fault::{Fault, How, Relay, Side};
use outrigger_testkit::ledger::{Bookkeeper, Ledger, Manners};
use outrigger_testkit::load::{Ended, RawCaller};
use outrigger_testkit::mesh::{Mesh, Sidecar};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::stage::{metric, put_backend, route};

/// How many callers there are at once.
const CALLERS: usize = 64;
const BODY: &str = "a few words";

/// Which connections are reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// Those of the two sidecars: mutual TLS, with HTTP/2 within.
    Sidecars,
    /// Those of the callee's sidecar to its application: HTTP/1.1.
    SidecarAndApplication,
}

/// At which bytes: 0, `step`, twice `step` … below `span`, and then from 1 on, until all have had their turn.
#[derive(Debug, Clone)]
struct Sweep {
    side: Side,
    span: u64,
    step: u64,
    next: Arc<AtomicU64>,
    on: Arc<AtomicBool>,
}

impl Sweep {
    fn new(side: Side, span: u64, step: u64) -> Self {
        Self { side, span, step, next: Arc::default(), on: Arc::default() }
    }

    fn fate(&self) -> impl FnMut(u64) -> Option<Fault> + Send + 'static {
        let sweep = self.clone();
        move |_| {
            if !sweep.on.load(Ordering::Relaxed) {
                return None;
            }
            let nth = sweep.next.fetch_add(1, Ordering::Relaxed);
            let around = sweep.span.div_ceil(sweep.step);
            let after = ((nth % around) * sweep.step + nth / around) % sweep.span;
            Some(Fault { side: sweep.side, after, how: How::Reset })
        }
    }
}

/// Two instances of an application that keeps a ledger, each behind a relay, a sidecar and another relay.
struct Stage {
    _members: Vec<(Sidecar, Bookkeeper, Relay, Relay)>,
    web: Sidecar,
    ledger: Arc<Ledger>,
    sweep: Sweep,
    _mesh: Mesh,
}

impl Stage {
    async fn open(between: Between, sweep: Sweep, posts: usize) -> Self {
        let mesh = Mesh::start().await.unwrap();
        let ledger = Ledger::new(posts);
        let (mut members, mut endpoints) = (Vec::new(), Vec::<Value>::new());
        let fate = |here: Between| {
            let mut fate = sweep.fate();
            move |nth| (here == between).then(|| fate(nth)).flatten()
        };
        for name in ["api-1", "api-2"] {
            let keeper = Bookkeeper::start(&ledger, Manners::default()).unwrap();
            let inner = Relay::start(keeper.address(), fate(Between::SidecarAndApplication)).unwrap();
            let sidecar = mesh.sidecar(name).before(inner.address()).start().await.unwrap();
            let outer = Relay::start(sidecar.inbound().unwrap(), fate(Between::Sidecars)).unwrap();
            let mut endpoint = sidecar.endpoint();
            endpoint["address"] = json!(outer.address());
            endpoints.push(endpoint);
            members.push((sidecar, keeper, inner, outer));
        }
        let web = mesh.sidecar("web").start().await.unwrap();
        let budget = json!({
            "budget": { "percent": 100, "interval": "10s" },
            "minRetryRate": { "count": 1000, "interval": "1s" },
        });
        put_backend(&mesh, json!({ "endpoints": endpoints, "retryConstraint": budget })).await;
        route(&mesh, &web, json!({ "retry": { "attempts": 2, "backoff": "1ms" } })).await;
        sweep.on.store(true, Ordering::Relaxed);
        Self { _members: members, web, ledger, sweep, _mesh: mesh }
    }

    /// POSTs all, and answers how each ended.
    async fn post(&self, posts: usize) -> Vec<Ended> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (mut caller, next) = (RawCaller::new(self.web.outbound()), next.clone());
            callers.spawn(async move {
                let mut ended = Vec::new();
                loop {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    if id >= posts {
                        return ended;
                    }
                    ended.push((id, caller.call("POST", id, BODY).await));
                }
            });
        }
        let mut all = vec![Ended::Broke("not sent".into()); posts];
        while let Some(ended) = callers.join_next().await {
            for (id, ended) in ended.unwrap() {
                all[id] = ended;
            }
        }
        all
    }
}

/// Sends the POSTs, and checks that none arrived twice, not even its first line.
async fn posts(between: Between, sweep: Sweep, posts: usize) {
    let stage = Stage::open(between, sweep, posts).await;
    let began = Instant::now();
    let ended = stage.post(posts).await;
    let took = began.elapsed();
    let answered = ended.iter().filter(|ended| ended.is_ok()).count();
    let (resets, retries) =
        (stage.sweep.next.load(Ordering::Relaxed), metric(&stage.web, "outrigger_retries_total"));
    println!(
        "{posts} POSTs in {took:?}, {resets} resets between {between:?} in the {:?}: {answered} answered, {} arrived, \
         {retries} sent again, {} began again, {} twice",
        stage.sweep.side,
        stage.ledger.arrived(),
        stage.ledger.begun_again(),
        stage.ledger.duplicates(),
    );
    let broke: Vec<_> = ended.iter().filter(|ended| matches!(ended, Ended::Broke(_))).take(4).collect();
    assert!(broke.is_empty(), "a sidecar breaks its callers' connections: {broke:?}");
    assert_eq!((stage.ledger.begun_again(), stage.ledger.duplicates()), (0, 0));
    for (id, _) in ended.iter().enumerate().filter(|(_, ended)| ended.is_ok()) {
        assert_eq!(stage.ledger.times(id), 1, "POST {id} was answered with 200");
    }
    assert!(resets >= stage.sweep.span / stage.sweep.step, "not every offset had its turn: {resets}");
    assert!(retries > 0.0, "none was sent again");
}

#[tokio::test]
async fn no_post_arrives_twice_when_the_way_to_the_application_is_cut_in_the_request() {
    posts(Between::SidecarAndApplication, Sweep::new(Side::Request, 600, 1), 5_000).await;
}

#[tokio::test]
async fn no_post_arrives_twice_when_the_way_to_the_application_is_cut_in_the_response() {
    posts(Between::SidecarAndApplication, Sweep::new(Side::Response, 200, 1), 5_000).await;
}

#[tokio::test]
async fn no_post_arrives_twice_when_the_way_between_sidecars_is_cut_in_the_request() {
    posts(Between::Sidecars, Sweep::new(Side::Request, 6_000, 11), 5_000).await;
}

#[tokio::test]
async fn no_post_arrives_twice_when_the_way_between_sidecars_is_cut_in_the_response() {
    posts(Between::Sidecars, Sweep::new(Side::Response, 6_000, 11), 5_000).await;
}
