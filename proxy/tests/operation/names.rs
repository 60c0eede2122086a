//! Backends that are found by name.

use std::time::{Duration, Instant};

use outrigger_testkit::app::App;

use crate::caller::get;
use crate::desk::{Desk, eventually};

fn config(address: &str) -> String {
    format!(
        "listeners:
  - {{ name: web, address: 127.0.0.1:0, protocol: HTTP }}
httpRoutes:
  - {{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}] }}] }}
backends:
  - {{ name: app, endpoints: [{{ address: \"{address}\" }}] }}
"
    )
}

#[tokio::test]
async fn a_name_stands_for_its_addresses() {
    let app = App::builder().name("named").start().await;
    let desk = Desk::new();
    let proxy = desk.start(&config(&format!("localhost:{}", app.address().port()))).await;
    // `localhost` may be ::1 as well, where nothing listens: that is another endpoint, which is passed over.
    for _ in 0..10 {
        assert_eq!(get(proxy.listener("web").unwrap(), "x.test", "/").await.app(), "named");
    }
    proxy.stop().await;
}

/// `.invalid` never resolves (RFC 6761, section 6.4). A change that brings such a name does not wait for it.
#[tokio::test]
async fn a_name_that_does_not_resolve_is_said_and_holds_nothing_up() {
    let app = App::builder().name("app").start().await;
    let desk = Desk::new();
    let proxy = desk.start(&config(&app.address().to_string())).await;
    let address = proxy.listener("web").unwrap();
    let written = Instant::now();
    desk.write("proxy.yaml", &config("nobody.invalid:80"));
    let answer = eventually("the change is live", || async {
        let answer = get(address, "x.test", "/").await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    let took = written.elapsed();
    println!("live after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(answer.status, 503);
    let why = answer.header("proxy-status");
    assert!(
        why.starts_with("outrigger; error=dns_error; details=\"") && why.contains("nobody.invalid"),
        "{why}"
    );

    let written = Instant::now();
    desk.write("proxy.yaml", &config(&app.address().to_string()));
    eventually("it is back", || async { (get(address, "x.test", "/").await.app() == "app").then_some(()) })
        .await;
    println!("back after {:?}", written.elapsed());
    assert!(written.elapsed() < Duration::from_secs(1));
    proxy.stop().await;
}
