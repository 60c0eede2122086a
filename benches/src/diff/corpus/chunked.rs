//! Chunks and trailers of requests (RFC 9112, section 7).

use super::{
    super::exchange::{Exchange, Step, Until, broken, bytes, head, refused, same, steps, until, wire},
    Row,
};

/// Bodies that arrive as they are; each text follows the head.
#[rustfmt::skip]
const BODIES: &[Row] = &[
    ("chunks", "RFC 9112, 7.1", "5\nhello\n0\n\n"),
    ("chunks-none", "RFC 9112, 7.1", "0\n\n"),
    ("chunks-several", "RFC 9112, 7.1", "2\nhe\n1\nl\n2\nlo\n0\n\n"),
    ("chunks-hexadecimal", "RFC 9112, 7.1", "A\nhellohello\na\nworldworld\n0\n\n"),
    ("chunks-leading-zeros", "RFC 9112, 7.1", "005\nhello\n000\n\n"),
    ("chunks-extension", "RFC 9112, 7.1.1", "5;a=b\nhello\n0;c\n\n"),
    ("chunks-extension-quoted", "RFC 9112, 7.1.1", "5;a=\"b;c \\\" d\"\nhello\n0\n\n"),
    ("chunks-extension-spaced", "RFC 9112, 7.1.1", "5 ; a = b ;c\nhello\n0\n\n"),
    ("chunks-extensions", "RFC 9112, 7.1.1", "5;a;b=c;d=\"e\"\nhello\n0\n\n"),
    ("chunks-with-line-ends", "RFC 9112, 7.1", "6\na\nb\n\n0\n\n"),
    ("chunks-with-chunks-inside", "RFC 9112, 7.1", "f\n5\nhello\n0\n\n\n0\n\n"),
    ("trailers", "RFC 9112, 7.1.2", "5\nhello\n0\nX-Sum: 1\n\n"),
    ("trailers-several", "RFC 9110, 6.5", "5\nhello\n0\nX-B: 1\nX-A: 2\nX-B: 3\n\n"),
    ("trailers-case", "RFC 9110, 5.1", "5\nhello\n0\nX-CamelCase: 1\nx-lower: 2\n\n"),
    ("trailers-empty-value", "RFC 9110, 6.5", "5\nhello\n0\nX-A:\n\n"),
    ("trailers-without-body", "RFC 9110, 6.5", "0\nX-A: 1\n\n"),
    ("trailers-of-grpc", "RFC 9110, 6.5", "5\nhello\n0\ngrpc-status: 0\ngrpc-message: a%20b\n\n"),
];

/// Bodies that turn out to be invalid.
#[rustfmt::skip]
const BROKEN: &[Row] = &[
    ("chunk-size-empty", "RFC 9112, 7.1", "\nhello\n0\n\n"),
    ("chunk-size-of-letters", "RFC 9112, 7.1", "g\nhello\n0\n\n"),
    ("chunk-size-prefixed", "RFC 9112, 7.1", "0x5\nhello\n0\n\n"),
    ("chunk-size-signed", "RFC 9112, 7.1", "+5\nhello\n0\n\n"),
    ("chunk-size-negative", "RFC 9112, 7.1", "-5\nhello\n0\n\n"),
    ("chunk-size-after-space", "RFC 9112, 7.1", " 5\nhello\n0\n\n"),
    ("chunk-size-with-underscore", "RFC 9112, 7.1", "0_5\nhello\n0\n\n"),
    ("chunk-size-over-64-bits", "RFC 9112, 7.1", "10000000000000005\nhello\n0\n\n"),
    ("chunk-size-of-many-digits", "RFC 9112, 7.1", "fffffffffffffffffffffffffffffffff\nhello\n0\n\n"),
    ("chunk-size-ended-by-lf", "RFC 9112, 7.1", "5␊hello\n0\n\n"),
    ("chunk-size-with-cr", "RFC 9112, 7.1", "5\r\rhello\n0\n\n"),
    ("chunk-extension-with-lf", "RFC 9112, 7.1.1", "5;a␊hello\n0\n\n"),
    ("chunk-extension-with-cr", "RFC 9112, 7.1.1", "5;a\rb\nhello\n0\n\n"),
    ("chunk-extension-with-nul", "RFC 9112, 7.1.1", "5;a\0b\nhello\n0\n\n"),
    ("chunk-without-end", "RFC 9112, 7.1", "5\nhello0\n\n"),
    ("chunk-ended-by-lf", "RFC 9112, 7.1", "5\nhello␊0\n\n"),
    ("chunk-ended-by-cr", "RFC 9112, 7.1", "5\nhello\r0\n\n"),
    ("chunk-longer-than-it-says", "RFC 9112, 7.1", "5\nhello!\n0\n\n"),
    ("chunk-shorter-than-it-says", "RFC 9112, 7.1", "7\nhello\n0\n\n"),
    ("last-chunk-ended-by-lf", "RFC 9112, 7.1", "5\nhello\n0␊␊"),
    ("trailer-folded", "RFC 9112, 5.2", "5\nhello\n0\nX-A: b\n c\n\n"),
    ("trailer-without-colon", "RFC 9112, 5", "5\nhello\n0\nX-A\n\n"),
    ("trailer-with-space-before-colon", "RFC 9112, 5.1", "5\nhello\n0\nX-A : b\n\n"),
    ("trailer-with-nul", "RFC 9110, 5.5", "5\nhello\n0\nX-A: b\0c\n\n"),
    ("trailer-ended-by-lf", "RFC 9112, 2.2", "5\nhello\n0\nX-A: b␊\n\n"),
];

/// Transfer codings that are not known, or not valid.
#[rustfmt::skip]
const CODINGS: &[Row] = &[
    ("coding-unknown", "RFC 9112, 6.1", "Transfer-Encoding: gzip"),
    ("coding-before-chunked", "RFC 9112, 6.1", "Transfer-Encoding: gzip, chunked"),
    ("coding-after-chunked", "RFC 9112, 6.3", "Transfer-Encoding: chunked, gzip"),
    ("coding-identity", "RFC 9112, 6.1", "Transfer-Encoding: identity"),
    ("coding-identity-and-chunked", "RFC 9112, 6.1", "Transfer-Encoding: identity\nTransfer-Encoding: chunked"),
    ("coding-chunked-and-identity", "RFC 9112, 6.3", "Transfer-Encoding: chunked\nTransfer-Encoding: identity"),
    ("coding-chunked-twice", "RFC 9112, 6.1", "Transfer-Encoding: chunked, chunked"),
    ("coding-chunked-on-two-lines", "RFC 9112, 6.1", "Transfer-Encoding: chunked\nTransfer-Encoding: chunked"),
    ("coding-like-chunked", "RFC 9112, 6.1", "Transfer-Encoding: xchunked"),
    ("coding-longer-than-chunked", "RFC 9112, 6.1", "Transfer-Encoding: chunkedx"),
    ("coding-quoted", "RFC 9112, 6.1", "Transfer-Encoding: \"chunked\""),
    ("coding-with-parameter", "RFC 9112, 7", "Transfer-Encoding: chunked;q=1"),
    ("coding-with-vertical-tab", "RFC 9112, 6.1", "Transfer-Encoding: \u{b}chunked"),
    ("coding-with-control", "RFC 9112, 6.1", "Transfer-Encoding: chunked\u{1}"),
    ("coding-empty", "RFC 9112, 6.1", "Transfer-Encoding:"),
    ("coding-before-space", "RFC 9112, 6.1", "Transfer-Encoding: chunked x"),
];

const HEAD: &str = "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n";

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let bodies = BODIES.iter().map(|(name, section, body)| same(name, section, &format!("{HEAD}{body}")));
    let invalid = BROKEN.iter().map(|(name, section, body)| broken(name, section, &format!("{HEAD}{body}")));
    let codings = CODINGS.iter().map(|(name, section, fields)| {
        let request = format!("POST / HTTP/1.1\nHost: a\n{fields}\n\n5\nhello\n0\n\n");
        refused(name, section, &[400, 501], wire(&request))
    });
    bodies.chain(invalid).chain(codings).chain(others()).collect()
}

fn others() -> [Exchange; 8] {
    let complete = || until(Until::Complete);
    let coded = |name, coding: &str| {
        let request = format!("POST / HTTP/1.1\nHost: a\n{coding}\n\n5\nhello\n0\n\n");
        same(name, "RFC 9112, 6.1", &request)
    };
    let many = "1\na\n1\nb\n".repeat(250);
    [
        coded("chunked-in-odd-case", "Transfer-Encoding: cHuNkEd"),
        coded("chunked-without-space", "Transfer-Encoding:chunked"),
        coded("chunked-named-in-odd-case", "tRANSFER-eNCODING: chunked"),
        same("chunks-many", "RFC 9112, 7.1", &format!("{HEAD}{many}0\n\n")),
        same("trailers-announced", "RFC 9110, 6.6.2", "").caller([
            head("POST / HTTP/1.1\nHost: a\nTrailer: X-Sum\nTransfer-Encoding: chunked\n\n"),
            bytes("5\nhello\n0\nX-Sum: 1\n\n"),
            complete(),
        ]),
        // Each chunk arrives before the next is sent.
        steps(
            "chunks-one-by-one",
            "RFC 9112, 7.1",
            [
                head(HEAD),
                bytes("2\nhe\n"),
                Step::Wait("he"),
                bytes("3\nllo\n"),
                Step::Wait("hello"),
                bytes("0\n\n"),
                complete(),
            ],
        )
        .application([vec![
            until(Until::Body(2)),
            Step::Mark("he"),
            until(Until::Body(5)),
            Step::Mark("hello"),
            complete(),
            head("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        ]]),
        steps(
            "chunks-cut-anywhere",
            "RFC 9112, 7.1",
            [
                head(HEAD),
                bytes("0"),
                bytes("5;a"),
                bytes("=b\nhe"),
                bytes("llo\n0"),
                bytes("\nX-A: 1\n"),
                bytes("\n"),
                complete(),
            ],
        ),
        steps(
            "chunks-cut-off",
            "RFC 9112, 8",
            [head(HEAD), bytes("5\nhello\n"), Step::Wait("half"), Step::Close],
        )
        .application([vec![until(Until::Body(5)), Step::Mark("half"), until(Until::Closed), Step::Close]])
        .alone(),
    ]
}
