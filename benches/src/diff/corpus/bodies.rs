//! Bodies of requests (RFC 9110, section 8.6; RFC 9112, section 6).

use super::{
    super::exchange::{
        Exchange, SILENCE, Step, Until, broken, bytes, head, refused, same, steps, until, wire,
    },
    Row, bad_requests,
};

/// Requests with bodies that arrive as they are.
#[rustfmt::skip]
const KEPT: &[Row] = &[
    ("length", "RFC 9112, 6.2", "POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello"),
    ("length-zero", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 0\n\n"),
    ("length-none", "RFC 9112, 6.3", "POST / HTTP/1.1\nHost: a\n\n"),
    ("length-zero-of-get", "RFC 9110, 9.3.1", "GET / HTTP/1.1\nHost: a\nContent-Length: 0\n\n"),
    ("length-of-get", "RFC 9110, 9.3.1", "GET / HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello"),
    ("length-of-delete", "RFC 9110, 9.3.5", "DELETE / HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello"),
    ("length-of-options", "RFC 9110, 9.3.7", "OPTIONS / HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello"),
    ("length-of-propfind", "RFC 4918, 9.1", "PROPFIND / HTTP/1.1\nHost: a\nDepth: 1\nContent-Length: 7\n\n<a><b/>"),
    ("length-in-odd-case", "RFC 9110, 5.1", "POST / HTTP/1.1\nHost: a\ncOnTeNt-LeNgTh: 5\n\nhello"),
    ("length-first", "RFC 9110, 5.3", "POST / HTTP/1.1\nContent-Length: 5\nX-A: 1\nHost: a\n\nhello"),
    ("length-with-spaces-around", "RFC 9112, 5.1", "POST / HTTP/1.1\nHost: a\nContent-Length: \t5 \n\nhello"),
    ("body-like-a-request", "RFC 9112, 6", "POST / HTTP/1.1\nHost: a\nContent-Length: 28\n\nGET /evil HTTP/1.1\nA: b\n\n"),
    ("body-like-chunks", "RFC 9112, 6", "POST / HTTP/1.1\nHost: a\nContent-Length: 15\n\n5\nhello\n0\n\n"),
    ("body-of-form", "RFC 9110, 8.3", "POST / HTTP/1.1\nHost: a\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 7\n\na=1&b=2"),
    ("body-encoded", "RFC 9110, 8.4", "POST / HTTP/1.1\nHost: a\nContent-Encoding: gzip\nContent-Length: 5\n\n\u{1f}\u{b}abc"),
    ("body-digest", "RFC 9530, 2", "PUT / HTTP/1.1\nHost: a\nContent-Digest: sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:\nContent-Length: 5\n\nhello"),
];

/// Lengths that are not valid.
#[rustfmt::skip]
const BAD: &[Row] = &[
    ("length-differs", "RFC 9112, 6.3", "POST / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 6\n\nhello!"),
    ("length-differs-in-a-list", "RFC 9112, 6.3", "POST / HTTP/1.1\nHost: a\nContent-Length: 5, 6\n\nhello!"),
    ("length-differs-in-digits", "RFC 9112, 6.3", "POST / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 05\nContent-Length: 50\n\nhello"),
    ("length-signed", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: +5\n\nhello"),
    ("length-negative", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: -5\n\nhello"),
    ("length-hexadecimal", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 0x5\n\nhello"),
    ("length-with-letters", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 5a\n\nhello"),
    ("length-with-point", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 5.0\n\nhello"),
    ("length-with-space-inside", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 5 0\n\nhello"),
    ("length-with-semicolon", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 5;a\n\nhello"),
    ("length-with-comma-at-the-end", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 5,\n\nhello"),
    ("length-quoted", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: \"5\"\n\nhello"),
    ("length-empty", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length:\n\nhello"),
    ("length-with-underscores", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 1_0\n\nhellohello"),
    ("length-of-other-digits", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: ٥\n\nhello"),
    ("length-over-64-bits", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 18446744073709551617\n\nh"),
    ("length-of-many-digits", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: 100000000000000000000000000000000\n\nh"),
    ("length-with-vertical-tab", "RFC 9110, 8.6", "POST / HTTP/1.1\nHost: a\nContent-Length: \u{b}5\n\nhello"),
];

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let kept = KEPT.iter().map(|(name, section, request)| same(name, section, request));
    kept.chain(bad_requests(BAD)).chain(large()).chain(timed()).collect()
}

fn with_body(body: &[u8]) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn large() -> [Exchange; 3] {
    let every: Vec<u8> = (0..=255).collect();
    let megabyte: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
    [
        same("body-of-every-byte", "RFC 9112, 6", "").caller([]).sends(with_body(&every)),
        same("body-large", "RFC 9112, 6", "").caller([]).sends(with_body(&megabyte)),
        same("body-large-both-ways", "RFC 9112, 6", "")
            .caller([])
            .sends(with_body(&megabyte))
            .answer_bytes([&b"HTTP/1.1 200 OK\r\nContent-Length: 1000003\r\n\r\n"[..], &megabyte].concat()),
    ]
}

/// The whole answer comes before the request is whole, and nobody reads on.
fn answered_for_good(name: &str, response: &str) -> Exchange {
    steps(
        name,
        "RFC 9113, 8.1",
        [head("POST / HTTP/1.1\nHost: a\nContent-Length: 10\n\n"), bytes("hello"), until(Until::Complete)],
    )
    .application([vec![until(Until::Body(5)), head(&format!("HTTP/1.1 413 Content Too Large\n{response}"))]])
}

/// Bodies that come in pieces, or not at all.
fn timed() -> [Exchange; 12] {
    let post = "POST / HTTP/1.1\nHost: a\nContent-Length: 10\n\n";
    let ok = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok";
    let complete = || until(Until::Complete);
    [
        // Each half arrives before the next is sent.
        steps(
            "body-in-pieces",
            "RFC 9112, 6",
            [head(post), Step::Wait("head"), bytes("hello"), Step::Wait("half"), bytes("world"), complete()],
        )
        .application([vec![
            until(Until::Head),
            Step::Mark("head"),
            until(Until::Body(5)),
            Step::Mark("half"),
            complete(),
            head(ok),
        ]]),
        steps(
            "head-in-pieces",
            "RFC 9112, 2.1",
            [head("GET / HTTP/1.1\nHo"), bytes("st: a\n\n"), complete()],
        )
        .http1_callers(),
        // The whole answer arrives before the request is whole.
        steps(
            "answered-early",
            "RFC 9110, 7.5",
            [head(post), bytes("hello"), complete(), bytes("world"), Step::Mark("sent")],
        )
        .application([vec![until(Until::Body(5)), head(ok), Step::Wait("sent"), complete()]]),
        // The answer begins, and goes on, while the request is sent.
        steps(
            "answered-meanwhile",
            "RFC 9110, 7.5",
            [head(post), bytes("hello"), until(Until::Body(2)), bytes("world"), complete()],
        )
        .application([vec![
            until(Until::Body(5)),
            head("HTTP/1.1 200 OK\nContent-Length: 4\n\nab"),
            complete(),
            bytes("cd"),
        ]]),
        steps("answered-early-and-closed", "RFC 9112, 9.6", [head(post), bytes("hello"), complete()])
            .application([vec![
                until(Until::Body(5)),
                head("HTTP/1.1 413 Content Too Large\nConnection: close\nContent-Length: 2\n\nno"),
                Step::Close,
            ]]),
        // The rest of the request is not read by anybody.
        answered_for_good("answered-early-with-length", "Content-Length: 2\n\nno"),
        answered_for_good("answered-early-in-chunks", "Transfer-Encoding: chunked\n\n2\nno\n0\n\n"),
        answered_for_good(
            "answered-early-with-trailers",
            "Transfer-Encoding: chunked\n\n2\nno\n0\nX-A: 1\n\n",
        ),
        // The caller goes away in the middle: the application must not take it for the end.
        steps("body-cut-off", "RFC 9112, 8", [head(post), bytes("hello"), Step::Wait("half"), Step::Close])
            .application([vec![until(Until::Body(5)), Step::Mark("half"), until(Until::Closed), Step::Close]])
            .alone(),
        steps("body-reset", "RFC 9112, 8", [head(post), bytes("hello"), Step::Wait("half"), Step::Reset])
            .application([vec![until(Until::Body(5)), Step::Mark("half"), until(Until::Closed), Step::Close]])
            .alone(),
        broken(
            "body-shorter-than-its-length",
            "RFC 9112, 8",
            "POST / HTTP/1.1\nHost: a\nContent-Length: 10\n\nhello",
        )
        .caller([
            Step::Head(wire("POST / HTTP/1.1\nHost: a\nContent-Length: 10\n\nhello")),
            Step::Finish,
            until(Until::Closed),
        ]),
        refused("head-cut-off", "RFC 9112, 8", &[SILENCE, 400, 408], b"").caller([
            head("GET / HTTP/1.1\nHost: a\n"),
            Step::Finish,
            until(Until::Closed),
        ]),
    ]
}
