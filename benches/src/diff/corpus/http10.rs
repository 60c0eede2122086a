//! HTTP/1.0 on either side (RFC 9112, appendix C; RFC 9110, section 2.5).

use super::{
    super::exchange::{Exchange, Step, Until, head, response, same, steps, until},
    Row,
};

/// Requests of HTTP/1.0 that arrive as they are, but for their version.
#[rustfmt::skip]
const REQUESTS: &[Row] = &[
    ("http-1.0", "RFC 9112, 2.3", "GET /a?b HTTP/1.0\nHost: a\nX-A: 1\n\n"),
    ("http-1.0-without-host", "RFC 9112, 3.2", "GET /a HTTP/1.0\nX-A: 1\n\n"),
    ("http-1.0-with-body", "RFC 9112, 6.2", "POST / HTTP/1.0\nHost: a\nContent-Length: 5\n\nhello"),
    ("http-1.0-head", "RFC 9110, 9.3.2", "HEAD / HTTP/1.0\nHost: a\n\n"),
    ("http-1.0-kept", "RFC 9112, C.2.2", "GET / HTTP/1.0\nHost: a\nConnection: keep-alive\n\n"),
    ("http-1.0-names-a-field", "RFC 9110, 7.6.1", "GET / HTTP/1.0\nHost: a\nConnection: X-Hop\nX-Hop: 1\nX-A: 1\n\n"),
    ("http-1.0-upgrade", "RFC 9110, 7.8", "GET / HTTP/1.0\nHost: a\nConnection: upgrade\nUpgrade: foo\n\n"),
    ("http-1.0-expects", "RFC 9110, 10.1.1", "POST / HTTP/1.0\nHost: a\nExpect: 100-continue\nContent-Length: 5\n\nhello"),
    ("http-1.0-case-and-order", "RFC 9110, 5.3", "GET / HTTP/1.0\nZ: 1\nhOST: a\nX-CamelCase: 2\nx-camelcase: 3\nA: 4\n\n"),
];

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let requests =
        REQUESTS.iter().map(|(name, section, request)| same(name, section, request).http1_callers());
    requests.chain(others()).collect()
}

fn others() -> [Exchange; 8] {
    let get = "GET / HTTP/1.0\nHost: a\n\n";
    let complete = || until(Until::Complete);
    let answered = |name, section, text: &str| same(name, section, get).answer(text).http1_callers();
    let kept = "GET / HTTP/1.0\nHost: a\nConnection: keep-alive\n\n";
    let answer = "HTTP/1.1 200 OK\nConnection: keep-alive\nContent-Length: 2\n\nok";
    [
        answered(
            "http-1.0-gets-chunks",
            "RFC 9112, 7.1",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n",
        ),
        answered(
            "http-1.0-gets-trailers",
            "RFC 9112, 7.1.2",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\nX-A: 1\n\n",
        ),
        answered(
            "http-1.0-gets-hints",
            "RFC 9110, 15.2",
            "HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        ),
        same("http-1.0-gets-all-until-close", "RFC 9112, 6.3", get)
            .answer_and_close("HTTP/1.1 200 OK\nX-A: 1\n\nhello")
            .http1_callers(),
        // Kept for another request, where that was asked for.
        steps(
            "http-1.0-kept-for-another",
            "RFC 9112, C.2.2",
            [head(kept), complete(), head(kept), complete()],
        )
        .application([vec![complete(), head(answer)], vec![complete(), head(answer)]]),
        steps("http-1.0-half-closed", "RFC 9112, 9.6", [head(get), Step::Finish, complete()]),
        response("response-of-1.0", "RFC 9112, 2.3", "HTTP/1.0 200 OK\nX-A: 1\nContent-Length: 2\n\nok")
            .http1_applications(),
        response(
            "response-of-1.0-kept",
            "RFC 9112, C.2.2",
            "HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 2\n\nok",
        )
        .http1_applications(),
    ]
}
