//! Requests that two readers could take for different ones: none may be forwarded in a way that lets the application
//! see a request that the caller's connection did not make (RFC 9112, section 11.2).

use super::{
    super::exchange::{Exchange, Step, Until, head, refused, until, wire},
    Row, bad_requests,
};

/// In each, what stands behind the empty line is a body to one reader and a request to another.
#[rustfmt::skip]
const AMBIGUOUS: &[Row] = &[
    ("smuggle-length-then-chunked", "RFC 9112, 6.1", "POST / HTTP/1.1\nHost: a\nContent-Length: 6\nTransfer-Encoding: chunked\n\n0\n\nG"),
    ("smuggle-chunked-then-length", "RFC 9112, 6.1", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nContent-Length: 4\n\n1\nZ\n0\n\n"),
    ("smuggle-chunked-and-zero", "RFC 9112, 6.1", "POST / HTTP/1.1\nHost: a\nContent-Length: 0\nTransfer-Encoding: chunked\n\n0\n\n"),
    ("smuggle-bare-lf", "RFC 9112, 2.2", "POST / HTTP/1.1\nHost: a\nX-A: b␊Transfer-Encoding: chunked\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-bare-cr", "RFC 9112, 2.2", "POST / HTTP/1.1\nHost: a\nX-A: b\rTransfer-Encoding: chunked\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-space-before-colon", "RFC 9112, 5.1", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding : chunked\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-length-space-before-colon", "RFC 9112, 5.1", "POST / HTTP/1.1\nHost: a\nContent-Length : 5\n\nhello"),
    ("smuggle-folded-coding", "RFC 9112, 5.2", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding:\n chunked\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-folded-length", "RFC 9112, 5.2", "POST / HTTP/1.1\nHost: a\nContent-Length:\n 5\n\nhello"),
    ("smuggle-name-with-nul", "RFC 9110, 5.1", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding\0: chunked\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-name-after-space", "RFC 9112, 2.2", "POST / HTTP/1.1\n Transfer-Encoding: chunked\nHost: a\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-name-with-high-byte", "RFC 9110, 5.1", "POST / HTTP/1.1\nHost: a\nTransfer-Encodingé: chunked\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-coding-with-nul", "RFC 9110, 5.5", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\0\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-coding-list", "RFC 9112, 6.1", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked, identity\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-coding-tab", "RFC 9112, 6.1", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding:\tchunked\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-coding-odd-case", "RFC 9112, 6.1", "POST / HTTP/1.1\nHost: a\ntransfer-encoding: CHUNKED\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-lengths-on-two-lines", "RFC 9112, 6.3", "POST / HTTP/1.1\nHost: a\nContent-Length: 0\nContent-Length: 5\n\nhello"),
    ("smuggle-request-in-the-line", "RFC 9112, 3", "GET / HTTP/1.1 GET /evil HTTP/1.1\nHost: a\n\n"),
    ("smuggle-host-folded", "RFC 9112, 5.2", "GET / HTTP/1.1\nHost:\n a\n\n"),
    ("smuggle-empty-name", "RFC 9112, 5", "POST / HTTP/1.1\nHost: a\n: Transfer-Encoding: chunked\nContent-Length: 5\n\n0\n\n"),
    ("smuggle-http-1.0-chunked", "RFC 9112, 6.1", "POST / HTTP/1.0\nHost: a\nTransfer-Encoding: chunked\n\n0\n\n"),
    ("smuggle-http-1.0-both", "RFC 9112, 6.1", "POST / HTTP/1.0\nHost: a\nConnection: keep-alive\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n"),
];

/// A request of the same exchange that must not come to anybody.
const HIDDEN: &str = "GET /hidden HTTP/1.1\nHost: a\nExchange: NAME\n\n";

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let hidden = |name: &str, fields: &str, body: &str| {
        let request = format!("POST / HTTP/1.1\nHost: a\n{fields}\n\n{body}{HIDDEN}").replace("NAME", name);
        refused(name, "RFC 9112, 11.2", &[400, 501], wire(&request))
    };
    let others = [
        hidden("smuggle-hidden-by-chunks", "Content-Length: 5\nTransfer-Encoding: chunked", "0\n\n"),
        hidden("smuggle-hidden-by-length", "Transfer-Encoding: chunked\nContent-Length: 3", "0\n\n"),
        hidden("smuggle-hidden-by-first-length", "Content-Length: 0\nContent-Length: 60", ""),
        hidden("smuggle-hidden-by-unknown-coding", "Transfer-Encoding: xchunked", "0\n\n"),
        hidden("smuggle-hidden-by-signed-length", "Content-Length: +0", ""),
        // A good request, and then a bad one, on the same connection.
        refused("bad-after-good", "RFC 9112, 9.3", &[400], b"")
            .caller([
                head("GET /good HTTP/1.1\nHost: a\n\n"),
                until(Until::Complete),
                head("GET /bad HTTP/1.1\nHost: a\nX A: b\n\n"),
                until(Until::Complete),
            ])
            .after(1),
        // And one behind a bad one, which nobody may read any more.
        refused("good-after-bad", "RFC 9112, 9.6", &[400], b"").caller([
            head("GET /bad HTTP/1.1\nHost: a\nX A: b\n\n"),
            Step::Bytes(wire(&HIDDEN.replace("NAME", "good-after-bad"))),
            until(Until::Complete),
        ]),
    ];
    bad_requests(AMBIGUOUS).chain(others).collect()
}
