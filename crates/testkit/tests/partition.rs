//! A network that loses every packet: the kernel of a host that is gone neither answers nor resets, on connections that are
//! open and for those that are to be made. Callers see none of it, and when the packets come again the host gets its share.
//!
//! Needs root, `ip` and `nft`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outrigger_proxy::{Options, Source, start};
use outrigger_testkit::app::App;
use outrigger_testkit::load::{Kind, Load, Traffic};
use outrigger_testkit::netns::{self, APP, Inside, Net, Pod};

const PORT: u16 = 8080;
const PROXY: u16 = 8000;
/// All packets of the pod are dropped, in and out.
const LOST: [&str; 2] = [
    "add table inet lost; \
     add chain inet lost in { type filter hook input priority 0; policy drop; }; \
     add chain inet lost out { type filter hook output priority 0; policy drop; }",
    "delete table inet lost",
];

/// A host with an application.
struct Host {
    app: App,
    pod: Pod,
    _inside: Inside,
}

impl Host {
    fn start(net: &Net, name: &'static str, number: u8) -> Self {
        let pod = Pod::new(net, name, number).unwrap();
        let inside = pod.inside_as(APP).unwrap();
        let at = SocketAddr::new(pod.ipv4().into(), PORT);
        let app = inside.run(async move { App::builder().name(name).address(at).start().await });
        Self { app, pod, _inside: inside }
    }

    /// Cuts it off, or joins it again.
    fn nft(&self, rules: &str) {
        self.pod.exec_as(0, &["nft", rules]).unwrap().ok().unwrap();
    }
}

fn config(hosts: [&Host; 2], protocol: &str) -> String {
    let [one, other] = hosts.map(|host| host.app.address());
    format!(
        "listeners: [{{ name: web, address: '127.0.0.1:{PROXY}', protocol: HTTP }}]
httpRoutes:
  - name: all
    listeners: [web]
    rules:
      - backendRefs: [{{ name: app }}]
        timeouts: {{ request: 5s, backendRequest: 500ms }}
        retry: {{ attempts: 3, backoff: 5ms }}
backends:
  - name: app
    protocol: {protocol}
    connectTimeout: 300ms
    endpoints: [{{ address: '{one}' }}, {{ address: '{other}' }}]
"
    )
}

fn partition(kind: Kind, protocol: &str) {
    if let Err(why) = netns::available(&[]) {
        println!("skipped: {why}");
        return;
    }
    let net = Net::new().unwrap();
    let (lost, well) = (Host::start(&net, "lost", 2), Host::start(&net, "well", 3));
    let here = Pod::new(&net, "caller", 1).unwrap();
    let inside = here.inside_as(APP).unwrap();
    let options = Options::quiet(Source::Text(config([&lost, &well], protocol)));
    let proxy = inside.run(start(options)).unwrap();
    let at = proxy.listener("web").unwrap();

    let patience = Duration::from_secs(6);
    let mut load = inside.run(async move {
        let mut load = Load::start(at, Traffic { patience, ..Traffic::new(kind, 40) });
        load.more(40).await;
        load
    });
    assert!(lost.app.requests() > 0 && well.app.requests() > 0);
    lost.nft(LOST[0]);
    let before = lost.app.requests();
    load = inside.run(async move {
        load.more(160).await;
        load
    });
    assert!(lost.app.requests() <= before + 1, "no packet has reached it");
    lost.nft(LOST[1]);
    let until = Instant::now() + Duration::from_secs(40);
    while lost.app.requests() < before + 10 {
        assert!(Instant::now() < until, "it gets nothing any more: {}", proxy.metrics());
        load = inside.run(async move {
            load.more(10).await;
            load
        });
    }
    let tally = inside.run(load.end());
    println!("{} requests, the slowest {:?}", tally.requests, tally.slowest);
    tally.is_whole(200);
    inside.run(proxy.stop());
}

#[test]
fn nobody_notices_that_all_packets_of_an_endpoint_are_lost() {
    partition(Kind::Http1, "HTTP");
}

#[test]
fn nobody_notices_it_over_http2() {
    partition(Kind::Http2, "H2C");
}
