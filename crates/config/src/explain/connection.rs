//! What becomes of a connection at a listener that does not look for HTTP in it.

use super::{Part, Taken};
use crate::listener::{Direction, Protocol};
use crate::resource::Kind;
use crate::route::Timeouts;
use crate::shares::Shares;
use crate::snapshot::{ListenerEntry, Snapshot};

/// How a listener takes a connection that it does not look for HTTP in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// As bytes.
    Bytes,
    /// As TLS, by the name that it asks for.
    Tls,
}

/// How a listener takes a request's connection, if not as HTTP. One that detects what is spoken passes TLS on, but for
/// that of the mesh.
pub(super) fn seen(listener: &ListenerEntry, secure: bool) -> Option<Seen> {
    match listener.spec.protocol {
        Some(Protocol::Tcp) => Some(Seen::Bytes),
        Some(Protocol::Tls) => Some(Seen::Tls),
        None if secure && listener.spec.direction != Direction::Inbound => Some(Seen::Tls),
        Some(Protocol::Http | Protocol::Https) | None => None,
    }
}

/// What takes it: by the name asked for, otherwise the listener's TCPRoute.
pub(super) fn taken(snapshot: &Snapshot, listener: &ListenerEntry, seen: Seen, host: &str) -> Option<Taken> {
    let named = match seen {
        Seen::Tls => listener.tls.find(Some(host)),
        Seen::Bytes => None,
    };
    let (kind, at) = match named {
        Some(at) => (Kind::TlsRoute, at),
        None => (Kind::TcpRoute, listener.tcp?),
    };
    let entry = snapshot.tcp_rules.get(at)?;
    let by = if named.is_some() { format!("the server name `{host}`") } else { "any connection".to_owned() };
    Some(Taken {
        kind,
        route: entry.route.clone(),
        rule: entry.rule.to_string(),
        by,
        backends: parts(&entry.shares),
        filters: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        session_persistence: None,
    })
}

/// How much of what a rule takes each of its backends gets.
pub(super) fn parts(shares: &Shares) -> Vec<Part> {
    let part = |(share, percent): (&crate::Share, f64)| Part {
        backend: share.name.clone(),
        percent,
        known: share.backend.is_some(),
        filters: Vec::new(),
    };
    shares.percents().map(part).collect()
}
