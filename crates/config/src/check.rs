//! What the fields of one object must mean together, and the limits that the JSON Schema states of each.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::ops::RangeInclusive;

use self::filter::{check_filters, check_rule_filters};
use self::kinds::{check_mode, check_tcp_rules};
use crate::listener::{Certificate, Direction, HttpLimits, Listener, Protocol};
use crate::resource::Invalid;
use crate::route::{
    BackendObject, BackendRef, CookieConfig, CookieLifetime, HttpMatch, HttpRoute, HttpRule, Retry,
    SessionKind, SessionPersistence, TcpRoute, Timeouts,
};
use crate::scalar::{Duration, Hostname, Name};

mod backend;
mod filter;
mod kinds;

/// A part of the model that can be wrong although each of its fields is right.
pub(crate) trait Check {
    /// Finds the first thing that is wrong.
    fn check(&self) -> Result<(), Invalid>;
}

impl Check for Listener {
    fn check(&self) -> Result<(), Invalid> {
        match (self.protocol, &self.tls) {
            (Some(protocol @ (Protocol::Https | Protocol::Tls)), None) => {
                let protocol = if protocol == Protocol::Tls { "TLS" } else { "HTTPS" };
                return wrong("tls", format!("missing: protocol {protocol} needs tls.certificateRefs"));
            }
            (Some(Protocol::Http | Protocol::Tcp), Some(_)) => {
                return wrong("tls", "not allowed with protocols HTTP and TCP: use HTTPS or TLS");
            }
            (None, Some(_)) => {
                return wrong(
                    "tls",
                    "not allowed without a protocol: add `protocol: HTTPS` or `protocol: TLS`",
                );
            }
            _ => {}
        }
        if let Some(tls) = &self.tls {
            check_mode(self.protocol, tls)?;
            unique("tls.certificateRefs", tls.certificate_refs.iter().map(|r| &r.name))?;
        }
        if self.mtls.is_some() && self.direction != Direction::Inbound {
            return wrong("mtls", "only a listener with `direction: Inbound` takes mutual TLS of the mesh");
        }
        if self.mtls.is_some() && self.tls.is_some() {
            return wrong("mtls", "not allowed beside tls: a listener ends one kind of TLS");
        }
        check_limits("http.limits", &self.http.limits)?;
        unique("http.forwarded.trust", &self.http.forwarded.trust)?;
        unique("nodes", &self.nodes)
    }
}

fn check_limits(at: &str, limits: &HttpLimits) -> Result<(), Invalid> {
    within(format!("{at}.headerBytes"), limits.header_bytes, 1024..=1_048_576)?;
    within(format!("{at}.headerFields"), limits.header_fields, 16..=8192)?;
    within(format!("{at}.streamsPerConnection"), limits.streams_per_connection, 1..=65_536)?;
    within(format!("{at}.connections"), limits.connections.unwrap_or(1), 1..=u32::MAX)?;
    within(format!("{at}.requests"), limits.requests.unwrap_or(1), 1..=u32::MAX)?;
    let rate = limits.min_body_rate.map_or(1, |rate| rate.bytes_per_second);
    within(format!("{at}.minBodyRate.bytesPerSecond"), rate, 1..=u32::MAX)
}

/// What every route has: the listeners that it is attached to, and the hosts that it answers to.
fn check_attached(listeners: &[Name], hostnames: &[Hostname]) -> Result<(), Invalid> {
    length("listeners", listeners, 1..=usize::MAX)?;
    unique("listeners", listeners)?;
    unique("hostnames", hostnames)
}

/// As many rules as a route for requests may have, each with a name of its own or none.
fn check_rules<R>(rules: &[R], name: impl Fn(&R) -> Option<&Name>) -> Result<(), Invalid> {
    length("rules", rules, 1..=64)?;
    unique_some("rules", "name", rules.iter().map(name))
}

impl Check for HttpRoute {
    fn check(&self) -> Result<(), Invalid> {
        check_attached(&self.listeners, &self.hostnames)?;
        check_rules(&self.rules, |rule| rule.name.as_ref())?;
        for (index, rule) in self.rules.iter().enumerate() {
            check_rule(&format!("rules[{index}]"), rule)?;
        }
        Ok(())
    }
}

fn check_rule(at: &str, rule: &HttpRule) -> Result<(), Invalid> {
    length(format!("{at}.matches"), &rule.matches, 0..=64)?;
    for (index, one) in rule.matches.iter().enumerate() {
        check_match(&format!("{at}.matches[{index}]"), one)?;
    }
    check_rule_filters(at, rule)?;
    length(format!("{at}.backendRefs"), &rule.backend_refs, 0..=16)?;
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        check_backend_ref(&format!("{at}.backendRefs[{index}]"), backend)?;
    }
    check_timeouts(&format!("{at}.timeouts"), &rule.timeouts)?;
    rule.retry.as_ref().map_or(Ok(()), |retry| check_retry(&format!("{at}.retry"), retry))?;
    check_session(&format!("{at}.sessionPersistence"), rule.session_persistence.as_ref())
}

fn check_match(at: &str, one: &HttpMatch) -> Result<(), Invalid> {
    length(format!("{at}.headers"), &one.headers, 0..=16)?;
    length(format!("{at}.queryParams"), &one.query_params, 0..=16)
}

fn check_backend_ref(at: &str, backend: &BackendRef) -> Result<(), Invalid> {
    check_object(at, backend.object())?;
    within(format!("{at}.weight"), backend.weight, 0..=1_000_000)?;
    check_filters(&format!("{at}.filters"), &backend.filters)
}

/// What is of another group is no Service, nor anything else that is known here.
fn check_object(at: &str, reference: BackendObject<'_>) -> Result<(), Invalid> {
    match reference.group {
        None | Some("") => Ok(()),
        Some(group) => {
            let reason = format!("`{group}` is not a group of backends: leave it out, or empty");
            wrong(format!("{at}.group"), reason)
        }
    }
}

/// Gateway API, `HTTPRouteTimeouts`: an attempt must not last longer than the request that it is part of.
fn check_timeouts(at: &str, timeouts: &Timeouts) -> Result<(), Invalid> {
    let (Some(request), Some(attempt)) = (timeouts.request, timeouts.backend_request) else { return Ok(()) };
    if !request.get().is_zero() && attempt > request {
        let reason =
            format!("{attempt} is longer than timeouts.request, {request}: make it shorter, or equal");
        return wrong(format!("{at}.backendRequest"), reason);
    }
    Ok(())
}

fn check_retry(at: &str, retry: &Retry) -> Result<(), Invalid> {
    within(format!("{at}.attempts"), retry.attempts, 0..=100)?;
    for (index, code) in retry.codes.iter().enumerate() {
        within(format!("{at}.codes[{index}]"), u32::from(*code), 400..=599)?;
    }
    unique(&format!("{at}.codes"), &retry.codes)?;
    within(format!("{at}.maxBodyBytes"), retry.max_body_bytes.unwrap_or(0), 0..=16_777_216)?;
    unique(&format!("{at}.grpcStatuses"), &retry.grpc_statuses)?;
    positive(format!("{at}.hedgeDelay"), retry.hedge_delay)?;
    let (base, most) = (retry.backoff(), retry.max_backoff);
    match most.filter(|most| *most < base) {
        Some(most) => wrong(
            format!("{at}.maxBackoff"),
            format!("{most} is shorter than backoff, {base}: make it longer, or equal"),
        ),
        None => Ok(()),
    }
}

fn check_session(at: &str, session: Option<&SessionPersistence>) -> Result<(), Invalid> {
    let Some(session) = session else { return Ok(()) };
    let name = session.session_name.as_ref().map_or(1, |name| name.as_str().len());
    if name > 128 {
        return wrong(
            format!("{at}.sessionName"),
            format!("has {name} characters: it must have at most 128"),
        );
    }
    if session.cookie_config.is_some() && session.kind == SessionKind::Header {
        return wrong(format!("{at}.cookieConfig"), "not allowed with `type: Header`: there is no cookie");
    }
    let permanent = Some(CookieConfig { lifetime_type: CookieLifetime::Permanent });
    if session.cookie_config == permanent && session.absolute_timeout.is_none() {
        return wrong(
            format!("{at}.absoluteTimeout"),
            "missing: a cookie with `lifetimeType: Permanent` lives as long",
        );
    }
    Ok(())
}

impl Check for TcpRoute {
    fn check(&self) -> Result<(), Invalid> {
        check_attached(&self.listeners, &[])?;
        check_tcp_rules(&self.rules)
    }
}

impl Check for Certificate {
    fn check(&self) -> Result<(), Invalid> {
        for (field, path) in [("chain", &self.chain), ("key", &self.key)] {
            if path.as_os_str().is_empty() {
                return wrong(field, "is empty: name a file of PEM");
            }
        }
        Ok(())
    }
}

fn wrong(field: impl Into<String>, reason: impl Into<String>) -> Result<(), Invalid> {
    Err(Invalid::new(field.into(), reason))
}

fn length<T>(field: impl Into<String>, list: &[T], allowed: RangeInclusive<usize>) -> Result<(), Invalid> {
    let (count, least, most) = (list.len(), allowed.start(), allowed.end());
    if allowed.contains(&count) {
        Ok(())
    } else if count == 0 {
        wrong(field, "is empty: it must have at least one entry")
    } else {
        wrong(field, format!("has {count} entries: it must have {least} to {most}"))
    }
}

fn within(field: impl Into<String>, number: u32, allowed: RangeInclusive<u32>) -> Result<(), Invalid> {
    let (least, most) = (allowed.start(), allowed.end());
    match allowed.contains(&number) {
        true => Ok(()),
        false if *most == u32::MAX => {
            wrong(field, format!("{number} is out of range: it must be at least {least}"))
        }
        false => wrong(field, format!("{number} is out of range: it must be {least} to {most}")),
    }
}

/// A duration that, where it is given, must not be 0.
fn positive(field: impl Into<String>, duration: Option<Duration>) -> Result<(), Invalid> {
    match duration {
        Some(duration) if duration.get().is_zero() => wrong(field, "must be longer than 0s"),
        _ => Ok(()),
    }
}

fn unique<'a, T: Hash + Eq + Display + 'a>(
    list: &str,
    values: impl IntoIterator<Item = &'a T>,
) -> Result<(), Invalid> {
    let mut seen = HashSet::new();
    for (index, value) in values.into_iter().enumerate() {
        if !seen.insert(value) {
            return wrong(format!("{list}[{index}]"), format!("`{value}` is in the list already"));
        }
    }
    Ok(())
}

/// Like [`unique`], of one field of each entry, where it is given.
fn unique_some<'a, T: Hash + Eq + Display + 'a>(
    list: &str,
    field: &str,
    values: impl IntoIterator<Item = Option<&'a T>>,
) -> Result<(), Invalid> {
    let mut seen = HashSet::new();
    for (index, value) in values.into_iter().enumerate() {
        if let Some(value) = value
            && !seen.insert(value)
        {
            return wrong(format!("{list}[{index}].{field}"), format!("`{value}` is in the list already"));
        }
    }
    Ok(())
}
