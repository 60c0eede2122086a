//! Redirections and rewritten targets.

use outrigger_testkit::app::App;

use crate::http2;
use crate::support::{Running, Wire, listen, soon};

/// A proxy whose listener `web` has this rule, and a backend `app`.
async fn ruled(rule: &str, app: std::net::SocketAddr) -> Running {
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\n\
         httpRoutes:\n  - name: all\n    listeners: [web]\n    rules:\n{rule}\n\
         backends: [{{ name: app, endpoints: [{{ address: '{app}' }}] }}]\n"
    );
    Running::start(&yaml).await
}

/// The status and location that a request is answered with.
async fn redirected(proxy: &Running, target: &str, fields: &str) -> (u16, String) {
    let answer = proxy.ask(&format!("GET {target} HTTP/1.1\r\n{fields}\r\n")).await;
    assert_eq!(answer.header("proxy-status").as_deref(), Some("outrigger"));
    assert_eq!(answer.header("content-length").as_deref(), Some("0"));
    (answer.status(), answer.header("location").unwrap_or_default())
}

/// The target and host that a backend sees.
async fn rewritten(rule: &str, target: &str) -> (String, String) {
    let (backend, address) = listen().await;
    let proxy = ruled(rule, address).await;
    let mut caller = proxy.connect().await;
    caller.send(format!("GET {target} HTTP/1.1\r\nHost: shop:81\r\n\r\n")).await;
    let mut callee = Wire::accept(&backend).await;
    let request = callee.request().await;
    // What tells who was asked is not rewritten.
    assert_eq!(request.header("x-forwarded-host").as_deref(), Some("shop:81"));
    let line = request.head.lines().next().unwrap();
    (line.split(' ').nth(1).unwrap().to_owned(), request.header("host").unwrap())
}

fn redirect(fields: &str) -> String {
    format!("      - filters: [{{ type: RequestRedirect, requestRedirect: {{ {fields} }} }}]")
}

#[tokio::test]
async fn http_route_request_redirect_scheme_host_port_and_status() {
    let nobody = "127.0.0.1:1".parse().unwrap();
    for (fields, status, expected) in [
        ("scheme: https", 302, "https://shop/a//b%2F?c=%20&d"),
        ("scheme: https, port: 8443, statusCode: 301", 301, "https://shop:8443/a//b%2F?c=%20&d"),
        ("hostname: other.example, port: 80, statusCode: 303", 303, "http://other.example/a//b%2F?c=%20&d"),
        ("scheme: http, statusCode: 307", 307, "http://shop/a//b%2F?c=%20&d"),
        ("hostname: other.example, statusCode: 308", 308, "http://other.example:LISTENER/a//b%2F?c=%20&d"),
    ] {
        let proxy = ruled(&redirect(fields), nobody).await;
        let expected = expected.replace("LISTENER", &proxy.at("web").port().to_string());
        let got = redirected(&proxy, "/a//b%2F?c=%20&d", "Host: shop:1234\r\n").await;
        assert_eq!(got, (status, expected), "{fields}");
        let code = format!("code=\"{status}\"");
        proxy.metric_is("outrigger_requests_total", &[&code, "route=\"all\"", "rule=\"0\""], 1.0).await;
        proxy.metric_is("outrigger_responses_by_proxy_total", &[], 0.0).await;
    }
}

#[tokio::test]
async fn http_route_request_redirect_path() {
    let nobody = "127.0.0.1:1".parse().unwrap();
    let full = redirect("port: 80, path: { type: ReplaceFullPath, replaceFullPath: /new }");
    let proxy = ruled(&full, nobody).await;
    assert_eq!(redirected(&proxy, "/old/a?", "Host: shop\r\n").await, (302, "http://shop/new?".into()));
    let prefix = "      - matches: [{ path: { value: /old } }]
        filters:
          - type: RequestRedirect
            requestRedirect: { port: 80, path: { type: ReplacePrefixMatch, replacePrefixMatch: /new/ } }";
    let proxy = ruled(prefix, nobody).await;
    for (target, expected) in [
        ("/old", "http://shop/new"),
        ("/old/", "http://shop/new/"),
        ("/old/a/../b?q=/old", "http://shop/new/a/../b?q=/old"),
    ] {
        assert_eq!(redirected(&proxy, target, "Host: shop\r\n").await, (302, expected.into()));
    }
    assert_eq!(proxy.ask("GET /older HTTP/1.1\r\nHost: shop\r\n\r\n").await.status(), 404);
}

#[tokio::test]
async fn http_route_request_redirect_of_a_backend_ref() {
    let app = App::builder().start().await;
    let rule = "      - backendRefs:
          - { name: app, weight: 0 }
          - name: gone
            filters: [{ type: RequestRedirect, requestRedirect: { hostname: other.example, port: 80 } }]";
    let proxy = ruled(rule, app.address()).await;
    assert_eq!(redirected(&proxy, "/a", "Host: shop\r\n").await, (302, "http://other.example/a".into()));
}

#[tokio::test]
async fn http_route_request_redirect_over_http2() {
    let proxy = ruled(&redirect("scheme: https"), "127.0.0.1:1".parse().unwrap()).await;
    let answer = soon(http2::caller(&proxy).await.send_request(http2::get("/a?b"))).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (302, &"https://shop/a?b".parse().unwrap())
    );
}

#[tokio::test]
async fn http_route_url_rewrite_host() {
    let rule = "      - filters: [{ type: URLRewrite, urlRewrite: { hostname: other.example } }]
        backendRefs: [{ name: app }]";
    assert_eq!(rewritten(rule, "/a//%2F?").await, ("/a//%2F?".into(), "other.example".into()));
    assert_eq!(rewritten(rule, "http://shop:81/a").await, ("/a".into(), "other.example".into()));
}

#[tokio::test]
async fn http_route_url_rewrite_full_path() {
    let rule = "      - filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /one } } }]
        backendRefs: [{ name: app }]";
    assert_eq!(rewritten(rule, "/a/b").await, ("/one".into(), "shop:81".into()));
    assert_eq!(rewritten(rule, "/a/b?c=d%20e&&").await.0, "/one?c=d%20e&&");
    assert_eq!(rewritten(rule, "/?").await.0, "/one?");
}

#[tokio::test]
async fn http_route_url_rewrite_prefix() {
    let rule = "      - matches: [{ path: { type: PathPrefix, value: /api/v1 } }]
        filters:
          - type: URLRewrite
            urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: / } }
        backendRefs: [{ name: app }]";
    for (target, expected) in [
        ("/api/v1", "/"),
        ("/api/v1/", "/"),
        ("/api/v1?a=/api/v1", "/?a=/api/v1"),
        ("/api/v1/b//c%2Fd/../e", "/b//c%2Fd/../e"),
    ] {
        assert_eq!(rewritten(rule, target).await.0, expected, "{target}");
    }
}

#[tokio::test]
async fn http_route_url_rewrite_of_a_backend_ref_wins_over_the_rules() {
    let rule = "      - filters: [{ type: URLRewrite, urlRewrite: { hostname: rule.example } }]
        backendRefs:
          - name: app
            filters: [{ type: URLRewrite, urlRewrite: { hostname: share.example } }]";
    assert_eq!(rewritten(rule, "/").await.1, "share.example");
}

#[tokio::test]
async fn http_route_url_rewrite_over_http2() {
    let app = App::builder().start().await;
    let rule = "      - filters:
          - type: URLRewrite
            urlRewrite: { hostname: other.example, path: { type: ReplacePrefixMatch, replacePrefixMatch: /new } }
        backendRefs: [{ name: app }]";
    let proxy = ruled(rule, app.address()).await;
    let answer = soon(http2::caller(&proxy).await.send_request(http2::get("/a?b"))).await.unwrap();
    let (status, seen) = http2::read(answer).await;
    assert_eq!((status, &seen["path"]), (200, &"/new/a?b".into()));
    assert_eq!(http2::values(&seen, "host"), ["other.example"]);
}
