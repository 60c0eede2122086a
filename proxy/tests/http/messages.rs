//! HTTP/1 messages: versions, lengths, connections, header fields.

use outrigger_testkit::app::App;
use tokio::net::TcpListener;

use crate::support::{Message, Running, Wire, listen, one_backend};

/// A proxy before a backend that the test plays itself.
async fn scripted() -> (Running, TcpListener) {
    let (backend, address) = listen().await;
    (Running::start(&one_backend(&[address])).await, backend)
}

/// Has the backend answer one request, and returns what it received and what the caller got.
async fn exchange(request: &str, answer: &str) -> (Message, Message) {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send(request).await;
    let mut callee = Wire::accept(&backend).await;
    let received = callee.request().await;
    callee.send(answer).await;
    callee.finish().await;
    (received, caller.response().await)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn http_1_0_closes_unless_it_is_asked_to_stay() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let mut wire = proxy.connect().await;
    wire.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let response = wire.response().await;
    assert_eq!((response.status(), response.header("connection").as_deref()), (200, Some("keep-alive")));
    wire.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(wire.response().await.status(), 200);
    assert!(wire.closed().await);
}

#[tokio::test]
async fn http_1_0_gets_no_chunks() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (_, response) = exchange("GET / HTTP/1.0\r\nHost: shop\r\n\r\n", chunked).await;
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.text(), "abc");
}

#[tokio::test]
async fn http_1_0_without_a_host_reaches_the_backend_as_valid_http_1_1() {
    let (received, response) = exchange("GET /old HTTP/1.0\r\n\r\n", OK).await;
    assert!(received.head.starts_with("GET /old HTTP/1.1"), "{}", received.head);
    assert!(received.header("host").is_some(), "HTTP/1.1 must have a Host: {}", received.head);
    assert_eq!(response.text(), "ok");
}

#[tokio::test]
async fn a_connection_stays_for_the_next_request_on_both_sides() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("GET /1 HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    for number in 1..=3 {
        assert!(callee.request().await.head.starts_with(&format!("GET /{number} ")));
        callee.send(OK).await;
        assert_eq!(caller.response().await.text(), "ok");
        caller.send(format!("GET /{} HTTP/1.1\r\nHost: shop\r\n\r\n", number + 1)).await;
    }
}

#[tokio::test]
async fn a_caller_that_says_close_is_closed_and_the_backend_is_not() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("GET /1 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    assert_eq!(callee.request().await.header("connection"), None);
    callee.send(OK).await;
    assert_eq!(caller.response().await.header("connection").as_deref(), Some("close"));
    assert!(caller.closed().await);
    let mut next = proxy.connect().await;
    next.send("GET /2 HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert!(callee.request().await.head.starts_with("GET /2 "));
}

#[tokio::test]
async fn a_backend_that_says_close_does_not_close_the_caller() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    for _ in 0..2 {
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        let mut callee = Wire::accept(&backend).await;
        callee.request().await;
        callee.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(caller.response().await.header("connection"), None);
        drop(callee);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let mut wire = proxy.connect().await;
    let requests: String = ["delay/30", "b", "delay/10", "d"]
        .iter()
        .map(|path| format!("POST /{path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi"))
        .collect();
    wire.send(requests).await;
    for path in ["/delay/30", "/b", "/delay/10", "/d"] {
        assert_eq!(wire.response().await.json()["path"], path);
    }
}

#[tokio::test]
async fn a_chunked_request_stays_chunked_with_its_trailers() {
    let request = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                   3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n";
    let (received, _) = exchange(request, OK).await;
    assert_eq!((received.text(), received.header("content-length")), ("abcdefg", None));
    assert_eq!(received.trailers.to_ascii_lowercase(), "x-sum: 7\n");
}

#[tokio::test]
async fn a_chunked_response_stays_chunked_with_its_trailers() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                  3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n";
    let request = "GET / HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nConnection: TE\r\n\r\n";
    let (received, response) = exchange(request, answer).await;
    assert_eq!(received.header("te").as_deref(), Some("trailers"));
    assert_eq!((response.text(), response.trailers.as_str()), ("abc", "x-sum: 3\n"));
}

#[tokio::test]
async fn a_response_without_a_length_ends_with_its_connection_and_whole() {
    let (_, response) =
        exchange("GET / HTTP/1.1\r\nHost: shop\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    assert_eq!(response.text(), "until the end");
    assert_eq!(response.header("transfer-encoding").as_deref(), Some("chunked"));
}

#[tokio::test]
async fn a_request_keeps_its_length_and_an_empty_one_gets_none() {
    let (received, _) = exchange("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc", OK).await;
    assert_eq!((received.text(), received.header("content-length").as_deref()), ("abc", Some("3")));
    let (received, _) = exchange("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n", OK).await;
    assert_eq!(
        (received.header("content-length").as_deref(), received.header("transfer-encoding")),
        (Some("0"), None)
    );
    let (received, _) = exchange("GET / HTTP/1.1\r\nHost: shop\r\n\r\n", OK).await;
    assert_eq!((received.header("content-length"), received.header("transfer-encoding")), (None, None));
}

#[tokio::test]
async fn responses_without_a_body_leave_the_connection_in_step() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    let answers = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\netag: \"a\"\r\n\r\n", 200, Some("1000")),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n", 304, None),
    ];
    for (answer, status, length) in answers {
        callee.request().await;
        callee.send(answer).await;
        let response = caller.head().await;
        assert_eq!((response.status(), response.header("content-length").as_deref()), (status, length));
        assert_eq!(response.header("transfer-encoding"), None);
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    }
    callee.request().await;
    callee.send(OK).await;
    assert_eq!(caller.response().await.text(), "ok");
}

#[tokio::test]
async fn expect_100_continue_waits_for_the_backends_word() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    assert_eq!(callee.head().await.header("expect").as_deref(), Some("100-continue"));
    callee.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(caller.head().await.status(), 100);
    caller.send("abc").await;
    assert_eq!(callee.exactly(3).await, b"abc");
    callee.send(OK).await;
    assert_eq!(caller.response().await.status(), 200);
}

#[tokio::test]
async fn a_backend_that_refuses_an_expected_body_is_heard_without_it() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    callee.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(caller.response().await.status(), 417);
}

#[tokio::test]
async fn what_concerns_one_connection_is_taken_off_both_ways() {
    let request = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close, X-Hop-A\r\nConnection: x-hop-b\r\n\
                   X-Hop-A: 1\r\nx-hop-b: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
                   TE: gzip\r\nUpgrade: h2c\r\nX-Kept: 1\r\nX-Kept: 2\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop-c\r\nconnection: x-hop-d\r\nx-hop-c: 1\r\n\
                  x-hop-d: 1\r\nkeep-alive: timeout=5\r\nx-kept: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
                  content-length: 0\r\n\r\n";
    let (received, response) = exchange(request, answer).await;
    for name in ["connection", "x-hop-a", "x-hop-b", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert_eq!(received.header(name), None, "{name} in {}", received.head);
    }
    assert_eq!(received.header("x-kept").as_deref(), Some("1, 2"));
    for name in ["x-hop-c", "x-hop-d", "keep-alive"] {
        assert_eq!(response.header(name), None, "{name} in {}", response.head);
    }
    assert_eq!(response.header("set-cookie").as_deref(), Some("a=1, b=2"));
}

#[tokio::test]
async fn nothing_is_added_to_a_request() {
    let (received, _) =
        exchange("GET /a/../b?x=%2f&y HTTP/1.1\r\nHost: Shop:80\r\nX-Empty:\r\n\r\n", OK).await;
    let head = received.head.to_ascii_lowercase();
    let mut lines: Vec<_> = head.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["get /a/../b?x=%2f&y http/1.1", "host: shop:80", "x-empty:"]);
}

#[tokio::test]
async fn an_absolute_target_names_the_host_and_host_agrees() {
    let (received, _) = exchange("GET http://shop:81/a?b HTTP/1.1\r\nHost: Shop:81\r\n\r\n", OK).await;
    assert!(received.head.starts_with("GET /a?b HTTP/1.1"), "{}", received.head);
    assert_eq!(received.header("host").as_deref(), Some("shop:81"));
}

#[tokio::test]
async fn large_headers_pass_up_to_a_limit() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let with =
        |bytes: usize| format!("GET / HTTP/1.1\r\nHost: shop\r\nX-Large: {}\r\n\r\n", "x".repeat(bytes));
    assert_eq!(proxy.ask(&with(32 * 1024)).await.status(), 200);
    assert_eq!(proxy.ask(&with(80 * 1024)).await.status(), 431);
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(proxy.ask(&format!("GET / HTTP/1.1\r\nHost: shop\r\n{many}\r\n")).await.status(), 431);
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn a_large_response_header_passes() {
    let answer =
        format!("HTTP/1.1 200 OK\r\nx-large: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(32 * 1024));
    let (_, response) = exchange("GET / HTTP/1.1\r\nHost: shop\r\n\r\n", &answer).await;
    assert_eq!(response.header("x-large").map(|value| value.len()), Some(32 * 1024));
}

#[tokio::test]
async fn what_could_be_understood_in_two_ways_is_refused() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let requests = [
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: a\n\n"),
        (400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    ];
    for (status, request) in requests {
        let mut wire = proxy.connect().await;
        wire.send(request).await;
        let refused = wire.response().await;
        assert_eq!(refused.status(), status, "{request:?}: {}", refused.head);
        assert!(refused.header("proxy-status").is_some(), "{request:?}: {}", refused.head);
        assert!(wire.closed().await, "where the next request begins is not known after {request:?}");
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn header_names_keep_their_case_and_fields_their_order_both_ways() {
    let request = "GET / HTTP/1.1\r\nX-One: 1\r\nHOST: shop\r\nx-Two: a\r\nX-ONE: 2\r\nX-two: b\r\n\r\n";
    let answer = "HTTP/1.1 200 Fine\r\nX-B: 1\r\nx-a: 2\r\nX-b: 3\r\nCONTENT-LENGTH: 2\r\n\r\nok";
    let (received, response) = exchange(request, answer).await;
    assert_eq!(format!("{}\r\n\r\n", received.head), request);
    assert_eq!(format!("{}\r\n\r\n{}", response.head, response.text()), answer);
}

#[tokio::test]
async fn interim_responses_pass_before_the_final_one() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    assert_eq!(caller.head().await.head, "HTTP/1.1 103 Early Hints\r\nLink: </a>");
    callee.send(OK).await;
    let response = caller.response().await;
    assert_eq!((response.status(), response.text()), (200, "ok"));
}

#[tokio::test]
async fn a_caller_that_has_said_its_last_still_gets_its_answer() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    caller.finish().await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send(OK).await;
    assert_eq!(caller.response().await.text(), "ok");
    assert!(caller.closed().await);
}

/// Response splitting and its like: whoever asks next gets an answer of its own.
#[tokio::test]
async fn what_an_application_sends_beyond_its_response_answers_nobody() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (method, response) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
    ] {
        for at_once in [true, false] {
            let (backend, address) = listen().await;
            let proxy = Running::start(&one_backend(&[address])).await;
            let mut caller = proxy.connect().await;
            caller.send(format!("{method} / HTTP/1.1\r\nHost: shop\r\n\r\n")).await;
            let mut callee = Wire::accept(&backend).await;
            callee.head().await;
            let (now, later) = if at_once { (EVIL, "") } else { ("", EVIL) };
            callee.send(format!("{response}{now}")).await;
            if method == "HEAD" {
                caller.head().await;
            } else {
                caller.response().await;
            }
            callee.send(later).await;
            caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
            let mut other = Wire::accept(&backend).await;
            other.head().await;
            other.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
            assert_eq!(caller.response().await.body, b"good", "{method}, {response}");
        }
    }
}
