//! The end of a sidecar: the application is served until it is gone, whatever has become of its callers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outrigger_testkit::app::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::binary::Binary;
use crate::caller::{Http1, get, try_get};
use crate::desk::{Desk, PATIENCE, eventually};

/// A sidecar: what the application sends goes to `other`, and it is itself at `own`.
fn config(other: SocketAddr, own: SocketAddr) -> String {
    format!(
        "listeners:
  - {{ name: out, address: 127.0.0.1:0, direction: Outbound, protocol: HTTP }}
  - {{ name: in, address: 127.0.0.1:0, direction: Inbound, protocol: HTTP }}
httpRoutes:
  - {{ name: out, listeners: [out], rules: [{{ backendRefs: [{{ name: other }}] }}] }}
  - {{ name: in, listeners: [in], rules: [{{ backendRefs: [{{ name: own }}] }}] }}
backends:
  - {{ name: other, endpoints: [{{ address: {other} }}] }}
  - {{ name: own, endpoints: [{{ address: {own} }}] }}
"
    )
}

fn run(desk: &Desk, arguments: &[&str]) -> Binary {
    let path = desk.path("proxy.yaml");
    let mut all = vec!["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0"];
    all.extend_from_slice(arguments);
    Binary::run(&all)
}

/// How many of `wanted` connections, one every `pause`, get an answer, and which application gave the last.
async fn connections(out: SocketAddr, wanted: u32, pause: Duration) -> (u32, String) {
    let mut every = tokio::time::interval(pause);
    let (mut answered, mut last) = (0, String::new());
    for _ in 0..wanted {
        every.tick().await;
        if let Some(answer) = try_get(out, "other", "/").await.filter(|answer| answer.status == 200) {
            answered += 1;
            answer.app().clone_into(&mut last);
        }
    }
    (answered, last)
}

/// An application that takes `25 * pause` to stop: it has closed its own port, and opens a connection every `pause`.
async fn takes_long_to_stop(pause: Duration, arguments: &[&str], quiet: Duration) {
    let (first, second) =
        (App::builder().name("first").start().await, App::builder().name("second").start().await);
    let own = App::builder().start().await;
    let desk = Desk::new();
    desk.write("proxy.yaml", &config(first.address(), own.address()));
    let mut sidecar = run(&desk, arguments);
    let (out, into) = (sidecar.address("listener out").await, sidecar.address("listener in").await);
    let mut caller = Http1::connect(into).await;
    assert_eq!(caller.get("own", "/").await.unwrap().status, 200);
    assert_eq!(try_get(out, "other", "/").await.unwrap().app(), "first");

    sidecar.terminate();
    own.stop().await;
    assert_eq!(connections(out, 12, pause).await, (12, "first".into()));
    assert!(TcpStream::connect(into).await.is_err(), "callers of the application are not accepted any more");
    // A changed configuration still goes live.
    desk.replace("proxy.yaml", &config(second.address(), own.address()));
    let changed = eventually("the change is live", || async {
        let answer = try_get(out, "other", "/").await?;
        (answer.app() == "second").then_some(())
    });
    changed.await;
    assert_eq!(connections(out, 13, pause).await, (13, "second".into()));
    let (status, took) = sidecar.ended().await;
    assert!(status.success(), "{sidecar:?}");
    println!("ended {took:?} after the application's last connection");
    assert!(took < quiet + Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn an_application_that_takes_long_to_stop_gets_all_its_connections() {
    let terms = ["--drain-delay", "300ms", "--drain-quiet", "700ms"];
    takes_long_to_stop(Duration::from_millis(100), &terms, Duration::from_millis(700)).await;
}

/// `cargo test -p outrigger-proxy --test operation leaving -- --ignored`
#[tokio::test]
#[ignore = "takes half a minute: 25 connections, one each second, with the delays that are the default"]
async fn an_application_that_takes_25_seconds_to_stop_gets_25_of_25_connections() {
    let terms = ["--drain-delay", "5s"];
    takes_long_to_stop(Duration::from_secs(1), &terms, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn within_a_process_it_is_the_same() {
    let (other, own) = (App::builder().start().await, App::builder().start().await);
    let desk = Desk::new();
    desk.write("proxy.yaml", &config(other.address(), own.address()));
    let mut options = desk.options(&desk.path("proxy.yaml"));
    (options.drain_delay, options.drain_quiet) =
        (Duration::from_millis(100), Some(Duration::from_millis(700)));
    let proxy = outrigger_proxy::start(options).await.unwrap();
    let out = proxy.listener("out").unwrap();
    let stopping = tokio::spawn(proxy.stop());
    own.stop().await;
    assert_eq!(connections(out, 25, Duration::from_millis(100)).await.0, 25);
    tokio::time::timeout(PATIENCE, stopping).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(out).await.is_err());
}

#[tokio::test]
async fn an_application_that_accepts_or_holds_a_connection_is_not_gone() {
    let other = App::builder().start().await;
    let own = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let desk = Desk::new();
    desk.write("proxy.yaml", &config(other.address(), own.local_addr().unwrap()));
    let mut sidecar = run(&desk, &["--drain-quiet", "50ms"]);
    let out = sidecar.address("listener out").await;
    let mut kept = Http1::connect(out).await;
    kept.get("other", "/").await.unwrap();
    sidecar.terminate();
    let into = sidecar.address("listener in").await;
    eventually("callers are not accepted", || async { TcpStream::connect(into).await.err() }).await;
    assert_eq!(
        kept.get("other", "/delay/200").await.unwrap().header("connection"),
        "",
        "nothing ends for it"
    );
    drop(kept);
    // Quiet now: it is asked for at its own port, again and again, and is there.
    for _ in 0..3 {
        tokio::time::timeout(PATIENCE, own.accept()).await.expect("it is looked for").unwrap();
    }
    assert_eq!(get(out, "other", "/").await.status, 200);
    let said = sidecar.stderr("the application is still there").await;
    assert!(said.contains(&own.local_addr().unwrap().to_string()), "{said}");
    drop(own);
    let (status, took) = sidecar.ended().await;
    assert!(status.success() && took < Duration::from_secs(1), "{took:?}: {sidecar:?}");
}

/// As an agent for jobs does that has seen its job end, and Istio's convention has it.
#[tokio::test]
async fn who_is_told_that_the_application_is_gone_ends() {
    let (other, own) = (App::builder().start().await, App::builder().start().await);
    let desk = Desk::new();
    desk.write("proxy.yaml", &config(other.address(), own.address()));
    // Told before a signal and after it.
    for signal in [false, true] {
        let mut sidecar = run(&desk, &["--drain-quiet", "1h", "--drain-delay", "1h", "--drain-grace", "1h"]);
        let (out, admin) = (sidecar.address("listener out").await, sidecar.address("admin").await);
        let slow = tokio::spawn(get(out, "other", "/delay/300"));
        eventually("it is under way", || async { (other.requests() > 0).then_some(()) }).await;
        if signal {
            sidecar.terminate();
            sidecar.stderr("draining").await;
        }
        let mut asking = TcpStream::connect(admin).await.unwrap();
        asking
            .write_all(b"POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        asking.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        if !signal {
            sidecar.stdout("told that the application is gone; ending").await;
        }
        assert_eq!(slow.await.unwrap().status, 200, "what is under way is finished");
        let (status, took) = sidecar.ended().await;
        assert!(status.success() && took < Duration::from_secs(2), "{took:?}: {sidecar:?}");
    }
}

#[tokio::test]
async fn an_application_that_stays_is_waited_for_as_long_as_the_grace_period() {
    let (other, own) = (App::builder().start().await, App::builder().start().await);
    let desk = Desk::new();
    desk.write("proxy.yaml", &config(other.address(), own.address()));
    let mut sidecar = run(&desk, &["--drain-quiet", "50ms", "--drain-grace", "400ms"]);
    sidecar.address("listener in").await;
    let asked = sidecar.terminate();
    let (status, _) = sidecar.ended().await;
    assert!(status.success(), "{sidecar:?}");
    assert!(asked.elapsed() > Duration::from_millis(400));
    sidecar
        .stderr("the application was still there after the grace period of 400ms; what is open is cut")
        .await;
    // Or it is not waited for at all.
    let mut sidecar = run(&desk, &["--drain-quiet", "off", "--drain-grace", "20s"]);
    sidecar.address("listener in").await;
    let asked: Instant = sidecar.terminate();
    let (status, _) = sidecar.ended().await;
    assert!(status.success() && asked.elapsed() < Duration::from_secs(2), "{sidecar:?}");
}
