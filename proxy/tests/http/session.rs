//! Sessions: requests that stay with one endpoint.

use std::net::SocketAddr;

use outrigger_testkit::app::App;

use crate::support::{Message, Running, poll, with_rule};

async fn apps() -> [App; 4] {
    let mut apps = Vec::new();
    for name in ["a", "b", "c", "d"] {
        apps.push(App::builder().name(name).start().await);
    }
    apps.try_into().unwrap()
}

fn addresses(apps: &[App]) -> Vec<SocketAddr> {
    apps.iter().map(App::address).collect()
}

/// A request with these fields.
async fn ask(proxy: &Running, fields: &str) -> Message {
    proxy.ask(&format!("GET /status/200 HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")).await
}

fn who(answer: &Message) -> String {
    answer.header("x-app").unwrap()
}

/// The cookie that a response sets, `name=value` and then its attributes.
fn cookie(answer: &Message) -> Option<(String, String)> {
    let set = answer.header("set-cookie")?;
    let (pair, attributes) = set.split_once("; ").unwrap();
    Some((pair.to_owned(), attributes.to_owned()))
}

#[tokio::test]
async fn http_route_session_persistence_cookie() {
    let apps = apps().await;
    let rule = "matches: [{ path: { value: /status } }], sessionPersistence: { sessionName: s }";
    let proxy = Running::start(&with_rule(rule, "balance: { type: RoundRobin }", &addresses(&apps))).await;
    let first = ask(&proxy, "").await;
    let (pair, attributes) = cookie(&first).unwrap();
    assert!(pair.starts_with("s=") && !pair.contains("127.0.0.1"), "{pair}");
    assert_eq!(attributes, "Path=/status; HttpOnly; SameSite=Strict");
    for _ in 0..8 {
        let again = ask(&proxy, &format!("Cookie: other=1; {pair}; more=2\r\n")).await;
        assert_eq!((who(&again), cookie(&again)), (who(&first), None));
    }
    // Others go elsewhere, each with a session of its own.
    assert_ne!(who(&ask(&proxy, "").await), who(&first));
    // What is no token, and what is one of nobody's, begins a new one.
    for wrong in ["s=x", "s=AAAAAAAAAAAAAAAAAAAAAA.0.0", "s=a.b.c", "s=", "t=1"] {
        assert!(cookie(&ask(&proxy, &format!("Cookie: {wrong}\r\n")).await).is_some(), "{wrong}");
    }
}

#[tokio::test]
async fn http_route_session_persistence_header() {
    let apps = apps().await;
    let rule = "sessionPersistence: { type: Header, sessionName: X-Session }";
    let proxy = Running::start(&with_rule(rule, "balance: { type: RoundRobin }", &addresses(&apps))).await;
    let first = ask(&proxy, "").await;
    let token = first.header("x-session").unwrap();
    assert_eq!(first.header("set-cookie"), None);
    for _ in 0..8 {
        let again = ask(&proxy, &format!("X-Session: {token}\r\n")).await;
        assert_eq!((who(&again), again.header("x-session")), (who(&first), None));
    }
}

/// A session outlives other configurations, and another proxy takes it for what it is, as long as its endpoint is there.
#[tokio::test]
async fn http_route_session_persistence_outlives_changes_until_its_endpoint_is_gone() {
    let apps = apps().await;
    let all = addresses(&apps);
    let rule = "sessionPersistence: { sessionName: s }";
    let proxy = Running::start(&with_rule(rule, "", &all)).await;
    let first = ask(&proxy, "").await;
    let (pair, _) = cookie(&first).unwrap();
    let fields = format!("Cookie: {pair}\r\n");
    let mut turned = all.clone();
    turned.reverse();
    let another = Running::start(&with_rule(rule, "balance: { type: Random }", &turned)).await;
    for _ in 0..8 {
        assert_eq!(who(&ask(&another, &fields).await), who(&first));
    }
    let gone = apps.iter().find(|app| app.name() == who(&first)).unwrap().address();
    turned.retain(|address| *address != gone);
    let changed = proxy.proxy.revision();
    std::fs::write(&proxy.file, with_rule(rule, "balance: { type: Random }", &turned)).unwrap();
    assert!(poll(|| proxy.proxy.revision() > changed).await);
    let moved = ask(&proxy, &fields).await;
    let (pair, _) = cookie(&moved).expect("a new session");
    assert_ne!(who(&moved), who(&first));
    for _ in 0..8 {
        assert_eq!(who(&ask(&proxy, &format!("Cookie: {pair}\r\n")).await), who(&moved));
    }
}

#[tokio::test]
async fn http_route_session_persistence_moves_on_from_an_endpoint_that_died() {
    let apps = apps().await;
    let proxy = Running::start(&with_rule("sessionPersistence: {}", "", &addresses(&apps))).await;
    let first = ask(&proxy, "").await;
    let (pair, _) = cookie(&first).unwrap();
    assert!(pair.starts_with("outrigger-session-"), "{pair}");
    apps.iter().find(|app| app.name() == who(&first)).unwrap().kill().await;
    let moved = ask(&proxy, &format!("Cookie: {pair}\r\n")).await;
    assert_eq!(moved.status(), 200);
    assert!(who(&moved) != who(&first) && cookie(&moved).is_some());
}

#[tokio::test]
async fn http_route_session_persistence_absolute_timeout_and_lifetime_type() {
    let apps = apps().await;
    let permanent = "sessionPersistence: { sessionName: s, absoluteTimeout: 1h, cookieConfig: { lifetimeType: Permanent } }";
    let proxy = Running::start(&with_rule(permanent, "", &addresses(&apps))).await;
    let (pair, attributes) = cookie(&ask(&proxy, "").await).unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict; Max-Age=3600");
    assert_eq!(cookie(&ask(&proxy, &format!("Cookie: {pair}\r\n")).await), None);
    let brief = "sessionPersistence: { sessionName: s, absoluteTimeout: 150ms }";
    let proxy = Running::start(&with_rule(brief, "", &addresses(&apps))).await;
    // The old session began less than an hour ago, but longer ago than this; the new one lasts for a while, then ends.
    let begun = std::time::Instant::now();
    let (pair, attributes) = cookie(&ask(&proxy, "").await).unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
    let fields = format!("Cookie: {pair}\r\n");
    while cookie(&ask(&proxy, &fields).await).is_none() {
        assert!(begun.elapsed().as_secs() < 20);
    }
    assert!(begun.elapsed().as_millis() >= 150);
}

#[tokio::test]
async fn http_route_session_persistence_idle_timeout() {
    let apps = apps().await;
    let rule = "sessionPersistence: { sessionName: s, idleTimeout: 400ms }";
    let proxy = Running::start(&with_rule(rule, "balance: { type: RoundRobin }", &addresses(&apps))).await;
    let begun = std::time::Instant::now();
    let mut renewed = begun;
    let mut last = ask(&proxy, "").await;
    // Each response renews it, so that it lasts well beyond its idle timeout, unless the test itself is held up.
    while begun.elapsed().as_millis() < 1200 {
        let asked = std::time::Instant::now();
        let again = ask(&proxy, &format!("Cookie: {}\r\n", cookie(&last).unwrap().0)).await;
        assert!(who(&again) == who(&last) || renewed.elapsed().as_millis() >= 400);
        (last, renewed) = (again, asked);
    }
    // What is not renewed ends.
    let fields = format!("Cookie: {}\r\n", cookie(&last).unwrap().0);
    let begun = std::time::Instant::now();
    while who(&ask(&proxy, &fields).await) == who(&last) {
        assert!(begun.elapsed().as_secs() < 20);
    }
}

/// A session stays with its backend whatever the weights are by then (GEP-1619).
#[tokio::test]
async fn http_route_session_persistence_goes_before_weights() {
    let [a, b, ..] = apps().await;
    let yaml = |weights: [u32; 2]| {
        format!(
            "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]
httpRoutes:
  - name: all
    listeners: [web]
    rules:
      - sessionPersistence: {{ sessionName: s }}
        backendRefs: [{{ name: a, weight: {} }}, {{ name: b, weight: {} }}]
backends:
  - {{ name: a, endpoints: [{{ address: '{}' }}] }}
  - {{ name: b, endpoints: [{{ address: '{}' }}] }}
",
            weights[0],
            weights[1],
            a.address(),
            b.address()
        )
    };
    let before = Running::start(&yaml([1, 0])).await;
    let first = ask(&before, "").await;
    let (pair, _) = cookie(&first).unwrap();
    let after = Running::start(&yaml([0, 1])).await;
    assert_eq!(who(&ask(&after, &format!("Cookie: {pair}\r\n")).await), "a");
    assert_eq!(who(&ask(&after, "").await), "b");
}
