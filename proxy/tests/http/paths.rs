//! What a path means to routes, and that it is sent on as it came.

use crate::support::{Running, Wire, listen};

/// A listener whose paths are as `path` says, with a rule for `/admin` that goes nowhere, and the rest to one backend.
async fn guarded(path: &str) -> (Running, tokio::net::TcpListener) {
    let (backend, address) = listen().await;
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP, http: {{ path: {path} }} }}]
httpRoutes:
  - name: all
    listeners: [web]
    rules:
      - matches: [{{ path: {{ value: /admin }} }}]
      - backendRefs: [{{ name: app }}]
backends: [{{ name: app, endpoints: [{{ address: '{address}' }}] }}]"
    );
    (Running::start(&yaml).await, backend)
}

/// The target as the backend got it, or the status if it got none.
async fn sent_on(proxy: &Running, backend: &tokio::net::TcpListener, target: &str) -> String {
    let mut caller = proxy.connect().await;
    caller.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    tokio::select! {
        mut callee = Wire::accept(backend) => {
            let request = callee.request().await;
            callee.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            assert_eq!(caller.response().await.status(), 200);
            request.head.split(' ').nth(1).unwrap().to_owned()
        }
        response = caller.response() => {
            let status = response.status();
            let why = response.header("proxy-status").unwrap();
            format!("{status} {}", why.split("error=").nth(1).unwrap().split(';').next().unwrap())
        }
    }
}

const BY_ADMIN: &str = "500 proxy_configuration_error";

#[tokio::test]
async fn http_route_path_matches_every_spelling() {
    let (proxy, backend) = guarded("{}").await;
    for target in ["/admin", "/admin/", "/x/../admin", "/x/%2e%2E/%61dmin/y", "/./admin?x=/y"] {
        assert_eq!(sent_on(&proxy, &backend, target).await, BY_ADMIN, "{target}");
    }
    for target in [
        "/",
        "//admin",
        "/admin%2Fx",
        "/x/..%2fadmin",
        "/admin/../x",
        "/a//b/./c/%7e%2f?",
        "/100%?a=%",
        "/%zz",
        "/;a=b%3B",
    ] {
        assert_eq!(sent_on(&proxy, &backend, target).await, target);
    }
}

#[tokio::test]
async fn paths_can_be_taken_as_they_are() {
    let (proxy, backend) = guarded("{ normalize: None }").await;
    for target in ["/x/../admin", "/%61dmin", "//admin"] {
        assert_eq!(sent_on(&proxy, &backend, target).await, target);
    }
    assert_eq!(sent_on(&proxy, &backend, "/admin/../x").await, BY_ADMIN);
}

#[tokio::test]
async fn slashes_can_be_merged_and_encoded_ones_refused() {
    let (proxy, backend) = guarded("{ mergeSlashes: true, encodedSlash: Refuse }").await;
    assert_eq!(sent_on(&proxy, &backend, "//admin").await, BY_ADMIN);
    assert_eq!(sent_on(&proxy, &backend, "/x//../admin/").await, BY_ADMIN);
    assert_eq!(sent_on(&proxy, &backend, "/x//y").await, "/x//y");
    assert_eq!(sent_on(&proxy, &backend, "/x%2Fy").await, "400 http_request_error");
    assert_eq!(sent_on(&proxy, &backend, "/x?%2F").await, "/x?%2F");
}

#[tokio::test]
async fn an_encoded_slash_can_be_a_slash() {
    let (proxy, backend) = guarded("{ encodedSlash: Slash }").await;
    assert_eq!(sent_on(&proxy, &backend, "/x/..%2Fadmin").await, BY_ADMIN);
    assert_eq!(sent_on(&proxy, &backend, "/admin%2f").await, BY_ADMIN);
    assert_eq!(sent_on(&proxy, &backend, "/x%2Fadmin").await, "/x%2Fadmin");
}
