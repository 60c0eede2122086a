//! What HTTP/2 says of a stream beside its messages: interim responses, resets, limits; on both sides of the proxy.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue};

use crate::peer::{Callee, caller, part, read, request, response};
use crate::support::{Running, Wire, listen, one_backend, soon, with_rule};

const H2C: &str = "protocol: H2C";

fn settings() -> h2::server::Builder {
    h2::server::Builder::new()
}

#[tokio::test]
async fn interim_responses_pass_from_http_2_to_http_2() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", H2C, &[address])).await;
    let mut caller = caller(&proxy).await;
    let (mut answer, mut upload) =
        caller.send_request(request("POST", "/", &[("expect", "100-continue")]), false).unwrap();
    let mut callee = Callee::accept(&backend, &settings()).await;
    let (mut received, mut respond) = callee.next().await;
    assert_eq!(received.headers()["expect"], "100-continue");
    for (status, link) in [(100, "no"), (103, "</a.css>; rel=preload"), (103, "</b.css>; rel=preload")] {
        respond.send_informational(response(status, &[("link", link)])).unwrap();
        let interim = soon(std::future::poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
        assert_eq!(
            (interim.status().as_u16(), &interim.headers()["link"]),
            (status, &HeaderValue::from_static(link))
        );
    }
    // The caller sends its body once it has heard that it may.
    upload.send_data(Bytes::from_static(b"hello"), true).unwrap();
    assert_eq!(read(received.body_mut()).await.unwrap().0, b"hello");
    respond.send_response(response(204, &[]), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 204);
}

#[tokio::test]
async fn what_a_backend_resets_a_stream_with_is_what_its_caller_hears() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", H2C, &[address])).await;
    let mut caller = caller(&proxy).await;
    let mut callee = None;
    for (sent, heard) in [
        (Reason::CANCEL, Reason::CANCEL),
        (Reason::NO_ERROR, Reason::NO_ERROR),
        (Reason::ENHANCE_YOUR_CALM, Reason::ENHANCE_YOUR_CALM),
        (Reason::INTERNAL_ERROR, Reason::INTERNAL_ERROR),
        // What was wrong between proxy and backend is not the caller's.
        (Reason::FLOW_CONTROL_ERROR, Reason::INTERNAL_ERROR),
    ] {
        let (answer, _) = caller.send_request(request("GET", "/", &[]), true).unwrap();
        if callee.is_none() {
            callee = Some(Callee::accept(&backend, &settings()).await);
        }
        let (_, mut respond) = callee.as_mut().unwrap().next().await;
        let mut stream = respond.send_response(response(200, &[]), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        let mut body = soon(answer).await.unwrap().into_body();
        assert_eq!(part(&mut body).await, "half");
        stream.send_reset(sent);
        assert_eq!(read(&mut body).await.unwrap_err().reason(), Some(heard));
    }
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn what_a_caller_resets_its_upload_with_is_what_the_backend_hears() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", H2C, &[address])).await;
    let mut caller = caller(&proxy).await;
    let (answer, mut upload) = caller.send_request(request("POST", "/", &[]), false).unwrap();
    upload.send_data(Bytes::from_static(b"half"), false).unwrap();
    let mut callee = Callee::accept(&backend, &settings()).await;
    let (mut received, respond) = callee.next().await;
    assert_eq!(part(received.body_mut()).await, "half");
    upload.send_reset(Reason::ENHANCE_YOUR_CALM);
    drop(answer);
    assert!(read(received.body_mut()).await.unwrap_err().is_reset());
    drop(respond);
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn a_body_goes_on_after_an_early_response() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", H2C, &[address])).await;
    let mut caller = caller(&proxy).await;
    let (answer, mut upload) = caller.send_request(request("POST", "/", &[]), false).unwrap();
    let mut callee = Callee::accept(&backend, &settings()).await;
    let (mut received, mut respond) = callee.next().await;
    let mut stream = respond.send_response(response(200, &[]), false).unwrap();
    let mut body = soon(answer).await.unwrap().into_body();
    for word in ["one", "two"] {
        upload.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
        let heard = part(received.body_mut()).await;
        stream.send_data(heard, false).unwrap();
        assert_eq!(part(&mut body).await, word);
    }
    upload
        .send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("2"))]))
        .unwrap();
    assert_eq!(read(received.body_mut()).await.unwrap().1.unwrap()["x-sum"], "2");
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(&mut body).await.unwrap().0, b"");
}

#[tokio::test]
async fn a_response_to_head_has_no_body_though_the_proxy_makes_it() {
    let proxy = Running::start(&one_backend(&[crate::support::nowhere().await])).await;
    let mut caller = caller(&proxy).await;
    let (answer, _) = caller.send_request(request("HEAD", "/", &[]), true).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_ne!(answer.headers()["content-length"], "0");
    assert!(answer.headers().contains_key("date"), "what the proxy says itself, it says at a time");
    assert!(answer.body().is_end_stream());
}

#[tokio::test]
async fn what_passes_of_a_http_2_request_is_its_own_fields_and_no_more() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", H2C, &[address])).await;
    let mut caller = caller(&proxy).await;
    let fields = [("x-b", "1"), ("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-a", "2")];
    let (answer, _) = caller.send_request(request("GET", "/a//b?c", &fields), true).unwrap();
    let mut callee = Callee::accept(&backend, &settings()).await;
    let (received, mut respond) = callee.next().await;
    let names: Vec<_> = received.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-b", "te", "cookie", "x-a"]);
    assert_eq!(received.uri(), "http://shop/a//b?c");
    respond.send_response(response(200, &[("x-b", "1"), ("x-a", "2")]), true).unwrap();
    let answer = soon(answer).await.unwrap();
    let names: Vec<_> = answer.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-b", "x-a"], "no date either");
}

#[tokio::test]
async fn a_host_that_disagrees_with_the_authority_is_refused() {
    let (_backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut caller = caller(&proxy).await;
    for fields in [&[("host", "bank")][..], &[("host", "shop"), ("host", "shop")], &[("host", "shop:81")]] {
        let (answer, _) = caller.send_request(request("GET", "/", fields), true).unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), 400, "{fields:?}");
        assert!(answer.headers()["proxy-status"].to_str().unwrap().contains("http_request_error"));
    }
}

#[tokio::test]
async fn a_backend_of_http_1_hears_the_authority_once() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut caller = caller(&proxy).await;
    let (_answer, _) = caller.send_request(request("GET", "/", &[("host", "SHOP")]), true).unwrap();
    let mut callee = Wire::accept(&backend).await;
    assert_eq!(callee.head().await.header("host").as_deref(), Some("shop"));
}

const NARROW: &str = "http: { via: false, forwarded: { xForwarded: false }, \
                      limits: { headerBytes: 1024, headerFields: 16, streamsPerConnection: 2 } }";

fn narrow(address: std::net::SocketAddr) -> String {
    with_rule("", H2C, &[address]).replace(crate::support::PLAIN, NARROW)
}

/// Fields that are too many, fields that are too large, and one that is.
fn too_much() -> [Vec<(&'static str, String)>; 3] {
    let many = (0..17).map(|_| ("x-a", String::from("1"))).collect();
    let large = (0..10).map(|_| ("x-b", "b".repeat(100))).collect();
    [many, large, vec![("x-c", "c".repeat(2000))]]
}

fn borrowed<'a>(fields: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    fields.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[tokio::test]
async fn a_request_with_too_much_header_is_a_431_and_the_next_is_not() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&narrow(address)).await;
    let mut caller = caller(&proxy).await;
    for fields in too_much() {
        let (answer, _) = caller.send_request(request("GET", "/", &borrowed(&fields)), true).unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), 431, "{fields:?}");
        let why = answer.headers()["proxy-status"].to_str().unwrap();
        assert!(why.contains("error=http_request_header_section_size; details=\"the limit is "), "{why}");
    }
    let (answer, _) = caller.send_request(request("GET", &"/a".repeat(600), &[]), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 414);
    let (answer, _) = caller.send_request(request("GET", "/", &[]), true).unwrap();
    let (_, mut respond) = Callee::accept(&backend, &settings()).await.next().await;
    respond.send_response(response(204, &[]), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 204);
    let code = ["code=\"431\"", "reason=\"http_request_header_section_size\""];
    proxy.metric_is("outrigger_requests_total", &code, 3.0).await;
}

#[tokio::test]
async fn a_response_with_too_much_header_is_a_502_that_says_so() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&narrow(address)).await;
    let mut caller = caller(&proxy).await;
    let mut callee = None;
    for fields in too_much() {
        let (answer, _) = caller.send_request(request("POST", "/", &[]), true).unwrap();
        if callee.is_none() {
            callee = Some(Callee::accept(&backend, &settings()).await);
        }
        let (_, mut respond) = callee.as_mut().unwrap().next().await;
        let mut stream = respond.send_response(response(200, &borrowed(&fields)), false).unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), 502, "{fields:?}");
        let why = answer.headers()["proxy-status"].to_str().unwrap();
        assert!(why.contains("error=http_response_header_section_size"), "{why}");
        // The rest of it is not wanted, and its connection lives on.
        let reset = soon(std::future::poll_fn(|cx| stream.poll_reset(cx))).await.unwrap();
        assert_eq!(reset, Reason::CANCEL);
    }
}

#[tokio::test]
async fn too_many_trailers_are_no_end() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&narrow(address)).await;
    let mut caller = caller(&proxy).await;
    let mut too_many = HeaderMap::new();
    for _ in 0..17 {
        too_many.append("x-a", HeaderValue::from_static("1"));
    }
    // Of a response.
    let (answer, _) = caller.send_request(request("GET", "/", &[]), true).unwrap();
    let mut callee = Callee::accept(&backend, &settings()).await;
    let (_, mut respond) = callee.next().await;
    let mut stream = respond.send_response(response(200, &[]), false).unwrap();
    stream.send_trailers(too_many.clone()).unwrap();
    // The reset may overtake the head.
    if let Ok(answer) = soon(answer).await {
        assert_eq!(read(&mut answer.into_body()).await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    }
    // Of a request.
    let (answer, mut upload) = caller.send_request(request("POST", "/", &[]), false).unwrap();
    let (mut received, _respond) = callee.next().await;
    upload.send_trailers(too_many).unwrap();
    assert!(read(received.body_mut()).await.is_err());
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 431);
    assert!(answer.headers()["proxy-status"].to_str().unwrap().contains("http_request_header_section_size"));
}

#[tokio::test]
async fn a_caller_has_no_more_requests_under_way_than_it_may() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&narrow(address)).await;
    let mut caller = caller(&proxy).await;
    assert!(crate::support::poll(|| caller.current_max_send_streams() == 2).await);
    let mut answers = Vec::new();
    for _ in 0..3 {
        caller = caller.ready().await.unwrap();
        answers.push(caller.send_request(request("GET", "/", &[]), true).unwrap().0);
    }
    let mut callee = Callee::accept(&backend, &settings()).await;
    for answer in answers {
        let (_, mut respond) = callee.next().await;
        respond.send_response(response(204, &[]), true).unwrap();
        assert_eq!(soon(answer).await.unwrap().status(), 204);
    }
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_is_ended_in_order() {
    let (_backend, address) = listen().await;
    let http = "http: { timeouts: { idle: 1s } }";
    let proxy = Running::start(&one_backend(&[address]).replace(crate::support::PLAIN, http)).await;
    let stream = tokio::net::TcpStream::connect(proxy.at("web")).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let (answer, _) = sender.send_request(request("GET", "/", &[("host", "bank")]), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 400);
    soon(ended).await.unwrap().expect("GOAWAY, without an error");
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_a_408() {
    let (backend, address) = listen().await;
    let http = "http: { limits: { minBodyRate: { bytesPerSecond: 1000, grace: 1s } } }";
    let proxy = Running::start(&with_rule("", H2C, &[address]).replace(crate::support::PLAIN, http)).await;
    let mut caller = caller(&proxy).await;
    let (answer, mut upload) = caller.send_request(request("POST", "/", &[]), false).unwrap();
    upload.send_data(Bytes::from_static(b"slow"), false).unwrap();
    let (mut received, _respond) = Callee::accept(&backend, &settings()).await.next().await;
    assert!(read(received.body_mut()).await.is_err());
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 408);
    assert!(answer.headers()["proxy-status"].to_str().unwrap().contains("error=http_request_timeout"));
}
