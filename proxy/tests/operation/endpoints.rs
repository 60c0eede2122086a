//! What is said of endpoints that get no requests.

use outrigger_testkit::app::App;

use crate::binary::Binary;
use crate::caller::get;
use crate::desk::{Desk, free};

#[tokio::test]
async fn it_is_said_when_an_endpoint_gets_no_requests_and_when_it_does_again() {
    let (app, gone) = (App::builder().name("app").start().await, free());
    let desk = Desk::new();
    desk.write(
        "proxy.yaml",
        &format!(
            "listeners: [{{ name: web, address: 127.0.0.1:0, protocol: HTTP }}]
httpRoutes: [{{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: shop }}] }}] }}]
backends:
  - name: shop
    endpoints: [{{ address: {} }}, {{ address: {gone} }}]
    balance: {{ type: RoundRobin }}
",
            app.address()
        ),
    );
    let path = desk.path("proxy.yaml");
    let binary =
        Binary::run(&["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0", "--log-level", "info"]);
    let web = binary.address("web").await;
    for _ in 0..2 {
        assert_eq!(get(web, "x.test", "/").await.app(), "app");
    }
    let line = binary.stderr("a connection to it failed").await;
    for part in ["WARN", "backend=\"shop\"", &format!("endpoint={gone}"), "state=\"unreachable\""] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let _back = App::builder().name("back").address(gone).start().await;
    while get(web, "x.test", "/").await.app() != "back" {}
    let line = binary.stderr("the endpoint is well again").await;
    assert!(line.contains("INFO") && line.contains(&format!("endpoint={gone}")), "{line}");
    let said = binary.stderr_lines();
    let said = said.iter().filter(|line| line.contains(&gone.to_string()));
    assert_eq!(said.count(), 2, "each change is said once");
}

#[tokio::test]
async fn what_a_health_check_found_is_said() {
    let app = App::builder().start().await;
    let desk = Desk::new();
    desk.write(
        "proxy.yaml",
        &format!(
            "backends:
  - name: shop
    endpoints: [{{ address: {} }}]
    healthCheck: {{ type: HTTP, path: /status/500, interval: 100ms }}
",
            app.address()
        ),
    );
    let path = desk.path("proxy.yaml");
    let binary = Binary::run(&["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0"]);
    let line = binary.stderr("its health checks fail: ").await;
    assert!(line.contains("500") && line.contains("state=\"ill\""), "{line}");
}
