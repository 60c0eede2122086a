//! Fields of requests (RFC 9110, section 5; RFC 9112, section 5).

use super::{
    super::exchange::{Exchange, refused, same},
    Row, bad_meanings, bad_requests, numbered, with_fields,
};

/// Fields that arrive as they are.
#[rustfmt::skip]
const KEPT: &[Row] = &[
    ("field-case", "RFC 9110, 5.1", "X-CamelCase: a\nx-lower: b\nX-UPPER: c\nx-ODD-cAsE: d"),
    ("field-order", "RFC 9110, 5.3", "Z-Last: 1\nA-First: 2\nM-Middle: 3\nB-Second: 4"),
    ("field-repeated", "RFC 9110, 5.3", "X-A: 1\nX-A: 2\nX-A: 3"),
    ("field-repeated-apart", "RFC 9110, 5.3", "X-A: 1\nX-B: 2\nX-A: 3\nX-C: 4\nX-B: 5"),
    ("field-repeated-in-other-case", "RFC 9110, 5.1", "X-A: 1\nx-a: 2\nX-a: 3"),
    ("field-repeated-equal", "RFC 9110, 5.3", "X-A: 1\nX-A: 1"),
    ("field-list-in-one", "RFC 9110, 5.6.1", "X-A: 1, 2,3 ,4"),
    ("field-list-with-empty", "RFC 9110, 5.6.1", "X-A: ,a,,b,"),
    ("field-empty", "RFC 9110, 5.5", "X-A:"),
    ("field-empty-and-repeated", "RFC 9110, 5.5", "X-A:\nX-A: \nX-A: 1"),
    ("field-of-white-space", "RFC 9112, 5.1", "X-A:  \t \nX-B: 1"),
    ("field-without-space", "RFC 9112, 5.1", "X-A:1"),
    ("field-with-spaces-around", "RFC 9112, 5.1", "X-A: \t 1 \t "),
    ("field-with-spaces-inside", "RFC 9110, 5.5", "X-A: a  b\tc   d"),
    ("field-with-colons", "RFC 9110, 5.5", "X-A: a:b::c:"),
    ("field-quoted", "RFC 9110, 5.6.4", "X-A: \"a, \\\"b\\\"; c\", d=\"\\\\\""),
    ("field-comment", "RFC 9110, 5.6.5", "User-Agent: a/1 (b; (c) \\) d) e"),
    ("field-utf-8", "RFC 9110, 5.5", "X-A: grün 日本 €"),
    ("field-all-printable", "RFC 9110, 5.5", "X-A: !\"#$%&'()*+,-./0:;<=>?@A[\\]^_`a{|}~"),
    ("field-name-all-characters", "RFC 9110, 5.6.2", "!#$%&'*+-.^_`|~09aZ: 1"),
    ("field-name-with-underscore", "RFC 9110, 5.1", "x_under_score: 1\nX-Under-Score: 2"),
    ("field-name-of-digits", "RFC 9110, 5.1", "123: 456"),
    ("field-name-of-one", "RFC 9110, 5.1", "a: b\nA: c\n1: d"),
    ("field-cookie", "RFC 6265, 4.2", "Cookie: a=1; b=\"2\"; c=;d"),
    ("field-authorization", "RFC 9110, 11.6.2", "Authorization: Basic YTpi\nProxy-Authorization: Basic YzpkCg=="),
    ("field-accept", "RFC 9110, 12.5.1", "Accept: text/html;q=0.9, */*;q=0.1\nAccept-Encoding: gzip, br, identity;q=0"),
    ("field-conditional", "RFC 9110, 13.1", "If-None-Match: W/\"a\", \"b,c\"\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"),
    ("field-range", "RFC 9110, 14.2", "Range: bytes=0-0,-1\nIf-Range: \"a\""),
    ("field-date", "RFC 9110, 6.6.1", "Date: Sun, 06 Nov 1994 08:49:37 GMT"),
    ("field-cache", "RFC 9111, 5.2", "Cache-Control: no-cache, max-age=0\nPragma: no-cache"),
    ("field-trace-context", "RFC 9110, 5.1", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\ntracestate: a=1,b=2"),
    ("field-early-data", "RFC 8470, 5.1", "Early-Data: 1"),
    ("field-priority", "RFC 9218, 5", "Priority: u=1, i"),
    ("field-forwarded", "RFC 7239, 4", "Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43"),
    ("field-x-forwarded", "RFC 7239, 1", "X-Forwarded-For: 192.0.2.60\nX-Forwarded-Proto: https\nX-Forwarded-Host: a.example"),
    ("field-via", "RFC 9110, 7.6.3", "Via: 1.0 fred, 1.1 p.example.net (a comment)"),
    ("field-like-pseudo", "RFC 9113, 8.3", "x-method: a\npath: /b\nscheme: c\nauthority: d\nstatus: 200"),
    ("field-content-without-content", "RFC 9110, 8.3", "Content-Type: text/plain; charset=\"utf-8\"\nContent-Encoding: gzip\nContent-Language: de, en"),
];

/// Host fields that arrive as they are.
#[rustfmt::skip]
const HOSTS: &[Row] = &[
    ("host-with-port", "RFC 9110, 7.2", "example.com:8080"),
    ("host-with-default-port", "RFC 9110, 7.2", "example.com:80"),
    ("host-in-upper-case", "RFC 9110, 4.2.3", "EXAMPLE.Com"),
    ("host-with-dot", "RFC 9110, 7.2", "example.com."),
    ("host-ipv4", "RFC 9110, 7.2", "192.0.2.1:81"),
    ("host-ipv6", "RFC 9110, 7.2", "[2001:db8::1]:8080"),
    ("host-of-one-label", "RFC 9110, 7.2", "a"),
    ("host-with-underscore", "RFC 3986, 3.2.2", "a_b.example.com"),
    ("host-with-hyphens", "RFC 3986, 3.2.2", "-a-.example.com"),
];

/// Header sections that are not valid.
#[rustfmt::skip]
const BAD: &[Row] = &[
    ("field-folded", "RFC 9112, 5.2", "GET / HTTP/1.1\nHost: example.com\nX-A: b\n c\n\n"),
    ("field-folded-with-tab", "RFC 9112, 5.2", "GET / HTTP/1.1\nHost: example.com\nX-A: b\n\tc\n\n"),
    ("field-folded-empty", "RFC 9112, 5.2", "GET / HTTP/1.1\nHost: example.com\nX-A:\n b\n\n"),
    ("field-folded-last", "RFC 9112, 5.2", "GET / HTTP/1.1\nHost: example.com\nX-A: b\n \n\n"),
    ("field-space-before-colon", "RFC 9112, 5.1", "GET / HTTP/1.1\nHost: example.com\nX-A : b\n\n"),
    ("field-tab-before-colon", "RFC 9112, 5.1", "GET / HTTP/1.1\nHost: example.com\nX-A\t: b\n\n"),
    ("field-space-at-first", "RFC 9112, 2.2", "GET / HTTP/1.1\n Host: example.com\nX-A: b\n\n"),
    ("field-without-colon", "RFC 9112, 5", "GET / HTTP/1.1\nHost: example.com\nX-A\n\n"),
    ("field-without-name", "RFC 9112, 5", "GET / HTTP/1.1\nHost: example.com\n: b\n\n"),
    ("field-name-with-space", "RFC 9110, 5.1", "GET / HTTP/1.1\nHost: example.com\nX A: b\n\n"),
    ("field-name-with-parenthesis", "RFC 9110, 5.1", "GET / HTTP/1.1\nHost: example.com\nX(A: b\n\n"),
    ("field-name-with-slash", "RFC 9110, 5.1", "GET / HTTP/1.1\nHost: example.com\nX/A: b\n\n"),
    ("field-name-with-at", "RFC 9110, 5.1", "GET / HTTP/1.1\nHost: example.com\nX@A: b\n\n"),
    ("field-name-quoted", "RFC 9110, 5.1", "GET / HTTP/1.1\nHost: example.com\n\"X-A\": b\n\n"),
    ("field-name-not-ascii", "RFC 9110, 5.1", "GET / HTTP/1.1\nHost: example.com\nX-Ä: b\n\n"),
    ("field-name-with-nul", "RFC 9110, 5.1", "GET / HTTP/1.1\nHost: example.com\nX-\0A: b\n\n"),
    ("field-name-with-control", "RFC 9110, 5.1", "GET / HTTP/1.1\nHost: example.com\nX-\u{b}A: b\n\n"),
    ("field-with-nul", "RFC 9110, 5.5", "GET / HTTP/1.1\nHost: example.com\nX-A: b\0c\n\n"),
    ("field-with-cr", "RFC 9110, 5.5", "GET / HTTP/1.1\nHost: example.com\nX-A: b\rc\n\n"),
    ("field-with-cr-at-the-end", "RFC 9110, 5.5", "GET / HTTP/1.1\nHost: example.com\nX-A: b\r\n\n"),
    ("field-with-bare-lf", "RFC 9112, 2.2", "GET / HTTP/1.1\nHost: example.com\nX-A: b␊X-B: c\n\n"),
    ("field-with-control", "RFC 9110, 5.5", "GET / HTTP/1.1\nHost: example.com\nX-A: b\u{1}c\n\n"),
    ("field-with-escape", "RFC 9110, 5.5", "GET / HTTP/1.1\nHost: example.com\nX-A: b\u{1b}[31mc\n\n"),
    ("field-with-delete", "RFC 9110, 5.5", "GET / HTTP/1.1\nHost: example.com\nX-A: b\u{7f}c\n\n"),
    ("section-ended-by-lf", "RFC 9112, 2.2", "GET / HTTP/1.1\nHost: example.com␊␊"),
    ("host-with-nul", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: example\0.com\n\n"),
];

/// Hosts that are not valid, or not one.
#[rustfmt::skip]
const HOSTLESS: &[Row] = &[
    ("host-missing", "RFC 9112, 3.2", "GET / HTTP/1.1\nX-A: b\n\n"),
    ("host-twice", "RFC 9112, 3.2", "GET / HTTP/1.1\nHost: example.com\nHost: elsewhere.example\n\n"),
    ("host-twice-equal", "RFC 9112, 3.2", "GET / HTTP/1.1\nHost: example.com\nHost: example.com\n\n"),
    ("host-list", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: example.com, elsewhere.example\n\n"),
    ("host-with-space", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: example com\n\n"),
    ("host-with-path", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: example.com/a\n\n"),
    ("host-with-query", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: example.com?a\n\n"),
    ("host-with-fragment", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: example.com#a\n\n"),
    ("host-with-userinfo", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: user@example.com\n\n"),
    ("host-with-scheme", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: http://example.com\n\n"),
    ("host-with-letters-for-a-port", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: example.com:http\n\n"),
    ("host-with-two-ports", "RFC 9110, 7.2", "GET / HTTP/1.1\nHost: example.com:80:81\n\n"),
];

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let hosts = HOSTS
        .iter()
        .map(|(name, section, host)| same(name, section, &format!("GET / HTTP/1.1\nHost: {host}\n\n")));
    let many = numbered(0, 100);
    let long = |length: usize| {
        format!("GET / HTTP/1.1\nHost: example.com\nX-Long: {}\nX-After: 1\n\n", "v".repeat(length))
    };
    let latin = b"GET / HTTP/1.1\r\nHost: example.com\r\nX-A: gr\xfcn \x80\xff\r\nX-B: 1\r\n\r\n";
    let name =
        |byte: u8| [b"GET / HTTP/1.1\r\nHost: example.com\r\nX", &[byte][..], b"A: b\r\n\r\n"].concat();
    let others = [
        same("field-before-host", "RFC 9110, 5.3", "GET / HTTP/1.1\nX-A: 1\nHost: example.com\nX-B: 2\n\n"),
        same(
            "host-first-elsewhere-last",
            "RFC 9110, 7.2",
            "GET / HTTP/1.1\nX-A: 1\nX-B: 2\nhOsT: example.com\n\n",
        ),
        same("field-many", "RFC 9110, 5.4", &format!("GET / HTTP/1.1\nHost: example.com\n{many}\n")),
        same("field-long", "RFC 9110, 5.4", &long(8 * 1024)),
        same("field-longer", "RFC 9110, 5.4", &long(48 * 1024)),
        same("field-latin-1", "RFC 9110, 5.5", "").caller([]).sends(*latin),
        same(
            "field-cookies-apart",
            "RFC 6265, 5.4",
            "GET / HTTP/1.1\nHost: example.com\nCookie: a=1\nX-A: 1\nCookie: b=2\n\n",
        )
        .http1(),
        refused("field-name-with-high-byte", "RFC 9110, 5.1", &[400], name(0xff)),
        refused(
            "host-empty-and-another",
            "RFC 9112, 3.2",
            &[400],
            b"GET / HTTP/1.1\r\nHost:\r\nHost: a\r\n\r\n",
        )
        .may_stay(),
        refused("host-not-utf-8", "RFC 9110, 7.2", &[400], b"GET / HTTP/1.1\r\nHost: ex\xff.com\r\n\r\n")
            .may_stay(),
    ];
    with_fields(KEPT)
        .chain(hosts)
        .chain(bad_requests(BAD))
        .chain(bad_meanings(HOSTLESS))
        .chain(others)
        .collect()
}
