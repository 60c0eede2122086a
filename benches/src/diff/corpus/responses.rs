//! Responses (RFC 9110, sections 6, 8 and 15; RFC 9112, sections 4 and 6).

use super::{
    super::exchange::{
        Exchange, Step, Until, bytes, cut_off, head, response, same, steps, until, unusable, wire,
    },
    Row,
};

/// Responses that arrive as they are.
#[rustfmt::skip]
const KEPT: &[Row] = &[
    ("response-field-case", "RFC 9110, 5.1", "HTTP/1.1 200 OK\nX-CamelCase: a\nx-lower: b\nX-UPPER: c\nCONTENT-length: 2\n\nok"),
    ("response-field-order", "RFC 9110, 5.3", "HTTP/1.1 200 OK\nZ: 1\nContent-Length: 2\nA: 2\nM: 3\n\nok"),
    ("response-field-repeated", "RFC 9110, 5.3", "HTTP/1.1 200 OK\nX-A: 1\nX-B: 2\nX-A: 3\nx-a: 4\nContent-Length: 2\n\nok"),
    ("response-cookies", "RFC 6265, 3", "HTTP/1.1 200 OK\nSet-Cookie: a=1; Path=/; Expires=Wed, 09 Jun 2021 10:18:14 GMT\nSet-Cookie: b=2\nSet-Cookie: a=3\nContent-Length: 2\n\nok"),
    ("response-challenges", "RFC 9110, 11.6.1", "HTTP/1.1 401 Unauthorized\nWWW-Authenticate: Basic realm=\"a, b\"\nWWW-Authenticate: Bearer\nContent-Length: 2\n\nno"),
    ("response-date", "RFC 9110, 6.6.1", "HTTP/1.1 200 OK\nDate: Sun, 06 Nov 1994 08:49:37 GMT\nServer: a/1.0 (b)\nContent-Length: 2\n\nok"),
    ("response-empty-fields", "RFC 9110, 5.5", "HTTP/1.1 200 OK\nX-A:\nX-B: \nContent-Length: 2\n\nok"),
    ("response-utf-8", "RFC 9110, 5.5", "HTTP/1.1 200 OK\nX-A: grün 日本\nContent-Length: 2\n\nok"),
    ("response-without-space", "RFC 9112, 5.1", "HTTP/1.1 200 OK\nX-A:1\nContent-Length:2\n\nok"),
    ("response-via", "RFC 9110, 7.6.3", "HTTP/1.1 200 OK\nVia: 1.1 a.example\nAge: 3\nContent-Length: 2\n\nok"),
    ("response-encoded", "RFC 9110, 8.4", "HTTP/1.1 200 OK\nContent-Encoding: br\nVary: Accept-Encoding, *\nETag: W/\"a\"\nContent-Length: 3\n\n\u{b}\u{1}x"),
    ("response-location", "RFC 9110, 10.2.2", "HTTP/1.1 302 Found\nLocation: ../a//b?c#d\nContent-Length: 0\n\n"),
    ("response-security", "RFC 6797, 6.1", "HTTP/1.1 200 OK\nStrict-Transport-Security: max-age=1\nContent-Security-Policy: default-src 'self'; a b\nContent-Length: 2\n\nok"),
    ("response-x-forwarded", "RFC 7239, 1", "HTTP/1.1 200 OK\nX-Powered-By: a\nX-Frame-Options: DENY\nContent-Length: 2\n\nok"),
    ("response-proxy-status", "RFC 9209, 2", "HTTP/1.1 502 Bad Gateway\nProxy-Status: other; error=dns_error\nContent-Length: 2\n\nno"),
    ("reason-of-its-own", "RFC 9112, 4", "HTTP/1.1 200 All Is Well\nContent-Length: 2\n\nok"),
    ("reason-empty", "RFC 9112, 4", "HTTP/1.1 200 \nContent-Length: 2\n\nok"),
    ("reason-utf-8", "RFC 9112, 4", "HTTP/1.1 404 Nicht gefunden, tschüß\nContent-Length: 2\n\nno"),
    ("reason-long", "RFC 9112, 4", "HTTP/1.1 418 I'm a teapot: short and stout (here is my handle, here is my spout)\nContent-Length: 2\n\nno"),
    ("body-chunked", "RFC 9112, 7.1", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n"),
    ("body-chunked-extension", "RFC 9112, 7.1.1", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2;a=\"b\"\nok\n0;c\n\n"),
    ("body-chunked-empty", "RFC 9112, 7.1", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\n\n"),
    ("body-chunked-odd-case", "RFC 9112, 7", "HTTP/1.1 200 OK\ntransfer-ENCODING: Chunked\n\n2\nok\n0\n\n"),
    ("body-trailers", "RFC 9110, 6.5", "HTTP/1.1 200 OK\nTrailer: X-Sum\nTransfer-Encoding: chunked\n\n2\nok\n0\nX-Sum: 1\nX-b: 2\nX-Sum: 3\n\n"),
    ("body-trailers-alone", "RFC 9110, 6.5", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\nX-Sum: 1\n\n"),
    ("body-empty", "RFC 9110, 8.6", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    ("body-of-event-stream", "RFC 9112, 7.1", "HTTP/1.1 200 OK\nContent-Type: text/event-stream\nTransfer-Encoding: chunked\n\nb\ndata: a\n\n\n0\n\n"),
    ("no-content", "RFC 9110, 15.3.5", "HTTP/1.1 204 No Content\nX-A: 1\n\n"),
    ("reset-content", "RFC 9110, 15.3.6", "HTTP/1.1 205 Reset Content\nContent-Length: 0\n\n"),
    ("partial-content", "RFC 9110, 15.3.7", "HTTP/1.1 206 Partial Content\nContent-Range: bytes 0-1/10\nContent-Length: 2\n\nok"),
    ("not-modified", "RFC 9110, 15.4.5", "HTTP/1.1 304 Not Modified\nETag: \"a\"\n\n"),
    ("not-modified-with-length", "RFC 9110, 8.6", "HTTP/1.1 304 Not Modified\nETag: \"a\"\nContent-Length: 1000\n\n"),
];

/// Responses to HEAD, which have no body whatever they say (RFC 9110, section 9.3.2).
#[rustfmt::skip]
const TO_HEAD: &[Row] = &[
    ("head", "RFC 9110, 9.3.2", "HTTP/1.1 200 OK\nX-A: 1\n\n"),
    ("head-with-length", "RFC 9110, 8.6", "HTTP/1.1 200 OK\nContent-Length: 1000\n\n"),
    ("head-with-length-zero", "RFC 9110, 8.6", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    ("head-chunked", "RFC 9112, 6.1", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"),
    ("head-not-found", "RFC 9110, 9.3.2", "HTTP/1.1 404 Not Found\nContent-Length: 9\n\n"),
    ("head-no-content", "RFC 9110, 15.3.5", "HTTP/1.1 204 No Content\n\n"),
    ("head-not-modified", "RFC 9110, 15.4.5", "HTTP/1.1 304 Not Modified\nContent-Length: 9\n\n"),
];

/// Responses that nobody may pass on.
#[rustfmt::skip]
const UNUSABLE: &[Row] = &[
    ("response-length-and-chunked", "RFC 9112, 6.3", "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n"),
    ("response-length-differs", "RFC 9112, 6.3", "HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 3\n\nok!"),
    ("response-length-differs-in-a-list", "RFC 9112, 6.3", "HTTP/1.1 200 OK\nContent-Length: 2, 3\n\nok!"),
    ("response-length-negative", "RFC 9110, 8.6", "HTTP/1.1 200 OK\nContent-Length: -2\n\nok"),
    ("response-length-signed", "RFC 9110, 8.6", "HTTP/1.1 200 OK\nContent-Length: +2\n\nok"),
    ("response-length-of-letters", "RFC 9110, 8.6", "HTTP/1.1 200 OK\nContent-Length: two\n\nok"),
    ("response-length-over-64-bits", "RFC 9110, 8.6", "HTTP/1.1 200 OK\nContent-Length: 18446744073709551618\n\nok"),
    ("response-coding-unknown", "RFC 9112, 6.1", "HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\nok"),
    ("response-coding-after-chunked", "RFC 9112, 6.3", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked, gzip\n\n2\nok\n0\n\n"),
    ("response-coding-before-chunked", "RFC 9112, 6.1", "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n2\nok\n0\n\n"),
    ("response-folded", "RFC 9112, 5.2", "HTTP/1.1 200 OK\nX-A: b\n c\nContent-Length: 2\n\nok"),
    ("response-space-before-colon", "RFC 9112, 5.1", "HTTP/1.1 200 OK\nX-A : b\nContent-Length: 2\n\nok"),
    ("response-without-colon", "RFC 9112, 5", "HTTP/1.1 200 OK\nX-A\nContent-Length: 2\n\nok"),
    ("response-name-with-space", "RFC 9110, 5.1", "HTTP/1.1 200 OK\nX A: b\nContent-Length: 2\n\nok"),
    ("response-with-nul", "RFC 9110, 5.5", "HTTP/1.1 200 OK\nX-A: b\0c\nContent-Length: 2\n\nok"),
    ("response-with-cr", "RFC 9110, 5.5", "HTTP/1.1 200 OK\nX-A: b\rc\nContent-Length: 2\n\nok"),
    ("response-with-bare-lf", "RFC 9112, 2.2", "HTTP/1.1 200 OK\nX-A: b␊X-B: c\nContent-Length: 2\n\nok"),
    ("response-version-1.9", "RFC 9110, 2.5", "HTTP/1.9 200 OK\nContent-Length: 2\n\nok"),
    ("response-version-2", "RFC 9112, 2.3", "HTTP/2.0 200 OK\nContent-Length: 2\n\nok"),
    ("response-status-of-two-digits", "RFC 9112, 4", "HTTP/1.1 20 OK\nContent-Length: 2\n\nok"),
    ("response-status-of-four-digits", "RFC 9112, 4", "HTTP/1.1 2000 OK\nContent-Length: 2\n\nok"),
    ("response-status-of-letters", "RFC 9112, 4", "HTTP/1.1 abc OK\nContent-Length: 2\n\nok"),
    ("response-status-zero", "RFC 9110, 15", "HTTP/1.1 000 OK\nContent-Length: 2\n\nok"),
    ("response-not-http", "RFC 9112, 4", "SSH-2.0-OpenSSH_9.2\n"),
    ("response-empty", "RFC 9112, 8", ""),
    ("response-head-cut-off", "RFC 9112, 8", "HTTP/1.1 200 OK\nContent-Le"),
    ("response-switches-unasked", "RFC 9110, 15.2.2", "HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: a\n\n"),
];

/// Responses that turn out to be invalid, or break off.
#[rustfmt::skip]
const CUT_OFF: &[Row] = &[
    ("response-shorter-than-its-length", "RFC 9112, 8", "HTTP/1.1 200 OK\nContent-Length: 10\n\nhello"),
    ("response-chunks-cut-off", "RFC 9112, 8", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n"),
    ("response-chunk-cut-off", "RFC 9112, 8", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhel"),
    ("response-trailers-cut-off", "RFC 9112, 8", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\nX-A: b\n"),
    ("response-chunk-size-of-letters", "RFC 9112, 7.1", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\nxyz\n\n"),
    ("response-chunk-size-over-64-bits", "RFC 9112, 7.1", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n10000000000000005\nhello\n0\n\n"),
    ("response-chunk-longer-than-it-says", "RFC 9112, 7.1", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello!\n0\n\n"),
    ("response-chunk-ended-by-lf", "RFC 9112, 7.1", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5␊hello␊0␊␊"),
    ("response-trailer-folded", "RFC 9112, 5.2", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\nX-A: b\n c\n\n"),
];

/// Statuses that arrive as they are.
#[rustfmt::skip]
const STATUSES: &[u16] = &[
    201, 202, 203, 207, 226, 299, 300, 301, 303, 307, 308, 400, 402, 404, 409, 410,
    411, 421, 422, 425, 429, 451, 499, 500, 501, 503, 504, 507, 599, 600, 999,
];

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let kept = KEPT.iter().map(|(name, section, text)| response(name, section, text));
    let to_head = TO_HEAD
        .iter()
        .map(|(name, section, text)| same(name, section, "HEAD / HTTP/1.1\nHost: a\n\n").answer(text));
    let useless =
        UNUSABLE.iter().map(|(name, section, text)| unusable(name, section, text).http1_applications());
    let broken = CUT_OFF.iter().map(|(name, section, text)| cut_off(name, section, text));
    let statuses = STATUSES.iter().map(|code| {
        let text = format!("HTTP/1.1 {code} Some Reason\nContent-Length: 2\n\nok");
        response(&format!("status-{code}"), "RFC 9110, 15", &text)
    });
    kept.chain(to_head).chain(useless).chain(broken).chain(statuses).chain(closing()).chain(timed()).collect()
}

/// Responses that end with their connection.
fn closing() -> [Exchange; 6] {
    let get = "GET / HTTP/1.1\nHost: a\n\n";
    let latin = b"HTTP/1.1 200 gr\xfcn\r\nX-A: gr\xfcn \x80\xff\r\nContent-Length: 2\r\n\r\nok";
    [
        same("body-until-close", "RFC 9112, 6.3", get).answer_and_close("HTTP/1.1 200 OK\nX-A: 1\n\nhello"),
        same("body-until-announced-close", "RFC 9112, 9.6", get)
            .answer_and_close("HTTP/1.1 200 OK\nConnection: close\n\nhello"),
        same("body-until-close-empty", "RFC 9112, 6.3", get).answer_and_close("HTTP/1.1 200 OK\nX-A: 1\n\n"),
        same("body-until-close-of-1.0", "RFC 9112, 6.3", get).answer_and_close("HTTP/1.0 200 OK\n\nhello"),
        // A reset is no end: it is not known whether anything is missing.
        cut_off("body-until-reset", "RFC 9112, 8", "")
            .application([vec![
                until(Until::Complete),
                head("HTTP/1.1 200 OK\n\nhello"),
                Step::Wait("half"),
                Step::Reset,
            ]])
            .caller([head(get), until(Until::Body(5)), Step::Mark("half"), until(Until::Complete)])
            .http1_applications(),
        response("response-latin-1", "RFC 9110, 5.5", "").answer_bytes(latin.to_vec()),
    ]
}

/// Responses that come in pieces: each arrives before the next is sent.
fn timed() -> [Exchange; 6] {
    let get = || Step::Head(wire("GET / HTTP/1.1\nHost: a\n\n"));
    let complete = || until(Until::Complete);
    let in_turns = |name, section, opening: &str, first: &str, second: &str| {
        steps(
            name,
            section,
            [
                get(),
                until(Until::Head),
                Step::Mark("head"),
                until(Until::Body(2)),
                Step::Mark("two"),
                complete(),
            ],
        )
        .application([vec![
            complete(),
            head(opening),
            Step::Wait("head"),
            bytes(first),
            Step::Wait("two"),
            bytes(second),
        ]])
    };
    let chunked = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n";
    [
        in_turns("body-in-pieces-of-chunks", "RFC 9112, 7.1", chunked, "2\nab\n", "2\ncd\n0\n\n"),
        in_turns(
            "body-in-pieces-of-length",
            "RFC 9112, 6.2",
            "HTTP/1.1 200 OK\nContent-Length: 4\n\n",
            "ab",
            "cd",
        ),
        in_turns("trailers-later", "RFC 9110, 6.5", chunked, "2\nab\n", "0\nX-Sum: 1\n\n"),
        steps("response-head-in-pieces", "RFC 9112, 2.1", [get(), complete()])
            .application([vec![
                complete(),
                head("HTTP/1.1 200 OK\nContent-"),
                bytes("Length: 2\n\no"),
                bytes("k"),
            ]])
            .http1_applications(),
        // The caller goes away: the application hears of it.
        steps("caller-gone", "RFC 9112, 9.5", [get(), until(Until::Body(2)), Step::Close])
            .application([vec![
                complete(),
                head(chunked),
                bytes("2\nab\n"),
                until(Until::Closed),
                Step::Close,
            ]])
            .caller_closes()
            .alone(),
        // The application hears of it the sooner, the more it sends.
        steps(
            "caller-gone-while-more-is-sent",
            "RFC 9112, 9.5",
            [get(), until(Until::Body(2)), Step::Mark("go on"), Step::Close],
        )
        .application([[
            vec![complete(), head(chunked), bytes("2\nab\n"), Step::Wait("go on")],
            vec![Step::Bytes(wire(&format!("10000\n{}\n", "a".repeat(65536)))); 64],
            vec![until(Until::Closed), Step::Close],
        ]
        .concat()])
        .alone(),
    ]
}
