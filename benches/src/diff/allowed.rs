//! What may differ between an exchange with a proxy and the same without, and nothing else: the one list, which the
//! pages publish (`docs/HTTP.md`, "Differences").

use super::{
    compare::Ends,
    exchange::Speaks,
    message::{End, Field, Head, Message, Start},
};

/// What decides which differences are allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// Whether an end of the exchange speaks HTTP/2, with a proxy or without.
    pub(crate) http2: bool,
    /// Whether the caller speaks HTTP/1.0.
    pub(crate) http10: bool,
    /// Whether there is a proxy.
    pub(crate) proxied: bool,
    /// Whether the proxy stands at the edge, where it may say what it knows of the caller.
    pub(crate) edge: bool,
}

impl Context {
    pub(crate) fn new(speaking: &[Speaks], ends: Ends, request: Option<&Head>) -> Self {
        let http10 = ends.proxied && request.is_some_and(|head| head.version == b"HTTP/1.0");
        Self { http2: speaking.contains(&Speaks::Http2), http10, proxied: ends.proxied, edge: ends.edge }
    }
}

/// A difference that is allowed.
pub struct Rule {
    /// Its name in reports.
    pub id: &'static str,
    /// What may differ.
    pub difference: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Where it says so.
    pub section: &'static str,
    /// Takes the difference out of what is expected and what was seen.
    pub(crate) apply: fn(Context, &mut Message, &mut Message),
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id)
    }
}

/// The list, in the order in which it is applied.
pub const RULES: &[Rule] = &[
    Rule {
        id: "whitespace",
        difference: "white space around a field's value",
        reason: "it is no part of the value",
        section: "RFC 9112, 5.1",
        apply: |_, expected, seen| [expected, seen].into_iter().for_each(trim),
    },
    Rule {
        id: "absolute-target",
        difference: "an absolute target arrives as the path and `Host` that it stands for",
        reason: "the absolute form is for proxies, the application is the origin",
        section: "RFC 9112, 3.2.1 and 3.2.2",
        apply: |context, expected, _| {
            if context.proxied {
                absolute_target(&mut expected.head);
            }
        },
    },
    Rule {
        id: "http-1.0-host",
        difference: "an HTTP/1.0 request without `Host` gets an empty one, or over HTTP/2 the `:authority` `localhost`",
        reason: "it goes on as HTTP/1.1, where there must be one",
        section: "RFC 9112, 3.2",
        apply: |context, expected, seen| {
            let missing = context.http10 && expected.head.first("host").is_none();
            if missing && seen.head.first("host") == Some(b"") {
                seen.head.fields.retain(|field| !field.is("host"));
            }
            if let Start::Request { authority, .. } = &mut seen.head.start
                && missing
                && authority.as_deref() == Some(b"localhost")
            {
                *authority = None;
            }
        },
    },
    Rule {
        id: "websocket",
        difference: "between HTTP/2 and HTTP/1, extended CONNECT is `GET` with `Upgrade`, and its success 101; a WebSocket's key and the answer to it are HTTP/1's alone",
        reason: "that is how each of them begins a WebSocket",
        section: "RFC 8441, 5",
        apply: |context, expected, seen| {
            if context.http2 {
                extended_connect(expected, seen);
                extended_connect(seen, expected);
            }
        },
    },
    Rule {
        id: "upgrade",
        difference: "`Upgrade` is dropped where the connection does not change its protocol",
        reason: "it concerns one connection alone",
        section: "RFC 9110, 7.6.1 and 7.8",
        apply: |context, expected, seen| {
            if context.proxied {
                upgrade(expected, seen);
            }
        },
    },
    Rule {
        id: "connection",
        difference: "`Connection`, what it names, `Keep-Alive`, `Proxy-Connection` and `TE` are dropped, or are the proxy's",
        reason: "they concern one connection alone",
        section: "RFC 9110, 7.6.1",
        apply: |context, expected, seen| {
            if context.proxied {
                connection(&mut expected.head, &mut seen.head);
            }
        },
    },
    Rule {
        id: "framing",
        difference: "`Transfer-Encoding: chunked`, how a body is cut into chunks, and chunk extensions",
        reason: "a body is framed anew for each connection",
        section: "RFC 9112, 6.1, 7.1.1",
        apply: |_, expected, seen| {
            for message in [expected, seen] {
                let framing = |field: &Field| {
                    field.is("transfer-encoding") && field.value.trim_ascii().eq_ignore_ascii_case(b"chunked")
                };
                message.head.fields.retain(|field| !framing(field));
            }
        },
    },
    Rule {
        id: "forwarded",
        difference: "`Via`, `Forwarded` and `X-Forwarded-*`, at the edge",
        reason: "the proxy says whom it speaks for, and does not pass on what anybody could say",
        section: "RFC 9110, 7.6.3; RFC 7239",
        apply: |context, expected, seen| {
            let of_proxies = |field: &Field| {
                [
                    "via",
                    "forwarded",
                    "x-forwarded-for",
                    "x-forwarded-proto",
                    "x-forwarded-host",
                    "x-forwarded-port",
                ]
                .iter()
                .any(|name| field.is(name))
            };
            if context.edge {
                expected.head.fields.retain(|field| !of_proxies(field));
                seen.head.fields.retain(|field| !of_proxies(field));
            }
        },
    },
    Rule {
        id: "http-1.0-trailers",
        difference: "trailers do not reach an HTTP/1.0 caller",
        reason: "it knows no chunks",
        section: "RFC 9112, 7.1.2",
        apply: |context, expected, _| {
            if context.http10 {
                expected.trailers.clear();
            }
        },
    },
    Rule {
        id: "http2-names",
        difference: "where an end speaks HTTP/2, names are lower case",
        reason: "HTTP/2 has no others",
        section: "RFC 9113, 8.2.1",
        apply: |context, expected, seen| {
            if context.http2 {
                for field in fields(expected).chain(fields(seen)) {
                    field.name.make_ascii_lowercase();
                }
            }
        },
    },
    Rule {
        id: "http2-authority",
        difference: "where an end speaks HTTP/2, `Host`, and the target of CONNECT, is `:authority`",
        reason: "that is what HTTP/2 calls it",
        section: "RFC 9113, 8.3.1",
        apply: |context, expected, seen| {
            if context.http2 {
                authority(&mut expected.head);
                authority(&mut seen.head);
            }
        },
    },
    Rule {
        id: "http2-reason",
        difference: "where an end speaks HTTP/2, the reason phrase is lost",
        reason: "HTTP/2 has none",
        section: "RFC 9113, 8.3.2",
        apply: |context, expected, seen| {
            if context.http2 {
                for message in [expected, seen] {
                    if let Start::Response { reason, .. } = &mut message.head.start {
                        *reason = None;
                    }
                }
            }
        },
    },
    Rule {
        id: "http2-cookie",
        difference: "between HTTP/2 and HTTP/1, `Cookie` is one field where it was several",
        reason: "HTTP/2 may split it, HTTP/1 may not",
        section: "RFC 9113, 8.2.3",
        apply: |context, expected, seen| {
            if context.http2 {
                join_cookies(&mut expected.head);
                join_cookies(&mut seen.head);
            }
        },
    },
    Rule {
        id: "http2-order",
        difference: "where an end speaks HTTP/2, fields of different names may come in another order",
        reason: "the order of fields with different names means nothing",
        section: "RFC 9110, 5.3",
        apply: |context, expected, seen| {
            if context.http2 {
                for message in [expected, seen] {
                    message.head.fields.sort_by(|one, other| one.name.cmp(&other.name));
                    message.trailers.sort_by(|one, other| one.name.cmp(&other.name));
                }
            }
        },
    },
    Rule {
        id: "version",
        difference: "the version in the start line",
        reason: "it is that of the connection, not of the message",
        section: "RFC 9110, 2.5",
        apply: |_, expected, seen| {
            expected.head.version.clear();
            seen.head.version.clear();
        },
    },
    Rule {
        id: "ending",
        difference: "how a message that is not complete was broken off: closed or reset",
        reason: "either says that it is not complete",
        section: "RFC 9112, 8; RFC 9113, 8.1",
        apply: |_, expected, seen| {
            for message in [expected, seen] {
                if message.end == End::Reset {
                    message.end = End::Closed;
                }
            }
        },
    },
];

/// A difference that concerns whole messages.
pub const RESENT: Rule = Rule {
    id: "resent",
    difference: "an idempotent request whose connection broke before its response comes to the application again",
    reason: "it cannot be told from one that the application never read",
    section: "RFC 9110, 9.2.2; RFC 9112, 9.3.1",
    apply: |_, _, _| {},
};

/// Another.
pub const INTERIM: Rule = Rule {
    id: "http-1.0-interim",
    difference: "interim responses (1xx) do not reach an HTTP/1.0 caller",
    reason: "it knows none",
    section: "RFC 9110, 15.2",
    apply: |_, _, _| {},
};

/// Another.
pub const UNNOTICED: Rule = Rule {
    id: "http2-half-close",
    difference: "where HTTP/2 lies between, as between two sidecars, an application does not hear that a caller of HTTP/1 has closed until something more is sent to that caller",
    reason: "the caller may still read, and over HTTP/2 the end of its request has closed that direction already",
    section: "RFC 9112, 9.5; RFC 9113, 5.1",
    apply: |_, _, _| {},
};

fn fields(message: &mut Message) -> impl Iterator<Item = &mut Field> {
    message.head.fields.iter_mut().chain(&mut message.trailers)
}

fn trim(message: &mut Message) {
    for field in fields(message) {
        field.value = field.value.trim_ascii().to_vec();
    }
}

fn absolute_target(head: &mut Head) {
    let Start::Request { method, target, .. } = &mut head.start else { return };
    let lower = target.to_ascii_lowercase();
    let Some(scheme) = ["http://", "https://"].iter().find(|scheme| lower.starts_with(scheme.as_bytes()))
    else {
        return;
    };
    let rest = target.split_off(scheme.len());
    let at = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    *target = match path {
        [] if method == b"OPTIONS" => b"*".to_vec(),
        [b'/', ..] => path.to_vec(),
        _ => [b"/", path].concat(),
    };
    for field in head.fields.iter_mut().filter(|field| field.is("host")) {
        field.value = authority.to_vec();
    }
}

/// What is expected loses all that concerns its own connection; what was seen only what may be the proxy's own, so that
/// what was to be dropped and was not is still found.
fn connection(expected: &mut Head, seen: &mut Head) {
    // What no Connection field can take away: a message would mean something else without it.
    const KEPT: [&[u8]; 6] = [b"close", b"keep-alive", b"te", b"upgrade", b"host", b"content-length"];
    let named: Vec<Vec<u8>> =
        expected.all("connection").flat_map(Field::elements).map(<[u8]>::to_ascii_lowercase).collect();
    let dropped = |field: &Field| {
        let name = field.name.to_ascii_lowercase();
        ["connection", "keep-alive", "proxy-connection", "te"].iter().any(|of_hop| field.is(of_hop))
            || (named.contains(&name) && !KEPT.contains(&&name[..]))
    };
    expected.fields.retain(|field| !dropped(field));
    let own = |field: &Field| {
        field.is("connection")
            || field.is("keep-alive")
            || (field.is("te") && field.value.trim_ascii() == b"trailers")
    };
    seen.fields.retain(|field| !own(field));
}

/// Brings what asks for an upgrade, or grants one, into the form of HTTP/2, which the other has.
fn extended_connect(message: &mut Message, other: &Message) {
    let head = &mut message.head;
    let upgrade = head.first("upgrade").map(<[u8]>::to_ascii_lowercase);
    match (&mut head.start, &other.head.start) {
        (Start::Request { method, protocol, .. }, Start::Request { protocol: Some(_), .. })
            if upgrade.is_some() =>
        {
            *method = b"CONNECT".to_vec();
            *protocol = upgrade;
        }
        (Start::Response { code, .. }, Start::Response { code: 200, .. }) if *code == 101 => *code = 200,
        _ => return,
    }
    let of_http1 = ["upgrade", "connection", "sec-websocket-key", "sec-websocket-accept"];
    head.fields.retain(|field| !of_http1.iter().any(|name| field.is(name)));
}

fn upgrade(expected: &mut Message, seen: &mut Message) {
    if expected.switched || expected.head.code() == 101 {
        return;
    }
    // What was asked for in vain may have been passed on; what was not asked for may not.
    let valid = expected.head.may_switch() || expected.head.code() != 0;
    expected.head.fields.retain(|field| !field.is("upgrade"));
    if valid {
        seen.head.fields.retain(|field| !field.is("upgrade"));
    }
}

fn authority(head: &mut Head) {
    let host = head.first("host").map(<[u8]>::to_vec);
    if let Start::Request { method, target, authority, protocol } = &mut head.start {
        if method == b"CONNECT" && protocol.is_none() {
            let to = std::mem::take(target);
            *authority = Some(to).filter(|to| !to.is_empty()).or(authority.take());
        }
        if authority.is_none() {
            *authority = host;
            head.fields.retain(|field| !field.is("host"));
        } else if *authority == host {
            head.fields.retain(|field| !field.is("host"));
        }
    }
}

fn join_cookies(head: &mut Head) {
    let crumbs: Vec<Vec<u8>> = head.all("cookie").map(|field| field.value.clone()).collect();
    if crumbs.len() < 2 {
        return;
    }
    let mut joined = Some(crumbs.join(&b"; "[..]));
    head.fields.retain_mut(|field| {
        if !field.is("cookie") {
            return true;
        }
        joined.take().map(|value| field.value = value).is_some()
    });
}
