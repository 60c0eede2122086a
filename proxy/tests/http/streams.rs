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
