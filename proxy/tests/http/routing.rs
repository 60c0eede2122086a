//! Which rule takes a request, what it changes, and what is said where none does.

use outrigger_testkit::app::App;

use crate::support::{Running, Wire, listen, nowhere, poll, with_rule};

/// Three applications, and routes that tell them apart.
async fn several(routes: &str) -> (Running, [App; 3]) {
    let mut apps = Vec::new();
    for name in ["a", "b", "c"] {
        apps.push(App::builder().name(name).start().await);
    }
    let apps: [App; 3] = apps.try_into().unwrap();
    let backends: String = apps
        .iter()
        .map(|app| {
            format!("  - {{ name: {}, endpoints: [{{ address: '{}' }}] }}\n", app.name(), app.address())
        })
        .collect();
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\nhttpRoutes:\n{routes}\nbackends:\n{backends}"
    );
    (Running::start(&yaml).await, apps)
}

/// Who answers, or the status if nobody does.
async fn who(wire: &mut Wire, method: &str, target: &str, fields: &str) -> String {
    wire.send(format!("{method} {target} HTTP/1.1\r\n{fields}\r\n")).await;
    let response = wire.response().await;
    response.header("x-app").unwrap_or_else(|| response.status().to_string())
}

#[tokio::test]
async fn http_route_hostnames_are_exact_before_wildcards_before_any() {
    let (proxy, _apps) = several(
        "  - { name: any, listeners: [web], rules: [{ backendRefs: [{ name: c }] }] }
  - { name: wild, listeners: [web], hostnames: ['*.example.com'], rules: [{ backendRefs: [{ name: b }] }] }
  - { name: exact, listeners: [web], hostnames: [shop.example.com], rules: [{ backendRefs: [{ name: a }] }] }",
    )
    .await;
    let mut wire = proxy.connect().await;
    let cases = [
        ("shop.example.com", "a"),
        ("SHOP.example.COM:8080", "a"),
        ("other.example.com", "b"),
        ("deep.other.example.com", "b"),
        ("example.com", "c"),
        ("shop.example.org", "c"),
        ("127.0.0.1", "c"),
        ("[::1]:80", "c"),
    ];
    for (host, expected) in cases {
        assert_eq!(who(&mut wire, "GET", "/", &format!("Host: {host}\r\n")).await, expected, "{host}");
    }
}

#[tokio::test]
async fn http_route_matches_decide_by_the_gateway_apis_precedence() {
    let (proxy, _apps) = several(
        "  - name: all
    listeners: [web]
    rules:
      - matches: [{ path: { type: PathPrefix, value: /api } }]
        backendRefs: [{ name: a }]
      - matches: [{ path: { type: PathPrefix, value: /api/long } }]
        backendRefs: [{ name: b }]
      - matches: [{ path: { type: Exact, value: /api/long/exact } }]
        backendRefs: [{ name: c }]
      - matches: [{ path: { type: RegularExpression, value: '/v[0-9]+/.*' } }]
        backendRefs: [{ name: b }]
      - matches: [{ path: { value: /m } }]
        backendRefs: [{ name: a }]
      - matches: [{ path: { value: /m }, method: POST }]
        backendRefs: [{ name: b }]
      - matches: [{ path: { value: /m }, headers: [{ name: X-Env, value: canary }] }]
        backendRefs: [{ name: c }]
      - matches: [{ path: { value: /q }, queryParams: [{ name: v, value: '2' }] }]
        backendRefs: [{ name: c }]",
    )
    .await;
    let mut wire = proxy.connect().await;
    let cases = [
        ("GET /api", "", "a"),
        ("GET /api/x?y", "", "a"),
        ("GET /apix", "", "404"),
        ("GET /api/long/x", "", "b"),
        ("GET /api/longer", "", "a"),
        ("GET /api/long/exact", "", "c"),
        ("GET /api/long/exact/", "", "b"),
        ("GET /v12/x", "", "b"),
        ("GET /x/v12/x", "", "404"),
        ("GET /m", "", "a"),
        ("POST /m", "Content-Length: 0\r\n", "b"),
        ("GET /m", "x-env: canary\r\n", "c"),
        ("GET /m", "x-env: canary2\r\n", "a"),
        ("POST /m", "x-env: canary\r\nContent-Length: 0\r\n", "b"),
        ("GET /q?a=1&v=2", "", "c"),
        ("GET /q?v=1&v=2", "", "404"),
        ("GET /", "", "404"),
    ];
    for (line, fields, expected) in cases {
        let (method, target) = line.split_once(' ').unwrap();
        let got = who(&mut wire, method, target, &format!("Host: shop\r\n{fields}")).await;
        assert_eq!(got, expected, "{line} {fields}");
    }
}

#[tokio::test]
async fn http_route_backend_weights_are_shares() {
    let (proxy, apps) = several(
        "  - name: all
    listeners: [web]
    rules: [{ backendRefs: [{ name: a, weight: 7 }, { name: b, weight: 3 }, { name: c, weight: 0 }] }]",
    )
    .await;
    let mut wire = proxy.connect().await;
    for _ in 0..20 {
        wire.send("GET /status/200 HTTP/1.1\r\nHost: shop\r\n\r\n".repeat(100)).await;
        for _ in 0..100 {
            assert_eq!(wire.response().await.status(), 200);
        }
    }
    // Five standard deviations of 2000 draws at 0.7 are 102.
    let [a, b, c] = [apps[0].requests(), apps[1].requests(), apps[2].requests()];
    assert!((1298..=1502).contains(&a), "{a} of 2000 for 7 of 10");
    assert_eq!((a + b, c), (2000, 0));
}

#[tokio::test]
async fn http_route_header_modifiers_of_the_rule_and_of_the_backends_share() {
    let (backend, address) = listen().await;
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]
httpRoutes:
  - name: all
    listeners: [web]
    rules:
      - filters:
          - type: RequestHeaderModifier
            requestHeaderModifier:
              set: [{{ name: X-Set, value: rule }}]
              add: [{{ name: X-Add, value: rule }}]
              remove: [X-Remove]
          - type: ResponseHeaderModifier
            responseHeaderModifier: {{ set: [{{ name: X-By, value: proxy }}], remove: [Server] }}
        backendRefs:
          - name: app
            filters:
              - type: RequestHeaderModifier
                requestHeaderModifier: {{ add: [{{ name: X-Add, value: share }}] }}
              - type: ResponseHeaderModifier
                responseHeaderModifier: {{ add: [{{ name: X-By, value: share }}] }}
backends: [{{ name: app, endpoints: [{{ address: '{address}' }}] }}]
"
    );
    let proxy = Running::start(&yaml).await;
    let mut caller = proxy.connect().await;
    caller
        .send("GET / HTTP/1.1\r\nHost: shop\r\nX-Set: caller\r\nX-Add: caller\r\nX-Remove: 1\r\n\r\n")
        .await;
    let mut callee = Wire::accept(&backend).await;
    let received = callee.request().await;
    callee.send("HTTP/1.1 200 OK\r\nserver: app\r\nx-by: app\r\ncontent-length: 0\r\n\r\n").await;
    let response = caller.response().await;
    assert_eq!(received.header("x-set").as_deref(), Some("rule"));
    assert_eq!(received.header("x-add").as_deref(), Some("caller, rule, share"));
    assert_eq!(received.header("x-remove"), None);
    let by = response.header("x-by").unwrap();
    assert_eq!(response.header("server"), None);
    assert!(by == "share, proxy" || by == "proxy, share" || by == "proxy", "{by}");
}

#[tokio::test]
async fn what_the_proxy_answers_itself_says_why() {
    let empty = nowhere().await;
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]
httpRoutes:
  - name: all
    listeners: [web]
    rules:
      - {{ matches: [{{ path: {{ value: /refused }} }}], backendRefs: [{{ name: refused }}] }}
      - {{ matches: [{{ path: {{ value: /unknown }} }}], backendRefs: [{{ name: unheard-of }}] }}
      - {{ matches: [{{ path: {{ value: /empty }} }}], backendRefs: [{{ name: empty }}] }}
      - {{ matches: [{{ path: {{ value: /unresolved }} }}], backendRefs: [{{ name: unresolved }}] }}
      - {{ matches: [{{ path: {{ value: /nobody }} }}], backendRefs: [{{ name: refused, weight: 0 }}] }}
backends:
  - {{ name: refused, endpoints: [{{ address: '{empty}' }}] }}
  - {{ name: empty }}
  - {{ name: unresolved, endpoints: [{{ address: 'nowhere.invalid:80' }}] }}
"
    );
    let proxy = Running::start(&yaml).await;
    let cases = [
        ("/", 404, "destination_not_found"),
        ("/refused", 503, "connection_refused"),
        ("/unknown", 503, "destination_unavailable"),
        ("/empty", 503, "destination_unavailable"),
        ("/unresolved", 503, "dns_error"),
        ("/nobody", 500, "proxy_configuration_error"),
    ];
    for (path, status, reason) in cases {
        let response = proxy.ask(&format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n")).await;
        let says = response.header("proxy-status").unwrap_or_default();
        assert_eq!(response.status(), status, "{path}: {says}");
        assert!(says.starts_with(&format!("outrigger; error={reason}; details=\"")), "{path}: {says}");
        assert!(response.text().starts_with(reason), "{path}: {}", response.text());
        let parts = [format!("reason=\"{reason}\""), format!("code=\"{status}\"")];
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        assert!(poll(|| proxy.metric("outrigger_requests_total", &parts) >= 1.0).await, "{path}");
    }
    proxy.metric_is("outrigger_responses_by_proxy_total", &[], 6.0).await;
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn http_route_timeouts_are_a_504_that_says_which() {
    let (_backend, address) = listen().await;
    for (timeouts, says) in [
        ("request: 60ms", "request timeout of 60ms"),
        ("backendRequest: 60ms", "backendRequest timeout of 60ms"),
        ("request: 10s, backendRequest: 60ms", "backendRequest timeout of 60ms"),
    ] {
        let proxy = Running::start(&with_rule(&format!("timeouts: {{ {timeouts} }}"), "", &[address])).await;
        let response = proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        let status = response.header("proxy-status").unwrap();
        assert_eq!(response.status(), 504);
        assert!(status.contains("error=http_response_timeout") && status.contains(says), "{status}");
        proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
    }
}

#[tokio::test]
async fn the_request_timeout_holds_for_the_body_too_and_the_backends_does_not() {
    let app = App::builder().start().await;
    let proxy = Running::start(&with_rule("timeouts: { request: 150ms }", "", &[app.address()])).await;
    let mut wire = proxy.connect().await;
    wire.send("GET /drip/100/50 HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert_eq!(wire.head().await.status(), 200);
    let body = wire.rest().await;
    assert!(!body.ends_with(b"0\r\n\r\n"), "it was cut off, and must not look whole");
    proxy.metric_is("outrigger_requests_total", &["reason=\"http_response_timeout\""], 1.0).await;
    let proxy = Running::start(&with_rule("timeouts: { backendRequest: 100ms }", "", &[app.address()])).await;
    let response = proxy.ask("GET /drip/6/50 HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert_eq!((response.status(), response.body.len()), (200, 48));
}

#[tokio::test]
async fn a_slow_upload_is_within_the_request_timeout_or_cut() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("timeouts: { request: 100ms }", "", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nhalf").await;
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    assert_eq!(caller.response().await.status(), 504);
    assert_eq!(callee.exactly(4).await, b"half");
    assert!(callee.closed().await);
}

/// `a` has no time, `b` and `c` are as old as each other, and older than `d`.
#[tokio::test]
async fn http_route_precedence_by_age_then_name() {
    let (proxy, _apps) = several(
        "  - { name: a, listeners: [web], rules: [{ backendRefs: [{ name: a }] }] }
  - { name: d, listeners: [web], creationTimestamp: '2026-01-02T00:00:00Z', rules: [{ backendRefs: [{ name: a }] }] }
  - { name: c, listeners: [web], creationTimestamp: '2026-01-01T00:00:00Z', rules: [{ backendRefs: [{ name: c }] }] }
  - { name: b, listeners: [web], creationTimestamp: '2026-01-01T01:00:00+01:00', rules: [
        { matches: [{ method: GET }], backendRefs: [{ name: a }] }, { backendRefs: [{ name: b }] }] }",
    )
    .await;
    let mut wire = proxy.connect().await;
    // What is more specific comes before what is older, the older before the younger, then the first by name.
    assert_eq!(who(&mut wire, "GET", "/", "Host: x\r\n").await, "a");
    assert_eq!(who(&mut wire, "PUT", "/", "Host: x\r\nContent-Length: 0\r\n").await, "b");
}

#[tokio::test]
async fn http_route_named_rule() {
    let (proxy, _apps) = several(
        "  - name: shop
    listeners: [web]
    rules:
      - { name: api, matches: [{ path: { value: /api } }], backendRefs: [{ name: a }] }
      - { backendRefs: [{ name: b }] }",
    )
    .await;
    let mut wire = proxy.connect().await;
    assert_eq!(who(&mut wire, "GET", "/api", "Host: x\r\n").await, "a");
    assert_eq!(who(&mut wire, "GET", "/", "Host: x\r\n").await, "b");
    proxy
        .metric_is("outrigger_requests_total", &["route=\"shop\"", "rule=\"api\"", "backend=\"a\""], 1.0)
        .await;
    proxy
        .metric_is("outrigger_requests_total", &["route=\"shop\"", "rule=\"1\"", "backend=\"b\""], 1.0)
        .await;
}
