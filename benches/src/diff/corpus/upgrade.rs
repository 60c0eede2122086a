//! Connections that become something else (RFC 9110, sections 7.8 and 9.3.6).

use super::{
    super::exchange::{Exchange, OK, Step, Until, bytes, head, same, steps, until},
    Row,
};

/// Requests to change the protocol, and the protocol.
#[rustfmt::skip]
const UPGRADES: &[Row] = &[
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
    upgrades.chain(others()).chain(tunnels()).chain(of_http2()).collect()
}

/// Tunnels that HTTP/2 can make too, in its own way.
fn tunnels() -> [Exchange; 3] {
    let connect = "CONNECT a.example:443 HTTP/1.1\nHost: a.example:443\n\n";
    [
        switched(
            "upgrade-websocket",
            "RFC 6455, 4.1",
            "GET /chat?a HTTP/1.1\nHost: a\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\nSec-WebSocket-Protocol: a, b\n\n",
            WEBSOCKET,
        )
        .tunnel(),
        switched("connect", "RFC 9110, 9.3.6", connect, "HTTP/1.1 200 OK\nX-A: 1\n\n").tunnel(),
        // What follows a CONNECT that was refused is a request.
        steps(
            "connect-refused",
            "RFC 9110, 9.3.6",
            [
                head(connect),
                until(Until::Complete),
                head("GET /a HTTP/1.1\nHost: a\n\n"),
                until(Until::Complete),
            ],
        )
        .application(["HTTP/1.1 403 Forbidden\nX-A: 1\nContent-Length: 2\n\nno", OK].map(|answer| {
            vec![until(Until::Complete), head(answer)]
        }))
        .http1(),
    ]
}

/// The same, asked for in HTTP/2 (RFC 8441; RFC 9113, section 8.5).
fn of_http2() -> [Exchange; 5] {
    let websocket = "CONNECT /chat?a HTTP/2\n:authority: a\n:protocol: websocket\nsec-websocket-version: 13\nsec-websocket-protocol: a, b\norigin: http://a\n\n";
    let connect = "CONNECT  HTTP/2\n:authority: a.example:443\nx-a: 1\n\n";
    let refused = |name, section, request| {
        steps(name, section, [head(request), until(Until::Complete)])
            .application([vec![
                until(Until::Complete),
                head("HTTP/1.1 403 Forbidden\nX-A: 1\nContent-Length: 2\n\nno"),
            ]])
            .http2()
            .tunnel()
    };
    let switched =
        |name, section, request, response| switched(name, section, request, response).http2().tunnel();
    [
        switched("h2-websocket", "RFC 8441, 5", websocket, WEBSOCKET),
        switched(
            "h2-extended-connect",
            "RFC 8441, 4",
            "CONNECT / HTTP/2\n:authority: a\n:protocol: foo\n\n",
            "HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: foo\nX-A: 1\n\n",
        ),
        refused("h2-websocket-refused", "RFC 8441, 5", websocket),
        switched("h2-connect", "RFC 9113, 8.5", connect, "HTTP/1.1 200 OK\nX-A: 1\n\n"),
        refused("h2-connect-refused", "RFC 9113, 8.5", connect),
    ]
}

const WEBSOCKET: &str = "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: (the key's answer)\nSec-WebSocket-Protocol: b\nX-A: 1\n\n";

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

fn others() -> [Exchange; 6] {
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
    ]
}
