//! What concerns one connection alone, and how connections are used (RFC 9110, section 7.6.1; RFC 9112, section 9).

use super::{
    super::exchange::{Exchange, OK, Step, Until, bytes, head, response, same, steps, until, wire},
    Row, with_fields,
};

/// Fields of requests that are dropped, or are the proxy's own.
#[rustfmt::skip]
const REQUESTS: &[Row] = &[
    ("connection-close", "RFC 9112, 9.6", "Connection: close\nX-A: 1"),
    ("connection-keep-alive", "RFC 9112, 9.3", "Connection: keep-alive\nKeep-Alive: timeout=5, max=10\nX-A: 1"),
    ("connection-in-odd-case", "RFC 9110, 7.6.1", "CONNECTION: Close\nX-A: 1"),
    ("connection-names-a-field", "RFC 9110, 7.6.1", "Connection: X-Hop\nX-Hop: 1\nX-A: 1"),
    ("connection-names-in-other-case", "RFC 9110, 7.6.1", "Connection: x-hOP\nX-Hop: 1\nX-A: 1"),
    ("connection-names-several", "RFC 9110, 7.6.1", "X-Hop: 1\nConnection: keep-alive, X-Hop ,\tX-Two\nX-Two: 2\nX-Hop: 3\nX-A: 1"),
    ("connection-twice", "RFC 9110, 7.6.1", "Connection: X-Hop\nX-Hop: 1\nConnection: X-Two\nX-Two: 2\nX-A: 1"),
    ("connection-names-what-is-not-there", "RFC 9110, 7.6.1", "Connection: X-Hop\nX-A: 1"),
    ("connection-with-empty-elements", "RFC 9110, 5.6.1", "Connection: ,, close ,\nX-A: 1"),
    ("connection-empty", "RFC 9110, 7.6.1", "Connection:\nX-A: 1"),
    ("connection-names-host", "RFC 9110, 7.6.1", "Connection: Host\nX-A: 1"),
    ("connection-names-cookie", "RFC 9110, 7.6.1", "Connection: Cookie\nCookie: a=1\nX-A: 1"),
    ("connection-names-itself", "RFC 9110, 7.6.1", "Connection: Connection\nX-A: 1"),
    ("proxy-connection", "RFC 9110, 7.6.1", "Proxy-Connection: keep-alive\nX-A: 1"),
    ("te-trailers", "RFC 9110, 10.1.4", "TE: trailers\nConnection: TE\nX-A: 1"),
    ("te-coding", "RFC 9110, 10.1.4", "TE: gzip;q=0.5, deflate\nConnection: TE\nX-A: 1"),
    ("te-both", "RFC 9110, 10.1.4", "TE: gzip, trailers\nConnection: TE\nX-A: 1"),
    ("te-not-named", "RFC 9110, 10.1.4", "TE: deflate\nX-A: 1"),
    ("upgrade-not-named", "RFC 9110, 7.8", "Upgrade: websocket\nX-A: 1"),
    ("connection-upgrade-without-one", "RFC 9110, 7.8", "Connection: upgrade\nX-A: 1"),
];

/// Fields of responses that are dropped, or are the proxy's own.
#[rustfmt::skip]
const RESPONSES: &[Row] = &[
    ("response-connection-keep-alive", "RFC 9112, 9.3", "Connection: keep-alive\nKeep-Alive: timeout=5\nX-A: 1"),
    ("response-connection-names", "RFC 9110, 7.6.1", "Connection: X-Hop\nX-Hop: 1\nX-A: 1"),
    ("response-proxy-connection", "RFC 9110, 7.6.1", "Proxy-Connection: keep-alive\nX-A: 1"),
    ("response-upgrade-offered", "RFC 9110, 7.8", "Connection: upgrade\nUpgrade: h2c\nX-A: 1"),
];

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let responses = RESPONSES.iter().map(|(name, section, fields)| {
        response(name, section, &format!("HTTP/1.1 200 OK\n{fields}\nContent-Length: 2\n\nok"))
    });
    with_fields(REQUESTS).chain(responses).chain(use_of_connections()).collect()
}

fn use_of_connections() -> [Exchange; 11] {
    let get = "GET / HTTP/1.1\nHost: example.com\n\n";
    let post = "POST / HTTP/1.1\nHost: example.com\nContent-Length: 3\n\nabc";
    let complete = || until(Until::Complete);
    let answer = |body: &str| {
        vec![complete(), head(&format!("HTTP/1.1 200 OK\nContent-Length: {}\n\n{body}", body.len()))]
    };
    let two = |name, first: &str, second: &str| {
        steps(name, "RFC 9112, 9.3", [head(first), complete(), head(second), complete()])
            .application([answer("one"), answer("three")])
    };
    [
        two("kept-for-another", get, get),
        two("kept-after-a-body", post, get),
        two(
            "kept-after-chunks",
            "POST / HTTP/1.1\nHost: example.com\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n",
            post,
        ),
        two("kept-after-head", get, post),
        steps(
            "pipelined",
            "RFC 9112, 9.3.2",
            [head("GET /1 HTTP/1.1\nHost: a\n\n"), head("GET /2 HTTP/1.1\nHost: a\n\n"), complete()],
        )
        .application([answer("one"), answer("two")]),
        steps("pipelined-bodies", "RFC 9112, 9.3.2", [head(post), head(post), head(get), complete()])
            .application([answer("one"), answer("two"), answer("three")]),
        // An empty line between requests is no request.
        steps(
            "pipelined-with-empty-line",
            "RFC 9112, 2.2",
            [head(post), bytes("\n"), complete(), head(get), complete()],
        )
        .application([answer("one"), answer("two")]),
        steps("half-closed", "RFC 9112, 9.6", [head(get), Step::Finish, complete()]),
        steps("half-closed-after-a-body", "RFC 9112, 9.6", [head(post), Step::Finish, complete()]),
        same("closed-by-the-application", "RFC 9112, 9.6", get)
            .answer_and_close("HTTP/1.1 200 OK\nConnection: close\nContent-Length: 2\n\nok"),
        same("closed-without-a-word", "RFC 9112, 9.6", get)
            .application([vec![complete(), Step::Head(wire(OK)), Step::Close]])
            .alone(),
    ]
}
