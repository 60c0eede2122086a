//! Which rule takes a request, what becomes of it there, and why the rules near it do not take it; or what takes its
//! connection, where a listener does not look for HTTP.

use http::uri::Scheme;
use http::{HeaderMap, Method, Uri};
use serde::{Deserialize, Serialize};

use crate::listener::{Direction, Protocol};
use crate::matching::{Found, Head};
use crate::path;
use crate::resource::Kind;
use crate::route::{HttpRule, Retry, SessionPersistence, Timeouts};
use crate::scalar::Name;
use crate::snapshot::{HttpRuleEntry, ListenerEntry, Snapshot};

mod connection;
mod near;
mod words;

/// How many rules that came near are told of.
const NEAR: usize = 10;

/// A request to explain.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its whole URL.
    pub url: Uri,
    /// Its headers. A `host` among them counts in place of the URL's.
    pub headers: HeaderMap,
    /// The listener that it comes to. Absent: one with the URL's port if there is any, otherwise any that speaks HTTP;
    /// of several, one with a route that takes it, otherwise one that has more to say than that.
    pub listener: Option<String>,
}

/// Why there is nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// There is no such listener.
    #[error("there is no listener `{0}`")]
    NoSuchListener(String),
    /// There is no listener for HTTP, and none with the URL's port.
    #[error("there is no listener that speaks HTTP: name one, or its port in the URL")]
    NoListener,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The listener that it comes to.
    pub listener: Name,
    /// Whether the listener takes the connection, whatever is in it: it does not look for HTTP there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// Its host, as routes see it.
    pub host: String,
    /// Its path, as routes see it; as it was received, where it is refused.
    pub path: String,
    /// Why it is refused before a route sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    /// Whether it goes where it was addressed, if it was captured, since nothing takes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passes: bool,
    /// Rules that came near, the nearest first.
    pub near: Vec<Near>,
    /// How many more did.
    pub more: usize,
}

/// The rule that takes a request, and what it does with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The kind of its route.
    pub kind: Kind,
    /// The route.
    pub route: Name,
    /// The rule's name, or its index in the route.
    pub rule: String,
    /// The match that took it, in words.
    pub by: String,
    /// Where it goes.
    pub backends: Vec<Part>,
    /// The types of the rule's filters.
    pub filters: Vec<String>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// Whether it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Whether it belongs to a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// A backend's part of the requests that a rule takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// The backend.
    pub backend: Name,
    /// How many of a hundred requests it gets.
    pub percent: f64,
    /// Whether it is there; if not, its part gets 503.
    pub known: bool,
    /// The types of the filters for it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
}

/// A rule that does not take a request, but nearly does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Near {
    /// The kind of its route.
    pub kind: Kind,
    /// The route.
    pub route: Name,
    /// The rule's name, or its index in the route.
    pub rule: String,
    /// The first thing that is not as it must be, or why the other rule comes first.
    pub because: String,
}

/// Explains what becomes of a request.
///
/// # Errors
/// If there is no listener that it could come to.
pub fn explain(snapshot: &Snapshot, asked: &Asked) -> Result<Explanation, Unexplained> {
    let tells = |explanation: &Explanation| !explanation.near.is_empty() || explanation.refused.is_some();
    let mut nearest: Option<Explanation> = None;
    for listener in candidates(snapshot, asked)? {
        let explanation = at(snapshot, listener, asked);
        if explanation.taken.is_some() {
            return Ok(explanation);
        }
        if nearest.as_ref().is_none_or(|nearest| !tells(nearest) && tells(&explanation)) {
            nearest = Some(explanation);
        }
    }
    nearest.ok_or(Unexplained::NoListener)
}

/// The listeners that a request may come to.
fn candidates<'a>(snapshot: &'a Snapshot, asked: &Asked) -> Result<Vec<&'a ListenerEntry>, Unexplained> {
    if let Some(name) = &asked.listener {
        let named = snapshot.listeners.iter().find(|listener| listener.name.as_str() == name);
        return named.map(|listener| vec![listener]).ok_or_else(|| Unexplained::NoSuchListener(name.clone()));
    }
    let port = asked.url.port_u16();
    let is_at_port = |listener: &&ListenerEntry| Some(listener.spec.address.port()) == port;
    let at_port: Vec<&ListenerEntry> = snapshot.listeners.iter().filter(is_at_port).collect();
    if !at_port.is_empty() {
        return Ok(at_port);
    }
    let speaks_http =
        |listener: &&ListenerEntry| !matches!(listener.spec.protocol, Some(Protocol::Tcp | Protocol::Tls));
    Ok(snapshot.listeners.iter().filter(speaks_http).collect())
}

fn at(snapshot: &Snapshot, listener: &ListenerEntry, asked: &Asked) -> Explanation {
    let named = asked.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let authority = asked.url.authority().map_or("", |authority| authority.as_str());
    let host = named.unwrap_or(authority);
    let mut explanation = Explanation {
        listener: listener.name.clone(),
        opaque: false,
        host: crate::matching::host_name(host).into_owned(),
        path: asked.url.path().to_owned(),
        refused: None,
        taken: None,
        passes: false,
        near: Vec::new(),
        more: 0,
    };
    let captures = listener.spec.direction != Direction::Edge;
    if let Some(seen) = connection::seen(listener, asked.url.scheme() == Some(&Scheme::HTTPS)) {
        // What is asked for in the handshake is the URL's host, whatever a header says.
        explanation.host = crate::matching::host_name(asked.url.host().unwrap_or_default()).into_owned();
        explanation.opaque = true;
        explanation.taken = connection::taken(snapshot, listener, seen, &explanation.host);
        explanation.passes = captures && explanation.taken.is_none();
        return explanation;
    }
    match path::normalize(asked.url.path(), listener.spec.http.path) {
        Ok(path) => explanation.path = path.into_owned(),
        Err(refused) => {
            explanation.refused = Some(refused.to_string());
            return explanation;
        }
    }
    let head = Head {
        host,
        path: &explanation.path,
        query: asked.url.query(),
        method: &asked.method,
        headers: &asked.headers,
    };
    let found = listener.http.find(&head);
    let seen = near::Seen { head, host: &explanation.host, form: listener.spec.http.path };
    let mut near = near::near(snapshot, &listener.name, &seen, found);
    explanation.more = near.len().saturating_sub(NEAR);
    near.truncate(NEAR);
    explanation.near = near;
    explanation.taken = found.and_then(|found| taken(snapshot, found));
    explanation.passes = captures && explanation.taken.is_none();
    explanation
}

fn taken(snapshot: &Snapshot, found: Found) -> Option<Taken> {
    let entry = snapshot.http_rules.get(found.rule)?;
    let rule = entry.spec.rules.get(entry.index)?;
    Some(Taken {
        kind: entry.kind(),
        route: entry.route.clone(),
        rule: entry.rule.to_string(),
        by: rule.matches.get(found.matched).map_or_else(|| "any request".into(), words::conditions),
        backends: parts(entry, rule),
        filters: names(&rule.filters),
        timeouts: rule.timeouts,
        retry: rule.retry.clone(),
        session_persistence: rule.session_persistence.clone(),
    })
}

fn parts(entry: &HttpRuleEntry, rule: &HttpRule) -> Vec<Part> {
    let parts = connection::parts(&entry.shares).into_iter().zip(&rule.backend_refs);
    parts.map(|(part, reference)| Part { filters: names(&reference.filters), ..part }).collect()
}

fn names(filters: &[crate::route::HttpFilter]) -> Vec<String> {
    filters.iter().map(|filter| filter.name().to_owned()).collect()
}
