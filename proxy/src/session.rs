//! Sessions: the requests that go to one endpoint because an earlier one did (Gateway API, GEP-1619). A session is known
//! by a token, which the caller keeps in a cookie or a header. Nothing of it is kept here, so it outlives changes of the
//! configuration and restarts, and every proxy with the same configuration understands it.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use outrigger_config::route::{CookieLifetime, HttpRule, PathMatch, SessionKind, SessionPersistence};
use outrigger_config::{Duration, Shares};
use outrigger_http::{Backend, Endpoint};

use crate::state::Live;

/// How many cookies of one name are looked at. A caller that has several has them for different paths.
const MAX_COOKIES: usize = 8;
/// How many bytes of a hash tell endpoints apart.
const HASH_BYTES: usize = 16;

/// How the requests of a rule are kept together.
#[derive(Debug)]
pub(crate) struct Session {
    carrier: Carrier,
    /// In milliseconds.
    absolute: Option<u64>,
    /// In milliseconds.
    idle: Option<u64>,
}

/// What carries the token.
#[derive(Debug)]
enum Carrier {
    Header(HeaderName),
    Cookie {
        name: Box<str>,
        permanent: bool,
        /// The paths that the rule matches, the longest first.
        paths: Box<[Box<str>]>,
    },
}

/// Where an earlier request of the session went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// Which of the rule's backends, by its place in the rule.
    pub(crate) share: usize,
    /// Its endpoint, by its place in the backend.
    pub(crate) endpoint: usize,
    /// When the session began, in milliseconds of Unix time.
    began: u64,
}

/// What a request has of a session.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    session: &'a Session,
    pub(crate) kept: Option<Kept>,
    /// For which paths a new cookie is.
    path: &'a str,
    secure: bool,
}

impl Session {
    /// Binds what a rule of this route says.
    pub(crate) fn new(
        spec: &SessionPersistence,
        route: &str,
        rule: &str,
        matches: &HttpRule,
    ) -> Option<Self> {
        let name = match &spec.session_name {
            Some(name) => name.as_str().to_owned(),
            None => {
                let hash = hash(&["rule", route, rule]);
                format!("outrigger-session-{}", hash.get(..8).unwrap_or_default().to_ascii_lowercase())
            }
        };
        let carrier = match spec.kind {
            SessionKind::Header => Carrier::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            SessionKind::Cookie => Carrier::Cookie {
                name: name.into(),
                permanent: spec.cookie_config.is_some_and(|it| it.lifetime_type == CookieLifetime::Permanent),
                paths: cookie_paths(matches),
            },
        };
        let millis = |duration: Option<Duration>| {
            let limit = duration.map(|it| u64::try_from(it.get().as_millis()).unwrap_or(u64::MAX));
            limit.filter(|limit| *limit > 0)
        };
        Some(Self { carrier, absolute: millis(spec.absolute_timeout), idle: millis(spec.idle_timeout) })
    }

    /// What a request has of it: the endpoint that it is kept to, if it is one of the rule's backends and the session
    /// has not ended.
    pub(crate) fn visit<'a>(
        &'a self,
        headers: &HeaderMap,
        path: &str,
        secure: bool,
        shares: &Shares,
        live: &Live,
    ) -> Visit<'a> {
        let now = now();
        let kept = match &self.carrier {
            Carrier::Header(name) => {
                headers.get(name).and_then(|token| self.read(token.to_str().ok()?, now, shares, live))
            }
            Carrier::Cookie { name, .. } => {
                cookies(headers, name).take(MAX_COOKIES).find_map(|token| self.read(token, now, shares, live))
            }
        };
        let path = match &self.carrier {
            Carrier::Header(_) => "/",
            Carrier::Cookie { paths, .. } => paths.iter().find(|it| is_below(path, it)).map_or("/", |it| it),
        };
        Visit { session: self, kept, path, secure }
    }

    fn read(&self, token: &str, now: u64, shares: &Shares, live: &Live) -> Option<Kept> {
        let mut parts = token.split('.');
        let (name, began, seen) = (parts.next()?, parts.next()?, parts.next()?);
        let (began, seen) = (u64::from_str_radix(began, 16).ok()?, u64::from_str_radix(seen, 16).ok()?);
        let over = |limit: Option<u64>, since| limit.is_some_and(|limit| now.saturating_sub(since) >= limit);
        if over(self.absolute, began) || over(self.idle, seen) {
            return None;
        }
        shares.refs().iter().enumerate().find_map(|(share, it)| {
            let backend = &live.backends.get(it.backend?)?;
            let endpoint = backend.names.of(&backend.backend).iter().position(|it| **it == *name)?;
            Some(Kept { share, endpoint, began })
        })
    }

    fn write(&self, name: &str, began: u64, path: &str, secure: bool, headers: &mut HeaderMap) {
        let now = now();
        let token = format!("{name}.{began:x}.{now:x}");
        let (field, value) = match &self.carrier {
            Carrier::Header(name) => (name.clone(), token),
            Carrier::Cookie { name, permanent, .. } => {
                let mut cookie = format!("{name}={token}; Path={path}; HttpOnly; SameSite=Strict");
                if secure {
                    cookie.push_str("; Secure");
                }
                if let Some(limit) = self.absolute.filter(|_| *permanent) {
                    let left = limit.saturating_sub(now.saturating_sub(began)).div_ceil(1000);
                    // Writing to text cannot fail.
                    let _ = write!(cookie, "; Max-Age={left}");
                }
                (SET_COOKIE, cookie)
            }
        };
        if let Ok(value) = HeaderValue::try_from(value) {
            if field == SET_COOKIE {
                headers.append(field, value)
            } else {
                headers.insert(field, value).is_some()
            };
        }
    }
}

impl Visit<'_> {
    /// Tells the caller in the response where its session is, if it does not know yet, or has to hear it again for the
    /// session to last.
    pub(crate) fn answer(&self, names: &[Box<str>], endpoint: Option<usize>, headers: &mut HeaderMap) {
        let Some((at, name)) = endpoint.and_then(|at| Some((at, names.get(at)?))) else { return };
        let kept = self.kept.filter(|kept| kept.endpoint == at);
        if kept.is_none() || self.session.idle.is_some() {
            let began = kept.map_or_else(now, |kept| kept.began);
            self.session.write(name, began, self.path, self.secure, headers);
        }
    }
}

/// What the endpoints of a backend are called in tokens, made when it is first asked for. It does not show an address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Arc<OnceLock<Box<[Box<str>]>>>);

impl Names {
    /// In the order of the endpoints. It must always be the same backend.
    pub(crate) fn of(&self, backend: &Backend) -> &[Box<str>] {
        let name = |endpoint: &Arc<Endpoint>| {
            hash(&["endpoint", &backend.name, &endpoint.address.to_string()]).into_boxed_str()
        };
        self.0.get_or_init(|| backend.endpoints.iter().map(name).collect())
    }
}

fn hash(parts: &[&str]) -> String {
    let text = parts.join("\0");
    let digest = digest(&SHA256, text.as_bytes());
    URL_SAFE_NO_PAD.encode(digest.as_ref().get(..HASH_BYTES).unwrap_or_default())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// The values of the cookies with a name (RFC 6265, section 4.2.1).
pub(crate) fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(its_name, _)| *its_name == name).map(|(_, value)| value)
}

/// The paths that a rule matches, as cookies have them; of an expression, the segments before its first special
/// character.
fn cookie_paths(rule: &HttpRule) -> Box<[Box<str>]> {
    let path = |path: &PathMatch| -> Box<str> {
        match path {
            PathMatch::Exact(path) => path.clone(),
            PathMatch::PathPrefix(prefix) => prefix.clone(),
            PathMatch::RegularExpression(pattern) => {
                let literal =
                    pattern.as_str().split(|c: char| !c.is_ascii_alphanumeric() && !"/-_~%".contains(c));
                let literal = literal.into_iter().next().unwrap_or_default();
                literal.rsplit_once('/').map_or("", |(segments, _)| segments).into()
            }
        }
    };
    let mut paths: Vec<_> = rule.matches.iter().filter_map(|one| one.path.as_ref()).map(path).collect();
    paths.retain(|path| !path.is_empty());
    paths.sort_by_key(|path| std::cmp::Reverse(path.len()));
    paths.into()
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || above.ends_with('/'))
}
