//! What callers can say in HTTP/2 alone (RFC 9113, section 8). Written as HTTP/1 is, with `:authority` as a field.

use super::{
    super::exchange::{Exchange, Step, Until, bytes, head, same, steps, until},
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
    kept.chain(timed()).collect()
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
