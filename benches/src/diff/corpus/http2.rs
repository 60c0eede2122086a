//! What callers can say in HTTP/2 alone (RFC 9113, section 8). Written as HTTP/1 is, with `:authority` as a field.

use super::{
    super::exchange::{
        Exchange, Expect, SILENCE, Step, Until, broken, bytes, cut_off, head, refused, same, steps, until,
        unusable, wire,
    },
    Row, numbered,
};

/// Requests that arrive as they are.
#[rustfmt::skip]
const KEPT: &[Row] = &[
    ("h2-authority", "RFC 9113, 8.3.1", "GET /a?b HTTP/2\n:authority: example.com:8080\nx-a: 1\n\n"),
    ("h2-authority-and-host", "RFC 9113, 8.3.1", "GET / HTTP/2\n:authority: example.com\nhost: example.com\n\n"),
    ("h2-host-alone", "RFC 9113, 8.3.1", "GET / HTTP/2\nhost: example.com\nx-a: 1\n\n"),
    ("h2-cookie-crumbs", "RFC 9113, 8.2.3", "GET / HTTP/2\n:authority: a\ncookie: a=1\nx-a: 1\ncookie: b=2\ncookie: c=3\n\n"),
    ("h2-cookie-whole", "RFC 9113, 8.2.3", "GET / HTTP/2\n:authority: a\ncookie: a=1; b=2\n\n"),
    ("h2-te-trailers", "RFC 9113, 8.2.2", "GET / HTTP/2\n:authority: a\nte: trailers\nx-a: 1\n\n"),
    ("h2-asterisk", "RFC 9113, 8.3.1", "OPTIONS * HTTP/2\n:authority: a\n\n"),
    ("h2-length", "RFC 9113, 8.1.1", "POST / HTTP/2\n:authority: a\ncontent-length: 5\n\nhello"),
    ("h2-length-zero", "RFC 9113, 8.1.1", "POST / HTTP/2\n:authority: a\ncontent-length: 0\n\n"),
    ("h2-without-length", "RFC 9113, 8.1", "POST / HTTP/2\n:authority: a\ntransfer-encoding: chunked\n\n5\nhello\n0\n\n"),
    ("h2-trailers", "RFC 9113, 8.1", "POST / HTTP/2\n:authority: a\ntransfer-encoding: chunked\n\n5\nhello\n0\nx-sum: 1\nx-b: 2\nx-sum: 3\n\n"),
    ("h2-trailers-alone", "RFC 9113, 8.1", "POST / HTTP/2\n:authority: a\ntransfer-encoding: chunked\n\n0\nx-sum: 1\n\n"),
    ("h2-empty-body", "RFC 9113, 8.1", "POST / HTTP/2\n:authority: a\ntransfer-encoding: chunked\n\n0\n\n"),
];

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let kept = KEPT.iter().map(|(name, section, request)| same(name, section, request).http2());
    kept.chain(timed()).chain(invalid()).chain(invalid_responses()).collect()
}

/// Requests that HTTP/2 has no room for: each is reset, or answered.
#[rustfmt::skip]
const BAD: &[Row] = &[
    ("h2-bad-upper-case-name", "RFC 9113, 8.2.1", "X-Upper: 1"),
    ("h2-bad-connection", "RFC 9113, 8.2.2", "connection: close"),
    ("h2-bad-connection-naming", "RFC 9113, 8.2.2", "connection: x-hop\nx-hop: 1"),
    ("h2-bad-transfer-encoding", "RFC 9113, 8.2.2", "=transfer-encoding: chunked"),
    ("h2-bad-keep-alive", "RFC 9113, 8.2.2", "keep-alive: timeout=5"),
    ("h2-bad-proxy-connection", "RFC 9113, 8.2.2", "proxy-connection: keep-alive"),
    ("h2-bad-upgrade", "RFC 9113, 8.2.2", "upgrade: websocket"),
    ("h2-bad-te", "RFC 9113, 8.2.2", "te: gzip"),
    ("h2-bad-cr-in-value", "RFC 9113, 8.2.1", "x-a: 1␍2"),
    ("h2-bad-lf-in-value", "RFC 9113, 8.2.1", "x-a: 1␊x-b: 2"),
    ("h2-bad-crlf-in-value", "RFC 9113, 8.2.1", "x-a: 1␍␊x-b: 2"),
    ("h2-bad-nul-in-value", "RFC 9113, 8.2.1", "x-a: 1\0"),
    ("h2-bad-request-in-value", "RFC 9113, 10.3", "x-a: 1␍␊␍␊GET /evil HTTP/1.1␍␊host: a␍␊␍␊"),
    ("h2-bad-space-in-name", "RFC 9113, 8.2.1", "x a: 1"),
    ("h2-bad-lf-in-name", "RFC 9113, 8.2.1", "x␊a: 1"),
    ("h2-bad-name-of-nothing", "RFC 9113, 8.2.1", "=: 1"),
    ("h2-bad-authority-twice", "RFC 9113, 8.3.1", ":authority: b"),
    ("h2-bad-path-twice", "RFC 9113, 8.3", ":path: /b"),
    ("h2-bad-method-twice", "RFC 9113, 8.3", ":method: GET"),
    ("h2-bad-status", "RFC 9113, 8.3", ":status: 200"),
    ("h2-bad-unknown-pseudo", "RFC 9113, 8.3", ":foo: 1"),
    ("h2-bad-protocol-without-connect", "RFC 8441, 4", ":protocol: websocket"),
    ("h2-bad-host-differs", "RFC 9113, 8.3.1", "host: b"),
    ("h2-bad-host-twice", "RFC 9113, 8.3.1", "host: a\nhost: a"),
    ("h2-bad-length", "RFC 9110, 8.6", "=content-length: 1a"),
    ("h2-bad-length-twice", "RFC 9110, 8.6", "=content-length: 0\n=content-length: 5"),
    ("h2-bad-length-without-body", "RFC 9113, 8.1.1", "=content-length: 5"),
];

/// Requests in which something else than a field is wrong.
#[rustfmt::skip]
const BAD_LINES: &[Row] = &[
    ("h2-bad-pseudo-after-field", "RFC 9113, 8.3", "GET / HTTP/2\nx-a: 1\n=:authority: a\n\n"),
    ("h2-bad-path-empty", "RFC 9113, 8.3.1", "GET  HTTP/2\n:authority: a\n\n"),
    ("h2-bad-path-without-slash", "RFC 9113, 8.3.1", "GET a HTTP/2\n:authority: a\n\n"),
    ("h2-bad-path-with-lf", "RFC 9113, 8.3.1", "GET /␊a HTTP/2\n:authority: a\n\n"),
    ("h2-bad-path-with-nul", "RFC 9113, 8.3.1", "GET /\0 HTTP/2\n:authority: a\n\n"),
    ("h2-bad-method", "RFC 9110, 9.1", "G(T / HTTP/2\n:authority: a\n\n"),
    ("h2-bad-authority", "RFC 9113, 8.3.1", "GET / HTTP/2\n:authority: a b\n\n"),
    ("h2-bad-authority-with-a-user", "RFC 9113, 8.3.1", "GET / HTTP/2\n:authority: u@a\n\n"),
    ("h2-bad-no-authority", "RFC 9113, 8.3.1", "GET / HTTP/2\nx-a: 1\n\n"),
];

/// Requests that turn out to be wrong while they are sent.
#[rustfmt::skip]
const BROKEN: &[Row] = &[
    ("h2-broken-longer-than-its-length", "RFC 9113, 8.1.1", "=content-length: 3\ntransfer-encoding: chunked\n\n5\nhello\n0\n\n"),
    ("h2-broken-shorter-than-its-length", "RFC 9113, 8.1.1", "=content-length: 8\ntransfer-encoding: chunked\n\n5\nhello\n0\n\n"),
    ("h2-broken-shorter-with-trailers", "RFC 9113, 8.1.1", "=content-length: 8\ntransfer-encoding: chunked\n\n5\nhello\n0\nx-a: 1\n\n"),
    ("h2-broken-upper-case-trailer", "RFC 9113, 8.2.1", "transfer-encoding: chunked\n\n5\nhello\n0\nX-A: 1\n\n"),
    ("h2-broken-connection-trailer", "RFC 9113, 8.2.2", "transfer-encoding: chunked\n\n5\nhello\n0\nconnection: close\n\n"),
    ("h2-broken-trailer-with-lf", "RFC 9113, 8.2.1", "transfer-encoding: chunked\n\n5\nhello\n0\nx-a: 1␊x-b: 2\n\n"),
];

/// Fields that no response of HTTP/2 can have.
#[rustfmt::skip]
const BAD_RESPONSES: &[Row] = &[
    ("h2-response-upper-case-name", "RFC 9113, 8.2.1", "X-Upper: 1"),
    ("h2-response-connection", "RFC 9113, 8.2.2", "connection: close"),
    ("h2-response-transfer-encoding", "RFC 9113, 8.2.2", "=transfer-encoding: chunked"),
    ("h2-response-keep-alive", "RFC 9113, 8.2.2", "keep-alive: timeout=5"),
    ("h2-response-upgrade", "RFC 9113, 8.2.2", "upgrade: h2c"),
    ("h2-response-cr-in-value", "RFC 9113, 8.2.1", "x-a: 1␍2"),
    ("h2-response-crlf-in-value", "RFC 9113, 8.2.1", "x-a: 1␍␊set-cookie: a=1"),
    ("h2-response-nul-in-value", "RFC 9113, 8.2.1", "x-a: 1\0"),
    ("h2-response-space-in-name", "RFC 9113, 8.2.1", "x a: 1"),
    ("h2-response-status-twice", "RFC 9113, 8.3.2", ":status: 204"),
    ("h2-response-length-of-letters", "RFC 9110, 8.6", "=content-length: 1a"),
];

/// Bodies of responses that are not what they say.
#[rustfmt::skip]
const CUT_OFF: &[Row] = &[
    ("h2-response-longer-than-its-length", "RFC 9113, 8.1.1", "=content-length: 1\ntransfer-encoding: chunked\n\n2\nok\n0\n\n"),
    ("h2-response-shorter-than-its-length", "RFC 9113, 8.1.1", "=content-length: 8\ntransfer-encoding: chunked\n\n2\nok\n0\n\n"),
    ("h2-response-upper-case-trailer", "RFC 9113, 8.2.1", "transfer-encoding: chunked\n\n2\nok\n0\nX-A: 1\n\n"),
    ("h2-response-connection-trailer", "RFC 9113, 8.2.2", "transfer-encoding: chunked\n\n2\nok\n0\nconnection: close\n\n"),
    ("h2-response-trailer-with-lf", "RFC 9113, 8.2.1", "transfer-encoding: chunked\n\n2\nok\n0\nx-a: 1␊x-b: 2\n\n"),
];

fn invalid_responses() -> Vec<Exchange> {
    let long = format!("x-long: {}", "v".repeat(80 * 1024));
    let many = numbered(0, 200).to_lowercase();
    let over = [("h2-response-over-limit-bytes", &*long), ("h2-response-over-limit-fields", many.trim_end())];
    let over = over.map(|(name, fields)| (name, "RFC 9110, 5.4", fields));
    let bad = BAD_RESPONSES.iter().copied().chain(over).map(|(name, section, fields)| {
        unusable(name, section, &format!("HTTP/1.1 200 OK\n{fields}\ncontent-length: 2\n\nok"))
    });
    let cut = CUT_OFF
        .iter()
        .map(|(name, section, rest)| cut_off(name, section, &format!("HTTP/1.1 200 OK\n{rest}")));
    // Some of it ends a connection, on which others may wait.
    bad.chain(cut).map(Exchange::answers_raw).map(Exchange::alone).collect()
}

fn invalid() -> Vec<Exchange> {
    let reset: &[u16] = &[SILENCE, 400];
    let bad = BAD.iter().map(|(name, section, fields)| {
        refused(name, section, reset, wire(&format!("GET / HTTP/2\n:authority: a\n{fields}\n\n")))
    });
    let lines = BAD_LINES.iter().map(|(name, section, request)| refused(name, section, reset, wire(request)));
    let body = BROKEN.iter().map(|(name, section, rest)| {
        let mut exchange = broken(name, section, &format!("POST / HTTP/2\n:authority: a\n{rest}"));
        exchange.expect = Expect::Broken { statuses: reset };
        exchange
    });
    let long = |bytes: usize| format!("x-long: {}\n", "v".repeat(bytes));
    let over = [
        ("h2-over-limit-fields", numbered(0, 200).to_lowercase()),
        ("h2-over-limit-bytes", long(80 * 1024)),
        ("h2-over-limit-bytes-of-many", long(1000).repeat(80)),
    ];
    let over = over.into_iter().map(|(name, fields)| {
        refused(name, "RFC 6585, 5", &[431], wire(&format!("GET / HTTP/2\n:authority: a\n{fields}\n")))
    });
    let target = |name, bytes, statuses| {
        let target = format!("GET /{} HTTP/2\n:authority: a\n\n", "a".repeat(bytes));
        refused(name, "RFC 9110, 15.5.15", statuses, wire(&target))
    };
    let targets = [
        target("h2-over-limit-target", 65_530, &[414, 431]),
        // A target that `h2` cannot hold.
        target("h2-over-limit-target-by-far", 80 * 1024, &[SILENCE, 414, 431]),
    ];
    let trailers = format!(
        "POST / HTTP/2\n:authority: a\ntransfer-encoding: chunked\n\n5\nhello\n0\n{}\n",
        long(80 * 1024)
    );
    let mut trailers = broken("h2-over-limit-trailers", "RFC 6585, 5", &trailers);
    trailers.expect = Expect::Broken { statuses: &[431] };
    bad.chain(lines).chain(body).chain(over).chain(targets).chain([trailers]).map(Exchange::raw).collect()
}

fn timed() -> [Exchange; 5] {
    let complete = || until(Until::Complete);
    let many = format!("GET / HTTP/2\n:authority: a\n{}\n", numbered(0, 100));
    let ok = || head("HTTP/1.1 200 OK\nContent-Length: 2\n\nok");
    [
        same("h2-many-fields", "RFC 9113, 8.2", &many).http2(),
        steps(
            "h2-duplex",
            "RFC 9113, 8.1",
            [
                head("POST / HTTP/2\n:authority: a\ntransfer-encoding: chunked\n\n"),
                bytes("2\nhe\n"),
                until(Until::Body(2)),
                bytes("3\nllo\n"),
                until(Until::Body(4)),
                bytes("0\n\n"),
                complete(),
            ],
        )
        .application([vec![
            until(Until::Body(2)),
            head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nab\n"),
            until(Until::Body(5)),
            bytes("2\ncd\n"),
            complete(),
            bytes("0\nX-Sum: 1\n\n"),
        ]])
        .http2(),
        steps(
            "h2-reset-by-the-caller",
            "RFC 9113, 5.4.2",
            [
                head("POST / HTTP/2\n:authority: a\ntransfer-encoding: chunked\n\n"),
                bytes("5\nhello\n"),
                Step::Wait("half"),
                Step::Reset,
            ],
        )
        .application([vec![until(Until::Body(5)), Step::Mark("half"), until(Until::Closed), Step::Close]])
        .http2()
        .alone(),
        steps(
            "h2-reset-by-the-application",
            "RFC 9113, 5.4.2",
            [head("GET / HTTP/2\n:authority: a\n\n"), until(Until::Body(2)), Step::Mark("half"), complete()],
        )
        .application([vec![
            complete(),
            head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nab\n"),
            Step::Wait("half"),
            Step::Reset,
        ]])
        .http2()
        .alone(),
        steps("h2-early-hints", "RFC 9113, 8.1", [head("GET / HTTP/2\n:authority: a\n\n"), complete()])
            .application([vec![complete(), head("HTTP/1.1 103 Early Hints\nLink: </a>\n\n"), ok()]])
            .http2(),
    ]
}
