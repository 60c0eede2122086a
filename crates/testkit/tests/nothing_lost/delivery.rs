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
/// How many ways there are to each instance. Where a connection cannot be made, that way is left alone for a while.
const WAYS: usize = 8;
const BODY: &str = "a few words";

/// Which connections are reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// Those of the two sidecars: mutual TLS, with HTTP/2 within.
    Sidecars,
    /// Those of the callee's sidecar to its application: HTTP/1.1.
    SidecarAndApplication,
}

/// At which bytes: 0, `step`, twice `step` … below `span`, and then from 1 on, until all have had their turn. Every other
/// connection lives for `more` bytes more, so that some requests are answered.
#[derive(Debug, Clone)]
struct Sweep {
    side: Side,
    span: u64,
    step: u64,
    more: u64,
    next: Arc<AtomicU64>,
    on: Arc<AtomicBool>,
}

impl Sweep {
    fn new(side: Side, span: u64, step: u64, more: u64) -> Self {
        Self { side, span, step, more, next: Arc::default(), on: Arc::default() }
    }

    /// How many connections it takes until each offset of one round has had its turn.
    fn round(&self) -> u64 {
        2 * self.span.div_ceil(self.step)
    }

    fn fate(&self) -> impl FnMut(u64) -> Option<Fault> + Send + 'static {
        let sweep = self.clone();
        move |_| {
            if !sweep.on.load(Ordering::Relaxed) {
                return None;
            }
            let nth = sweep.next.fetch_add(1, Ordering::Relaxed);
            let (nth, more) = (nth / 2, nth % 2 * sweep.more);
            let around = sweep.span.div_ceil(sweep.step);
            let after = ((nth % around) * sweep.step + nth / around) % sweep.span;
            Some(Fault { side: sweep.side, after: after + more, how: How::Reset })
        }
    }
}

/// Two instances of an application that keeps a ledger, each behind a relay, a sidecar and another relay.
struct Stage {
    _members: Vec<(Sidecar, Bookkeeper, Relay)>,
    _outer: Vec<Relay>,
    _deserted: Sidecar,
    web: Sidecar,
    ledger: Arc<Ledger>,
    sweep: Sweep,
    _mesh: Mesh,
}

impl Stage {
    async fn open(between: Between, sweep: Sweep, posts: usize) -> Self {
        let mesh = Mesh::start().await.unwrap();
        let ledger = Ledger::new(posts);
        let (mut members, mut outer, mut endpoints) = (Vec::new(), Vec::new(), Vec::<Value>::new());
        let fate = |here: Between| {
            let mut fate = sweep.fate();
            move |nth| (here == between).then(|| fate(nth)).flatten()
        };
        for name in ["api-1", "api-2"] {
            let keeper = Bookkeeper::start(&ledger, Manners::default()).unwrap();
            let inner = Relay::start(keeper.address(), fate(Between::SidecarAndApplication)).unwrap();
            let sidecar = mesh.sidecar(name).before(inner.address()).start().await.unwrap();
            for _ in 0..WAYS {
                let relay = Relay::start(sidecar.inbound().unwrap(), fate(Between::Sidecars)).unwrap();
                let mut endpoint = sidecar.endpoint();
                endpoint["address"] = json!(relay.address());
                endpoints.push(endpoint);
                outer.push(relay);
            }
            members.push((sidecar, keeper, inner));
        }
        let deserted = deserted(&mesh).await;
        endpoints.push(deserted.endpoint());
        let web = mesh.sidecar("web").start().await.unwrap();
        call_often(&mesh, &web, endpoints).await;
        sweep.on.store(true, Ordering::Relaxed);
        Self { _members: members, _outer: outer, _deserted: deserted, web, ledger, sweep, _mesh: mesh }
    }
}

/// A sidecar whose application has gone: it can say of every request that it reached nobody.
async fn deserted(mesh: &Mesh) -> Sidecar {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    mesh.sidecar("deserted").before(gone).start().await.unwrap()
}

/// Routes to these endpoints, with as many retries as are safe.
async fn call_often(mesh: &Mesh, web: &Sidecar, endpoints: Vec<Value>) {
    let budget = json!({
        "budget": { "percent": 100, "interval": "10s" },
        "minRetryRate": { "count": 1000, "interval": "1s" },
    });
    put_backend(mesh, json!({ "endpoints": endpoints, "retryConstraint": budget })).await;
    route(mesh, web, json!({ "retry": { "attempts": 5, "backoff": "1ms" } })).await;
}

/// POSTs all through a sidecar, and answers how each ended.
async fn post(web: &Sidecar, posts: usize) -> Vec<Ended> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut caller, next) = (RawCaller::new(web.outbound()), next.clone());
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

/// Sends the POSTs, and checks that none arrived twice, not even its first line.
async fn posts(between: Between, sweep: Sweep, posts: usize) {
    let stage = Stage::open(between, sweep, posts).await;
    let began = Instant::now();
    let ended = post(&stage.web, posts).await;
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
    assert!(resets >= stage.sweep.round(), "not every offset had its turn: {resets}");
    assert!(retries > 0.0, "none was sent again");
}

#[tokio::test]
async fn no_post_arrives_twice_when_the_way_to_the_application_is_cut_in_the_request() {
    posts(Between::SidecarAndApplication, Sweep::new(Side::Request, 600, 1, 2_000), 30_000).await;
}

#[tokio::test]
async fn no_post_arrives_twice_when_the_way_to_the_application_is_cut_in_the_response() {
    posts(Between::SidecarAndApplication, Sweep::new(Side::Response, 200, 1, 1_000), 30_000).await;
}

#[tokio::test]
async fn no_post_arrives_twice_when_the_way_between_sidecars_is_cut_in_the_request() {
    posts(Between::Sidecars, Sweep::new(Side::Request, 6_000, 23, 2_000), 20_000).await;
}

#[tokio::test]
async fn no_post_arrives_twice_when_the_way_between_sidecars_is_cut_in_the_response() {
    posts(Between::Sidecars, Sweep::new(Side::Response, 6_000, 41, 1_500), 20_000).await;
}

/// `cargo test --release -p outrigger-testkit --test nothing_lost -- --ignored --exact --nocapture delivery::no_post_of_a_million_arrives_twice`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: a million POSTs"]
async fn no_post_of_a_million_arrives_twice() {
    for side in [Side::Request, Side::Response] {
        posts(Between::SidecarAndApplication, Sweep::new(side, 1_000, 1, 2_000), 150_000).await;
    }
    // Each connection carries some 15 and 30 of them, and there are two for each offset.
    posts(Between::Sidecars, Sweep::new(Side::Request, 6_000, 1, 500), 300_000).await;
    posts(Between::Sidecars, Sweep::new(Side::Response, 5_000, 1, 500), 400_000).await;
}

/// What was cut before mutual TLS was agreed on, or had no application to go to, provably was not delivered: it is sent
/// elsewhere, whatever its method, and none fails.
#[tokio::test]
async fn every_post_that_provably_was_not_delivered_is_sent_elsewhere() {
    const POSTS: usize = 3_000;
    let mesh = Mesh::start().await.unwrap();
    let ledger = Ledger::new(POSTS);
    let keeper = Bookkeeper::start(&ledger, Manners::default()).unwrap();
    let well = mesh.sidecar("well").before(keeper.address()).start().await.unwrap();
    let deserted = deserted(&mesh).await;
    let mut endpoints = vec![well.endpoint(), deserted.endpoint()];
    // Each is paused after it has failed: so many of them, for so many offsets.
    let mut relays = Vec::new();
    for (side, after) in (0..12).flat_map(|nth| [(Side::Request, nth * 16), (Side::Response, nth * 48)]) {
        let fate = move |_| Some(Fault { side, after, how: How::Reset });
        let relay = Relay::start(well.inbound().unwrap(), fate).unwrap();
        let mut endpoint = well.endpoint();
        endpoint["address"] = json!(relay.address());
        endpoints.push(endpoint);
        relays.push(relay);
    }
    let web = mesh.sidecar("web").start().await.unwrap();
    call_often(&mesh, &web, endpoints).await;
    let ended = post(&web, POSTS).await;
    let failed: Vec<_> = ended.iter().filter(|ended| !ended.is_ok()).take(4).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!((ledger.arrived(), ledger.begun_again()), (POSTS, 0));
    let cut = relays.iter().filter(|relay| relay.broken() > 0).count();
    println!("{} sent again, {cut} of {} offsets", metric(&web, "outrigger_retries_total"), relays.len());
    assert_eq!(cut, relays.len(), "every offset was met");
}
