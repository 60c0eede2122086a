//! Connections that become something else (RFC 9110, sections 7.8 and 9.3.6).

use super::{
    super::exchange::{Exchange, Step, Until, bytes, head, same, steps, until},
    Row,
};

/// Requests to change the protocol, and the protocol.
#[rustfmt::skip]
const UPGRADES: &[Row] = &[
    ("upgrade-websocket", "RFC 6455, 4.1", "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\nSec-WebSocket-Protocol: a, b"),
    ("upgrade-other", "RFC 9110, 7.8", "Connection: upgrade\nUpgrade: foo/2"),
    ("upgrade-several", "RFC 9110, 7.8", "Connection: keep-alive, Upgrade\nUpgrade: foo/2, bar"),
    ("upgrade-docker", "RFC 9110, 7.8", "Connection: Upgrade\nUpgrade: tcp"),
];

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\nUpgrade: foo/2\nConnection: Upgrade\nX-A: 1\n\n";

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let upgrades = UPGRADES.iter().map(|(name, section, fields)| {
        switched(name, section, &format!("GET /chat HTTP/1.1\nHost: a\n{fields}\n\n"), SWITCHING)
    });
    upgrades.chain(others()).collect()
}

/// Something each way, in turns, and then both close.
fn switched(name: &str, section: &str, request: &str, response: &str) -> Exchange {
    steps(
        name,
        section,
        [
            head(request),
            until(Until::Head),
            bytes("\0\n\u{7f} from the caller"),
            until(Until::Body(22)),
            bytes("HTTP/1.1 it is not\n\n"),
            Step::Finish,
            until(Until::Closed),
        ],
    )
    .application([vec![
        until(Until::Complete),
        head(response),
        until(Until::Body(20)),
        bytes("\0\n from the application"),
        until(Until::Closed),
        bytes("the last word"),
        Step::Close,
    ]])
    .http1()
}

fn others() -> [Exchange; 7] {
    let complete = || until(Until::Complete);
    let upgrade = "GET / HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: foo\n\n";
    let required =
        "HTTP/1.1 426 Upgrade Required\nConnection: upgrade\nUpgrade: foo/3\nContent-Length: 2\n\nno";
    [
        same("upgrade-ignored", "RFC 9110, 7.8", upgrade),
        same(
            "upgrade-to-h2c-ignored",
            "RFC 9113, 3.1",
            "GET / HTTP/1.1\nHost: a\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\n\n",
        ),
        same("upgrade-refused", "RFC 9110, 7.8", upgrade)
            .answer("HTTP/1.1 403 Forbidden\nContent-Length: 2\n\nno"),
        same("upgrade-required", "RFC 9110, 15.5.22", "GET / HTTP/1.1\nHost: a\n\n").answer(required),
        steps(
            "upgrade-application-speaks-first",
            "RFC 9110, 7.8",
            [head(upgrade), until(Until::Body(5)), bytes("bye"), Step::Finish, until(Until::Closed)],
        )
        .application([vec![
            complete(),
            head("HTTP/1.1 101 Switching Protocols\nUpgrade: foo\nConnection: upgrade\n\nhello"),
            until(Until::Body(3)),
            Step::Close,
        ]])
        .http1(),
        // With a body, the change comes after it.
        steps(
            "upgrade-with-a-body",
            "RFC 9110, 7.8",
            [
                head(
                    "POST / HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: foo\nContent-Length: 5\n\nhello",
                ),
                until(Until::Body(2)),
                bytes("hi"),
                Step::Finish,
                until(Until::Closed),
            ],
        )
        .application([vec![
            complete(),
            head("HTTP/1.1 101 Switching Protocols\nUpgrade: foo\nConnection: upgrade\n\n"),
            bytes("ok"),
            until(Until::Body(2)),
            Step::Close,
        ]])
        .http1(),
        switched(
            "connect",
            "RFC 9110, 9.3.6",
            "CONNECT a.example:443 HTTP/1.1\nHost: a.example:443\n\n",
            "HTTP/1.1 200 OK\nX-A: 1\n\n",
        ),
    ]
}
