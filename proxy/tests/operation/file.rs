//! The configuration follows its file.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use outrigger_proxy::{Proxy, StartError};
use outrigger_testkit::app::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::caller::{Http1, get};
use crate::desk::{Desk, eventually, rejected};

/// A route `a.test` to `a`, and a route `b.test` to `b`.
fn two_routes(a: SocketAddr, b: SocketAddr) -> String {
    format!(
        "listeners:
  - {{ name: web, address: 127.0.0.1:0, protocol: HTTP }}
httpRoutes:
  - name: a
    listeners: [web]
    hostnames: [a.test]
    rules: [{{ backendRefs: [{{ name: a }}] }}]
  - name: b
    listeners: [web]
    hostnames: [b.test]
    rules: [{{ backendRefs: [{{ name: b }}] }}]
backends:
  - {{ name: a, endpoints: [{{ address: {a} }}] }}
  - {{ name: b, endpoints: [{{ address: {b} }}] }}
"
    )
}

async fn two_apps() -> (App, App) {
    (App::builder().name("one").start().await, App::builder().name("two").start().await)
}

/// How long it takes until `app` answers for `a.test`.
async fn until_answered_by(proxy: &Proxy, app: &str) -> Duration {
    let (written, address) = (Instant::now(), proxy.listener("web").unwrap());
    eventually(app, || async move { (get(address, "a.test", "/").await.app() == app).then_some(()) }).await;
    written.elapsed()
}

#[tokio::test]
async fn a_change_is_live_at_once_however_it_is_written() {
    let (one, two) = two_apps().await;
    let (first, second) =
        (two_routes(one.address(), two.address()), two_routes(two.address(), one.address()));
    let desk = Desk::new();
    let proxy = desk.start(&first).await;
    let mut times = Vec::new();
    for _ in 0..5 {
        desk.write("proxy.yaml", &second);
        times.push(until_answered_by(&proxy, "two").await);
        desk.replace("proxy.yaml", &first);
        times.push(until_answered_by(&proxy, "one").await);
    }
    println!("live after {times:?}");
    assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
    proxy.stop().await;
}

/// As the kubelet does: `proxy.yaml` leads to `..data/proxy.yaml`, and `..data` to a folder that changes.
#[tokio::test]
async fn a_config_map_is_followed_through_its_links() {
    let (one, two) = two_apps().await;
    let desk = Desk::new();
    for (folder, text) in
        [("..1", two_routes(one.address(), two.address())), ("..2", two_routes(two.address(), one.address()))]
    {
        std::fs::create_dir(desk.path(folder)).unwrap();
        desk.write(&format!("{folder}/proxy.yaml"), &text);
    }
    symlink("..1", desk.path("..data")).unwrap();
    symlink("..data/proxy.yaml", desk.path("proxy.yaml")).unwrap();
    let proxy = outrigger_proxy::start(desk.options(&desk.path("proxy.yaml"))).await.unwrap();
    let mut times = Vec::new();
    for (folder, app) in [("..2", "two"), ("..1", "one"), ("..2", "two")] {
        symlink(folder, desk.path("..data_tmp")).unwrap();
        std::fs::rename(desk.path("..data_tmp"), desk.path("..data")).unwrap();
        times.push(until_answered_by(&proxy, app).await);
    }
    println!("live after {times:?}");
    assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_changed_route_touches_no_connection() {
    let (one, two) = two_apps().await;
    let desk = Desk::new();
    let proxy = desk.start(&two_routes(one.address(), two.address())).await;
    let address = proxy.listener("web").unwrap();
    let mut upgraded = TcpStream::connect(address).await.unwrap();
    let head = "GET /upgrade HTTP/1.1\r\nhost: b.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    upgraded.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(upgraded.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let mut open = Http1::connect(address).await;
    let before = open.get("b.test", "/").await.unwrap().json();

    desk.write("proxy.yaml", &two_routes(two.address(), two.address()));
    until_answered_by(&proxy, "two").await;
    let after = open.get("b.test", "/").await.unwrap().json();
    assert_eq!(before["peer"], after["peer"], "the connection to the backend stayed too");
    assert_eq!(open.get("a.test", "/").await.unwrap().app(), "two", "an open connection follows the change");
    upgraded.write_all(b"still here").await.unwrap();
    let mut echoed = [0; 10];
    upgraded.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"still here");
    drop(upgraded);
    proxy.stop().await;
}

#[tokio::test]
async fn a_bad_object_keeps_its_last_good_version_and_the_others_go_live() {
    let (one, two) = two_apps().await;
    let good = two_routes(one.address(), two.address());
    let desk = Desk::new();
    let proxy = desk.start(&good).await;
    let address = proxy.listener("web").unwrap();
    for (wrong, place, word) in [
        ("    hostnames: [other.test]\n    rulez: []\n", ":7:5: ", "did you mean `rules`?"),
        (
            "    hostnames: [other.test]\n    rules: [{ matches: [{ path: { type: Prefx } }] }]\n",
            ":7:41: ",
            "Prefx",
        ),
        ("    hostnames: 7\n    rules: []\n", ":6:16: ", "hostnames"),
    ] {
        let bad =
            good.replacen("    hostnames: [a.test]\n    rules: [{ backendRefs: [{ name: a }] }]\n", wrong, 1);
        let bad = bad.replace("hostnames: [b.test]", "hostnames: [b.test, c.test]");
        desk.hush();
        desk.write("proxy.yaml", &bad);
        let line = desk.said(&["proxy.yaml", place, word]).await;
        assert!(
            line.contains("httpRoutes `a`") && line.contains("its last good version stays live"),
            "{line}"
        );
        eventually("c.test is live", || async {
            (get(address, "c.test", "/").await.app() == "two").then_some(())
        })
        .await;
        assert_eq!(get(address, "a.test", "/").await.app(), "one", "the last good version");
        assert_eq!(get(address, "other.test", "/").await.status, 404);
        rejected(&proxy, 1).await;
        desk.write("proxy.yaml", &good);
        rejected(&proxy, 0).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_start_with_a_bad_object_has_the_rest_and_says_so() {
    let (one, two) = two_apps().await;
    let desk = Desk::new();
    let text = two_routes(one.address(), two.address()).replace("[a.test]", "[a.test, a_b!]");
    let proxy = desk.start(&text).await;
    desk.said(&["proxy.yaml:6:25: ", "hostnames[1]", "it is left out"]).await;
    let address = proxy.listener("web").unwrap();
    assert_eq!(get(address, "b.test", "/").await.app(), "two");
    let left_out = get(address, "a.test", "/").await;
    assert_eq!(left_out.status, 404);
    assert!(left_out.header("proxy-status").starts_with("outrigger; error=destination_not_found"));
    rejected(&proxy, 1).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_parsed_starts_nothing_and_changes_nothing() {
    let (one, two) = two_apps().await;
    let good = two_routes(one.address(), two.address());
    let desk = Desk::new();
    let refused = desk.try_start("listeners:\n  - { name: web\n").await.unwrap_err();
    assert!(matches!(refused, StartError::Unreadable { .. }), "{refused}");
    assert!(refused.to_string().contains("proxy.yaml:"), "{refused}");

    let proxy = desk.start(&good).await;
    desk.write("proxy.yaml", "listeners: [\n");
    desk.said(&["proxy.yaml:1:12: unclosed bracket", "the configuration before stays live"]).await;
    rejected(&proxy, 1).await;
    assert_eq!(get(proxy.listener("web").unwrap(), "a.test", "/").await.app(), "one");
    std::fs::remove_file(desk.path("proxy.yaml")).unwrap();
    desk.said(&["cannot read", "proxy.yaml"]).await;
    assert_eq!(get(proxy.listener("web").unwrap(), "a.test", "/").await.app(), "one");
    desk.write("proxy.yaml", &two_routes(two.address(), one.address()));
    until_answered_by(&proxy, "two").await;
    rejected(&proxy, 0).await;
    proxy.stop().await;
}
