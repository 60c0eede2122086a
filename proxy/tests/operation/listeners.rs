//! Listeners come, go and move while the proxy runs.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};

use outrigger_testkit::app::App;
use tokio::net::TcpStream;

use crate::caller::{Http1, get, try_get};
use crate::desk::{Desk, eventually, free, rejected};

/// Listeners with these names and addresses, and one route from all of them to `app`.
fn with(listeners: &[(&str, SocketAddr)], app: SocketAddr) -> String {
    let names: Vec<_> = listeners.iter().map(|(name, _)| *name).collect();
    let mut text = "listeners:\n".to_owned();
    for (name, address) in listeners {
        writeln!(text, "  - {{ name: {name}, address: {address}, protocol: HTTP }}").unwrap();
    }
    write!(
        text,
        "httpRoutes:
  - {{ name: all, listeners: [{}], rules: [{{ backendRefs: [{{ name: app }}] }}] }}
backends:
  - {{ name: app, endpoints: [{{ address: {app} }}] }}
",
        names.join(", ")
    )
    .unwrap();
    text
}

async fn answers(address: SocketAddr) -> Option<()> {
    (try_get(address, "app.test", "/").await?.status == 200).then_some(())
}

#[tokio::test]
async fn listeners_come_and_go() {
    let app = App::builder().start().await;
    let (one, two) = (free(), free());
    let desk = Desk::new();
    let proxy = desk.start(&with(&[("one", one)], app.address())).await;
    desk.said(&["listener one on", &one.to_string()]).await;
    let mut open = Http1::connect(one).await;
    open.get("app.test", "/").await.unwrap();

    desk.write("proxy.yaml", &with(&[("one", one), ("two", two)], app.address()));
    desk.said(&["listener two on", &two.to_string()]).await;
    assert_eq!(get(two, "app.test", "/").await.status, 200);
    assert_eq!(open.get("app.test", "/").await.unwrap().status, 200, "the first was left alone");

    desk.write("proxy.yaml", &with(&[("two", two)], app.address()));
    desk.said(&["listener one no longer on", &one.to_string()]).await;
    open.closed().await;
    eventually("the first is closed", || async { TcpStream::connect(one).await.is_err().then_some(()) })
        .await;
    assert_eq!(get(two, "app.test", "/").await.status, 200);
    proxy.stop().await;
}

/// Everything that can happen to names and addresses that stay in use: at no time is a connection refused.
#[tokio::test]
async fn listeners_are_renamed_moved_and_exchanged_without_a_gap() {
    let app = App::builder().start().await;
    let (one, two) = (free(), free());
    let everywhere = SocketAddr::from(([0, 0, 0, 0], one.port()));
    let desk = Desk::new();
    let proxy = desk.start(&with(&[("a", one), ("b", two)], app.address())).await;
    for listeners in [
        [("renamed", one), ("b", two)],
        [("b", one), ("renamed", two)],
        [("a", two), ("b", one)],
        [("a", two), ("b", everywhere)],
        [("a", two), ("b", one)],
    ] {
        let revision = proxy.revision();
        desk.hush();
        desk.write("proxy.yaml", &with(&listeners, app.address()));
        eventually("the change is live", || async { (proxy.revision() != revision).then_some(()) }).await;
        for address in [one, two] {
            for _ in 0..3 {
                assert_eq!(get(address, "app.test", "/").await.status, 200, "{listeners:?}");
            }
        }
        for (name, address) in listeners {
            assert_eq!(proxy.listener(name), Some(address));
        }
        let complaints: Vec<_> = desk.lines().into_iter().filter(|l| l.contains("cannot")).collect();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_and_the_other_listeners_are_open() {
    let app = App::builder().start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let desk = Desk::new();
    let text = with(&[("one", free()), ("two", address)], app.address());
    let proxy = desk.start(&text).await;
    let line = desk.said(&["Listener two: address: cannot listen on", "in use"]).await;
    assert!(line.contains(&address.to_string()), "{line}");
    assert_eq!(get(proxy.listener("one").unwrap(), "app.test", "/").await.status, 200);
    rejected(&proxy, 1).await;
    drop(taken);
    // Any change is an occasion to try again; without one it is tried every few seconds.
    desk.write("proxy.yaml", &format!("{text}# again\n"));
    eventually("it is opened", || answers(address)).await;
    proxy.stop().await;

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused =
        desk.try_start(&with(&[("one", taken.local_addr().unwrap())], app.address())).await.unwrap_err();
    assert!(refused.to_string().contains("none of the listeners could be opened"), "{refused}");
}

#[tokio::test]
async fn a_file_without_a_listener_that_can_be_used_is_said_to_listen_nowhere() {
    let app = App::builder().start().await;
    let desk = Desk::new();
    let proxy = desk.start("listeners: [{ name: web, address: localhost }]\n").await;
    desk.said(&["no listener is open"]).await;
    let address = free();
    desk.write("proxy.yaml", &with(&[("web", address)], app.address()));
    eventually("it is opened", || answers(address)).await;
    proxy.stop().await;
}
