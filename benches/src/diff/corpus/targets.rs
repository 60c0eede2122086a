//! Methods, targets and versions (RFC 9110, section 9; RFC 9112, section 3).

use super::{
    super::exchange::{Exchange, Until, bytes, head, refused, same, until, wire},
    Row, bad_meanings, bad_requests,
};

/// Targets that arrive byte for byte.
#[rustfmt::skip]
const TARGETS: &[Row] = &[
    ("target-root", "RFC 9112, 3.2.1", "/"),
    ("target-query", "RFC 9112, 3.2.1", "/where?q=now"),
    ("target-empty-query", "RFC 9112, 3.2.1", "/?"),
    ("target-empty-query-below", "RFC 9112, 3.2.1", "/a?"),
    ("target-two-slashes", "RFC 3986, 3.3", "//"),
    ("target-empty-segments", "RFC 3986, 3.3", "//a///b//"),
    ("target-dot-segments", "RFC 3986, 5.2.4", "/a/./b/../c"),
    ("target-dots-above-root", "RFC 3986, 5.2.4", "/../../etc/passwd"),
    ("target-dots-at-the-end", "RFC 3986, 5.2.4", "/a/.."),
    ("target-encoded-slash", "RFC 3986, 2.2", "/a%2Fb"),
    ("target-encoded-slash-lower", "RFC 3986, 6.2.2.1", "/a%2fb"),
    ("target-encoded-dots", "RFC 3986, 6.2.2.2", "/%2e%2E/a"),
    ("target-encoded-letter", "RFC 3986, 6.2.2.2", "/%41%7e"),
    ("target-encoded-percent", "RFC 3986, 2.4", "/%2541"),
    ("target-encoded-nul", "RFC 3986, 2.1", "/a%00b"),
    ("target-encoded-line-end", "RFC 3986, 2.1", "/a%0d%0ab?c=%0d%0ad"),
    ("target-bad-encoding", "RFC 3986, 2.1", "/100%/%zz/%4"),
    ("target-parameters", "RFC 3986, 3.3", "/a;v=1.2/b;w,x=1"),
    ("target-sub-delimiters", "RFC 3986, 2.2", "/!$&'()*+,;=:@-._~"),
    ("target-colon-and-at", "RFC 3986, 3.3", "/a:b@c:80/"),
    ("target-looks-absolute", "RFC 9112, 3.2.1", "/http://elsewhere.example/"),
    ("target-backslash", "RFC 3986, 2", "/a\\..\\b"),
    ("target-braces", "RFC 3986, 2", "/{a}|[b]^c"),
    ("target-quotes", "RFC 3986, 2", "/\"a\"'b'"),
    ("target-utf-8", "RFC 3986, 2.5", "/straße/日本?q=ü"),
    ("target-query-delimiters", "RFC 3986, 3.4", "/?a?b/c:d@e"),
    ("target-query-repeated", "RFC 3986, 3.4", "/?a=1&a=2&&b&=c;d"),
    ("target-query-plus-and-space", "RFC 3986, 3.4", "/?q=a+b%20c%2Bd"),
    ("target-query-brackets", "RFC 3986, 3.4", "/?filter[a]={'b':[1]}"),
    ("target-query-url", "RFC 3986, 3.4", "/?u=https://a.example/b?c=d"),
];

/// Methods that arrive as they are.
#[rustfmt::skip]
const METHODS: &[Row] = &[
    ("method-post", "RFC 9110, 9.3.3", "POST"),
    ("method-put", "RFC 9110, 9.3.4", "PUT"),
    ("method-delete", "RFC 9110, 9.3.5", "DELETE"),
    ("method-options", "RFC 9110, 9.3.7", "OPTIONS"),
    ("method-trace", "RFC 9110, 9.3.8", "TRACE"),
    ("method-patch", "RFC 5789", "PATCH"),
    ("method-propfind", "RFC 4918, 9.1", "PROPFIND"),
    ("method-with-hyphen", "RFC 9110, 9.1", "M-SEARCH"),
    ("method-lower-case", "RFC 9110, 9.1", "get"),
    ("method-mixed-case", "RFC 9110, 9.1", "Post"),
    ("method-all-characters", "RFC 9110, 5.6.2", "!#$%&'*+-.^_`|~09Az"),
    ("method-long", "RFC 9110, 9.1", "BASELINE-CONTROL-AND-SOMETHING-MORE-THAN-THAT"),
    ("method-of-http2", "RFC 9113, 3.4", "PRIOR"),
];

/// The absolute form arrives as what it stands for.
#[rustfmt::skip]
const ABSOLUTE: &[Row] = &[
    ("absolute", "RFC 9112, 3.2.2", "GET http://example.com/a?b HTTP/1.1\nHost: example.com\n\n"),
    ("absolute-without-path", "RFC 9112, 3.2.1", "GET http://example.com HTTP/1.1\nHost: example.com\n\n"),
    ("absolute-with-query-alone", "RFC 9112, 3.2.1", "GET http://example.com?a HTTP/1.1\nHost: example.com\n\n"),
    ("absolute-with-port", "RFC 9112, 3.2.2", "GET http://example.com:8080/ HTTP/1.1\nHost: example.com:8080\n\n"),
    ("absolute-odd-path", "RFC 9112, 3.2.2", "GET http://example.com//a/../%2F HTTP/1.1\nHost: example.com\n\n"),
    ("absolute-options", "RFC 9112, 3.2.4", "OPTIONS http://example.com HTTP/1.1\nHost: example.com\n\n"),
];

/// Start lines that are not valid.
#[rustfmt::skip]
const BAD: &[Row] = &[
    ("target-missing", "RFC 9112, 3", "GET HTTP/1.1\nHost: example.com\n\n"),
    ("target-of-spaces", "RFC 9112, 3", "GET  HTTP/1.1\nHost: example.com\n\n"),
    ("target-with-tab", "RFC 9112, 3.2", "GET /a\tb HTTP/1.1\nHost: example.com\n\n"),
    ("target-with-nul", "RFC 9112, 3.2", "GET /a\0b HTTP/1.1\nHost: example.com\n\n"),
    ("target-with-control", "RFC 9112, 3.2", "GET /a\u{1}b HTTP/1.1\nHost: example.com\n\n"),
    ("target-with-delete", "RFC 9112, 3.2", "GET /a\u{7f}b HTTP/1.1\nHost: example.com\n\n"),
    ("target-with-cr", "RFC 9112, 2.2", "GET /a\rb HTTP/1.1\nHost: example.com\n\n"),
    ("method-empty", "RFC 9112, 3.1", " / HTTP/1.1\nHost: example.com\n\n"),
    ("method-with-at", "RFC 9110, 9.1", "G@T / HTTP/1.1\nHost: example.com\n\n"),
    ("method-with-parenthesis", "RFC 9110, 9.1", "GET( / HTTP/1.1\nHost: example.com\n\n"),
    ("method-with-colon", "RFC 9110, 9.1", "GET: / HTTP/1.1\nHost: example.com\n\n"),
    ("method-with-nul", "RFC 9110, 9.1", "G\0T / HTTP/1.1\nHost: example.com\n\n"),
    ("start-with-space", "RFC 9112, 3", " GET / HTTP/1.1\nHost: example.com\n\n"),
    ("start-with-tabs", "RFC 9112, 3", "GET\t/\tHTTP/1.1\nHost: example.com\n\n"),
    ("start-with-two-spaces", "RFC 9112, 3", "GET / HTTP/1.1 \nHost: example.com\n\n"),
    ("start-with-bare-lf", "RFC 9112, 2.2", "GET / HTTP/1.1␊Host: example.com\n\n"),
    ("start-with-bare-cr", "RFC 9112, 2.2", "GET / HTTP/1.1\rHost: example.com\n\n"),
];

/// Versions that are not spoken here, or are none.
#[rustfmt::skip]
const VERSIONS: &[Row] = &[
    ("target-with-space", "RFC 9112, 3.2", "GET /a b HTTP/1.1\nHost: example.com\n\n"),
    ("version-lower-case", "RFC 9112, 2.3", "GET / http/1.1\nHost: example.com\n\n"),
    ("version-without-dot", "RFC 9112, 2.3", "GET / HTTP/11\nHost: example.com\n\n"),
    ("version-with-more-digits", "RFC 9112, 2.3", "GET / HTTP/1.10\nHost: example.com\n\n"),
    ("version-with-zero", "RFC 9112, 2.3", "GET / HTTP/01.1\nHost: example.com\n\n"),
    ("version-of-something-else", "RFC 9112, 2.3", "GET / HTCPCP/1.1\nHost: example.com\n\n"),
    ("version-missing", "RFC 9112, 3", "GET /\nHost: example.com\n\n"),
    ("version-2", "RFC 9110, 2.5", "GET / HTTP/2.0\nHost: example.com\n\n"),
    ("version-3", "RFC 9110, 2.5", "GET / HTTP/3.0\nHost: example.com\n\n"),
    ("version-0.9", "RFC 9110, 2.5", "GET / HTTP/0.9\nHost: example.com\n\n"),
    ("version-1.2", "RFC 9110, 2.5", "GET / HTTP/1.2\nHost: example.com\n\n"),
];

/// Targets that mean nothing here.
#[rustfmt::skip]
const MEANINGLESS: &[Row] = &[
    ("target-with-fragment", "RFC 9112, 3.2", "GET /a#b HTTP/1.1\nHost: example.com\n\n"),
    ("target-with-angle-brackets", "RFC 9112, 3.2", "GET /<a> HTTP/1.1\nHost: example.com\n\n"),
    ("target-with-backtick", "RFC 9112, 3.2", "GET /`a` HTTP/1.1\nHost: example.com\n\n"),
    ("target-relative", "RFC 9112, 3.2.1", "GET a/b HTTP/1.1\nHost: example.com\n\n"),
    ("target-of-connect-for-get", "RFC 9112, 3.2.3", "GET example.com:80 HTTP/1.1\nHost: example.com:80\n\n"),
    ("target-asterisk-for-get", "RFC 9112, 3.2.4", "GET * HTTP/1.1\nHost: example.com\n\n"),
    ("target-of-another-scheme", "RFC 9112, 3.2.2", "GET ftp://example.com/ HTTP/1.1\nHost: example.com\n\n"),
    ("absolute-against-host", "RFC 9112, 3.2.2", "GET http://example.com/ HTTP/1.1\nHost: elsewhere.example\n\n"),
    ("absolute-against-port", "RFC 9112, 3.2.2", "GET http://example.com:8080/ HTTP/1.1\nHost: example.com:9090\n\n"),
    ("absolute-without-host", "RFC 9112, 3.2", "GET http://example.com/ HTTP/1.1\n\n"),
    ("absolute-with-userinfo", "RFC 9110, 4.2.4", "GET http://user:secret@example.com/ HTTP/1.1\nHost: example.com\n\n"),
    ("absolute-without-authority", "RFC 9110, 4.2.1", "GET http:///a HTTP/1.1\nHost: example.com\n\n"),
];

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let targets = TARGETS.iter().map(|(name, section, target)| {
        same(name, section, &format!("GET {target} HTTP/1.1\nHost: example.com\n\n"))
    });
    let methods = METHODS.iter().map(|(name, section, method)| {
        same(name, section, &format!("{method} /a HTTP/1.1\nHost: example.com\n\n"))
    });
    let absolute = ABSOLUTE.iter().map(|(name, section, request)| same(name, section, request));
    let long = |length: usize| format!("GET /{} HTTP/1.1\nHost: example.com\n\n", "a/".repeat(length / 2));
    let versions =
        VERSIONS.iter().map(|(name, section, request)| refused(name, section, &[400, 505], wire(request)));
    let others = [
        same("target-asterisk", "RFC 9112, 3.2.4", "OPTIONS * HTTP/1.1\nHost: example.com\n\n"),
        same("target-long", "RFC 9112, 3", &long(8000)),
        same("target-longer", "RFC 9112, 3", &long(32 * 1024)),
        same("start-after-empty-lines", "RFC 9112, 2.2", "")
            .caller([bytes("\n\n"), head("GET / HTTP/1.1\nHost: example.com\n\n"), until(Until::Complete)])
            .http1_callers(),
    ];
    targets
        .chain(methods)
        .chain(absolute)
        .chain(bad_requests(BAD))
        .chain(versions)
        .chain(bad_meanings(MEANINGLESS))
        .chain(others)
        .collect()
}
