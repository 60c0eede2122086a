//! How much is too much: 64 KiB of header and 128 fields, trailers included, by default (RFC 9110, section 5.4).

use super::{
    super::exchange::{
        Exchange, Step, Until, broken, cut_off, head, refused, response, same, until, unusable, wire,
    },
    numbered,
};

/// A field so long.
fn long(bytes: usize) -> String {
    format!("X-Long: {}\n", "v".repeat(bytes))
}

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    requests().into_iter().chain(responses()).collect()
}

fn requests() -> [Exchange; 8] {
    let get = |fields: &str| format!("GET / HTTP/1.1\nHost: a\n{fields}\n");
    let chunked = |trailers: &str| {
        format!("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n5\nhello\n0\n{trailers}\n")
    };
    [
        same("limit-128-fields", "RFC 9110, 5.4", &get(&numbered(0, 126))),
        same("limit-60-kib", "RFC 9110, 5.4", &get(&long(60 * 1024))),
        refused("over-limit-fields", "RFC 6585, 5", &[431], wire(&get(&numbered(0, 200)))),
        refused("over-limit-bytes", "RFC 6585, 5", &[431], wire(&get(&long(80 * 1024)))),
        refused("over-limit-bytes-of-many", "RFC 6585, 5", &[431], wire(&get(&long(1000).repeat(80)))),
        refused(
            "over-limit-target",
            "RFC 9110, 15.5.15",
            &[414, 431],
            wire(&format!("GET /{} HTTP/1.1\nHost: a\n\n", "a".repeat(80 * 1024))),
        ),
        refused("over-limit-without-end", "RFC 6585, 5", &[431], b"").caller([
            head(&format!("GET / HTTP/1.1\nHost: a\n{}", long(80 * 1024).trim_end())),
            until(Until::Complete),
        ]),
        over("over-limit-trailers", &chunked(&long(80 * 1024))),
    ]
}

fn over(name: &str, request: &str) -> Exchange {
    let mut exchange = broken(name, "RFC 6585, 5", request);
    exchange.expect = super::super::exchange::Expect::Broken { statuses: &[431] };
    exchange
}

fn responses() -> [Exchange; 6] {
    let ok = |fields: &str| format!("HTTP/1.1 200 OK\n{fields}Content-Length: 2\n\nok");
    let chunked =
        |trailers: &str| format!("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n{trailers}\n");
    [
        response("limit-128-fields-of-a-response", "RFC 9110, 5.4", &ok(&numbered(0, 126))),
        response("limit-60-kib-of-a-response", "RFC 9110, 5.4", &ok(&long(60 * 1024))),
        unusable("over-limit-fields-of-a-response", "RFC 9110, 5.4", &ok(&numbered(0, 200))),
        unusable("over-limit-bytes-of-a-response", "RFC 9110, 5.4", &ok(&long(80 * 1024))),
        unusable("over-limit-without-end-of-a-response", "RFC 9110, 5.4", "").application([vec![
            until(Until::Complete),
            head(&format!("HTTP/1.1 200 OK\n{}", long(80 * 1024).trim_end())),
            Step::Close,
        ]]),
        cut_off("over-limit-trailers-of-a-response", "RFC 9110, 5.4", &chunked(&long(80 * 1024))),
    ]
}
