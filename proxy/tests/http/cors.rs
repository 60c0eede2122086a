//! CORS, as browsers ask.

use crate::support::{Message, Running, Wire, listen, with_rule};

fn cors(fields: &str) -> String {
    format!("filters: [{{ type: CORS, cors: {{ {fields} }} }}]")
}

const PREFLIGHT: &str = "Origin: https://www.example\r\nAccess-Control-Request-Method: PUT\r\n\
                         Access-Control-Request-Headers: x-a, x-b\r\n";

/// The answer to a preflight request, which no backend must see.
async fn preflight(filter: &str, fields: &str) -> Message {
    let proxy = Running::start(&with_rule(&cors(filter), "", &["127.0.0.1:1".parse().unwrap()])).await;
    let answer = proxy.ask(&format!("OPTIONS /a HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")).await;
    assert_eq!((answer.status(), answer.header("content-length")), (204, None), "{filter}");
    answer
}

/// The response to a request with these fields, where the application answers with those.
async fn actual(filter: &str, fields: &str, answer: &str) -> Message {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule(&cors(filter), "", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send(format!("GET /a HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")).await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{answer}\r\n")).await;
    caller.response().await
}

fn says(message: &Message, name: &str) -> String {
    message.header(&format!("access-control-{name}")).unwrap_or_default()
}

#[tokio::test]
async fn http_route_cors_preflight() {
    let filter = "allowOrigins: ['https://www.example'], allowMethods: [PUT, DELETE], allowHeaders: [X-A, X-B], maxAge: 600";
    let answer = preflight(filter, PREFLIGHT).await;
    assert_eq!(says(&answer, "allow-origin"), "https://www.example");
    assert_eq!(says(&answer, "allow-methods"), "PUT, DELETE");
    assert_eq!(says(&answer, "allow-headers"), "x-a, x-b");
    assert_eq!(says(&answer, "max-age"), "600");
    assert_eq!(says(&answer, "allow-credentials"), "");
    assert_eq!(answer.header("vary").as_deref(), Some("Origin"));
}

#[tokio::test]
async fn http_route_cors_preflight_of_another_origin_is_told_nothing() {
    for origin in ["https://evil.example", "http://www.example", "https://www.example:8443", "null"] {
        let fields = PREFLIGHT.replace("https://www.example", origin);
        let answer = preflight("allowOrigins: ['https://www.example']", &fields).await;
        assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{}", answer.head);
        assert_eq!(answer.header("vary").as_deref(), Some("Origin"));
    }
}

#[tokio::test]
async fn http_route_cors_allow_origin_wildcards() {
    for (allowed, origin, expected) in [
        ("*", "https://a.example", "*"),
        ("*", "null", "*"),
        ("https://*.example", "https://a.b.example", "https://a.b.example"),
        ("https://*.example", "https://example", ""),
        ("http://*", "http://anything", "http://anything"),
        ("http://*:8080", "http://anything", ""),
    ] {
        let answer =
            actual(&format!("allowOrigins: ['{allowed}']"), &format!("Origin: {origin}\r\n"), "").await;
        assert_eq!(says(&answer, "allow-origin"), expected, "{allowed} {origin}");
        assert_eq!(answer.header("vary").is_some(), allowed != "*", "{allowed}");
    }
}

/// Where credentials are allowed, browsers take every `*` for a name, so what is asked for is named.
#[tokio::test]
async fn http_route_cors_allow_credentials() {
    let filter = "allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*'], exposeHeaders: ['*'], allowCredentials: true";
    let answer = preflight(filter, PREFLIGHT).await;
    assert_eq!(says(&answer, "allow-origin"), "https://www.example");
    assert_eq!(says(&answer, "allow-credentials"), "true");
    assert_eq!(says(&answer, "allow-methods"), "PUT");
    assert_eq!(says(&answer, "allow-headers"), "x-a, x-b");
    assert_eq!(says(&answer, "max-age"), "5");
    assert_eq!(answer.header("vary").as_deref(), Some("Origin"));
    let bare =
        preflight(filter, "Origin: https://www.example\r\nAccess-Control-Request-Method: PUT\r\n").await;
    assert_eq!(bare.header("access-control-allow-headers"), None);
    let answer = actual(filter, "Origin: https://www.example\r\n", "X-Total: 7\r\nSet-Cookie: a=b\r\n").await;
    assert_eq!(says(&answer, "allow-origin"), "https://www.example");
    assert_eq!(says(&answer, "allow-credentials"), "true");
    let exposed = says(&answer, "expose-headers");
    assert!(exposed.contains("x-total") && !exposed.contains("set-cookie"), "{exposed}");
}

#[tokio::test]
async fn http_route_cors_without_credentials_says_a_star() {
    let filter = "allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*'], exposeHeaders: ['*']";
    let answer = preflight(filter, PREFLIGHT).await;
    assert_eq!((says(&answer, "allow-origin"), says(&answer, "allow-methods")), ("*".into(), "*".into()));
    assert_eq!(says(&answer, "allow-headers"), "x-a, x-b");
    assert_eq!(answer.header("vary"), None);
    let answer = actual(filter, "Origin: https://www.example\r\n", "").await;
    assert_eq!(says(&answer, "expose-headers"), "*");
}

#[tokio::test]
async fn http_route_cors_replaces_what_the_application_says() {
    let filter = "allowOrigins: ['https://www.example'], exposeHeaders: [X-Total]";
    let application =
        "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nVary: Accept\r\n";
    let answer = actual(filter, "Origin: https://www.example\r\n", application).await;
    assert_eq!(says(&answer, "allow-origin"), "https://www.example");
    assert_eq!(says(&answer, "allow-credentials"), "");
    assert_eq!(says(&answer, "expose-headers"), "x-total");
    assert_eq!(answer.header("vary").as_deref(), Some("Accept, Origin"));
    for fields in ["", "Origin: https://evil.example\r\n"] {
        let answer = actual(filter, fields, &application.replace("Accept", "accept, ORIGIN")).await;
        assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{}", answer.head);
        assert_eq!(answer.header("vary").as_deref(), Some("accept, ORIGIN"));
    }
}

/// A page can read why it failed, too.
#[tokio::test]
async fn http_route_cors_of_what_the_proxy_answers_itself() {
    let rule = cors("allowOrigins: ['https://www.example']");
    let proxy = Running::start(&with_rule(&rule, "", &["127.0.0.1:1".parse().unwrap()])).await;
    let answer = proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\nOrigin: https://www.example\r\n\r\n").await;
    assert_eq!((answer.status(), says(&answer, "allow-origin")), (503, "https://www.example".into()));
}

/// An OPTIONS request that is no preflight request is the application's.
#[tokio::test]
async fn http_route_cors_leaves_other_options_requests_alone() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule(&cors("allowOrigins: ['*']"), "", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send("OPTIONS /a HTTP/1.1\r\nHost: shop\r\nOrigin: https://www.example\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    assert!(callee.request().await.head.starts_with("OPTIONS /a "));
    callee.send("HTTP/1.1 200 OK\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.response().await.header("allow").as_deref(), Some("GET"));
}
