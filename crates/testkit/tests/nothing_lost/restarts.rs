//! An application of several instances is restarted, one instance after the other, under traffic of every kind.

use std::time::Duration;

use http::Method;
use outrigger_testkit::load::{Kind, Load, Tally, Traffic};
use outrigger_testkit::mesh::{Member, Mesh, Sidecar};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::stage::{put_backend, route};

/// How often, how late and under how much traffic.
#[derive(Clone, Copy)]
struct Plan {
    restarts: usize,
    /// How long after an instance began to leave its endpoint is withdrawn.
    late: Duration,
    /// Requests a second of each of the four kinds.
    per_second: u32,
    /// A call that streams: how many messages, and what is between two.
    messages: u32,
    gap: Duration,
}

const SHORT: Plan = Plan {
    restarts: 3,
    late: Duration::from_secs(1),
    per_second: 50,
    messages: 10,
    gap: Duration::from_millis(60),
};

const LONG: Plan = Plan {
    restarts: 20,
    late: Duration::from_secs(10),
    per_second: 250,
    messages: 5,
    gap: Duration::from_millis(800),
};

/// An application of three instances, and who calls it.
struct Stage {
    members: Vec<Member>,
    web: Sidecar,
    mesh: Mesh,
}

impl Stage {
    async fn open() -> Self {
        let mesh = Mesh::start().await.unwrap();
        let mut members = Vec::new();
        for name in ["api-1", "api-2", "api-3"] {
            members.push(mesh.app(name).start().await.unwrap());
        }
        let web = mesh.sidecar("web").start().await.unwrap();
        let stage = Self { members, web, mesh };
        stage.put_without(None).await;
        route(&stage.mesh, &stage.web, json!({})).await;
        stage
    }

    async fn put_without(&self, gone: Option<usize>) {
        let there = self.members.iter().enumerate().filter(|(at, _)| Some(*at) != gone);
        let endpoints: Vec<Value> = there.map(|(_, member)| member.sidecar.endpoint()).collect();
        put_backend(&self.mesh, json!({ "endpoints": endpoints })).await;
    }

    /// One instance leaves, is missed late, and comes back. With `together`, application and sidecar are told at once, as
    /// Kubernetes does it; else the sidecar goes first.
    async fn restart(&mut self, at: usize, together: bool, late: Duration) {
        let began = Instant::now();
        let Member { app, sidecar } = &mut self.members[at];
        if together {
            tokio::join!(sidecar.stop(), app.stop());
        } else {
            sidecar.stop().await;
            app.stop().await;
        }
        tokio::time::sleep_until(began + late).await;
        self.put_without(Some(at)).await;
        let member = &mut self.members[at];
        member.restart_app().await.unwrap();
        member.sidecar.start().await.unwrap();
        self.put_without(None).await;
    }
}

/// Traffic of every kind. Calls of gRPC are POSTs.
fn traffic(web: &Sidecar, plan: Plan, http1: Method) -> Vec<Load> {
    let Plan { per_second, messages, gap, .. } = plan;
    let kinds = [Kind::Http1, Kind::Http2, Kind::Unary, Kind::Streaming { messages, gap }];
    let start = |kind| {
        let mut traffic = Traffic::new(kind, per_second);
        if kind == Kind::Http1 {
            traffic.method = http1.clone();
        }
        traffic.patience = Duration::from_secs(20);
        Load::start(web.outbound(), traffic)
    };
    kinds.into_iter().map(start).collect()
}

async fn end(loads: Vec<Load>) -> Tally {
    let mut all = Tally::default();
    for tally in futures_util::future::join_all(loads.into_iter().map(Load::end)).await {
        all.add(tally);
    }
    all
}

/// With `together`, an application closes its connections while its sidecar still sends on them: a POST of HTTP/1.1 that is
/// just on its way then cannot be known not to have arrived, and is not sent again. So those are GETs.
async fn rolling(plan: Plan, together: bool) {
    let mut stage = Stage::open().await;
    let began = Instant::now();
    let loads = traffic(&stage.web, plan, if together { Method::GET } else { Method::POST });
    for nth in 0..plan.restarts {
        stage.restart(nth % stage.members.len(), together, plan.late).await;
    }
    let took = began.elapsed().as_secs_f64();
    let least = (took * f64::from(plan.per_second) * 4.0 * 0.9) as u64;
    let tally = end(loads).await;
    println!(
        "{} restarts in {took:.0} s, {} requests, {:.0} a second: {} failed, the slowest took {:?}",
        plan.restarts,
        tally.requests,
        tally.requests as f64 / took,
        tally.failures.len(),
        tally.slowest
    );
    tally.is_whole(least);
}

#[tokio::test]
async fn no_caller_notices_a_rolling_restart() {
    rolling(SHORT, false).await;
}

#[tokio::test]
async fn no_caller_notices_a_rolling_restart_of_all_at_once() {
    rolling(SHORT, true).await;
}

/// `cargo test --release -p outrigger-testkit --test nothing_lost -- --ignored --exact restarts::no_caller_notices_twenty_rolling_restarts`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: 20 restarts at 1,000 requests a second, withdrawn 10 s late"]
async fn no_caller_notices_twenty_rolling_restarts() {
    rolling(LONG, false).await;
    rolling(LONG, true).await;
}

/// The control API is away when instances leave, and back when they have come again.
#[tokio::test]
async fn no_caller_notices_a_rolling_restart_without_the_control_api() {
    let mut stage = Stage::open().await;
    let mut loads = traffic(&stage.web, SHORT, Method::GET);
    for at in 0..2 {
        stage.mesh.kill_control().await;
        loads[0].more(10).await;
        let Member { app, sidecar } = &mut stage.members[at];
        sidecar.stop().await;
        app.stop().await;
        loads[0].more(10).await;
        let member = &mut stage.members[at];
        member.restart_app().await.unwrap();
        member.sidecar.start().await.unwrap();
        stage.mesh.restart_control().await.unwrap();
        stage.put_without(None).await;
    }
    end(loads).await.is_whole(100);
}

/// An application that comes and goes, again and again, with endpoints that nobody withdraws.
#[tokio::test]
async fn no_caller_notices_an_instance_that_flaps() {
    let mut stage = Stage::open().await;
    let mut loads = traffic(&stage.web, SHORT, Method::GET);
    for _ in 0..20 {
        loads[0].more(3).await;
        stage.members[0].app.stop().await;
        loads[0].more(3).await;
        stage.members[0].restart_app().await.unwrap();
    }
    end(loads).await.is_whole(300);
}
