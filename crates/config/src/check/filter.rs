//! What a filter must be by itself, and beside the others.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::mem::discriminant;

use super::kinds::check_body_filter;
use super::{check_object, length, unique, unique_some, within, wrong};
use crate::resource::Invalid;
use crate::route::{
    Abort, Cors, ExternalAuth, Fault, FixedResponse, Fraction, HeaderField, HeaderModifier, HttpFilter,
    HttpRule, PathMatch, PathModifier, RequestMirror, RequestRedirect, check_path,
};
use crate::scalar::{CorsOrigin, HeaderName, Hostname};

/// Headers that frame a message or belong to one connection (RFC 9110, sections 7.6.1 and 8.6; RFC 9112, section 6):
/// changing one would change where a message ends.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The filters of a rule, and those of its backends, as far as the rule's other fields concern them.
pub(super) fn check_rule_filters(at: &str, rule: &HttpRule) -> Result<(), Invalid> {
    check_filters(&format!("{at}.filters"), &rule.filters)?;
    if let Some(filter) = rule.filters.iter().find(|filter| answers(filter))
        && !rule.backend_refs.is_empty()
    {
        let reason = format!("not allowed beside the filter {}, which answers every request", filter.name());
        return wrong(format!("{at}.backendRefs"), reason);
    }
    let has_prefix = match rule.matches.as_slice() {
        [] => true,
        [one] => matches!(one.path, None | Some(PathMatch::PathPrefix(_))),
        _ => false,
    };
    let mut lists = vec![(format!("{at}.filters"), &rule.filters)];
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        lists.push((format!("{at}.backendRefs[{index}].filters"), &backend.filters));
    }
    for (at, filters) in lists {
        for (index, filter) in filters.iter().enumerate() {
            let (field, path) = match filter {
                HttpFilter::RequestRedirect(redirect) => ("requestRedirect", &redirect.path),
                HttpFilter::UrlRewrite(rewrite) => ("urlRewrite", &rewrite.path),
                _ => continue,
            };
            if matches!(path, Some(PathModifier::ReplacePrefixMatch(_))) && !has_prefix {
                let reason =
                    "needs a rule with exactly one match, by PathPrefix: it says which prefix is replaced";
                return wrong(format!("{at}[{index}].{field}.path.replacePrefixMatch"), reason);
            }
        }
    }
    Ok(())
}

/// Whether a filter answers requests itself.
const fn answers(filter: &HttpFilter) -> bool {
    matches!(filter, HttpFilter::RequestRedirect(_) | HttpFilter::FixedResponse(_))
}

pub(super) fn check_filters(at: &str, filters: &[HttpFilter]) -> Result<(), Invalid> {
    length(at, filters, 0..=16)?;
    for (index, filter) in filters.iter().enumerate() {
        let before = filters.get(..index).unwrap_or_default();
        let repeatable = matches!(filter, HttpFilter::RequestMirror(_) | HttpFilter::Fault(_));
        if !repeatable && before.iter().any(|other| discriminant(other) == discriminant(filter)) {
            return wrong(format!("{at}[{index}].type"), "a second filter of this type: put both into one");
        }
        let excluded = |other: &&HttpFilter| {
            let rewrites = |filter: &HttpFilter| matches!(filter, HttpFilter::UrlRewrite(_));
            (answers(filter) && (answers(other) || rewrites(other))) || (rewrites(filter) && answers(other))
        };
        if let Some(other) = before.iter().find(excluded) {
            let reason =
                format!("{} is not allowed beside {}: keep one of them", filter.name(), other.name());
            return wrong(format!("{at}[{index}].type"), reason);
        }
        check_filter(&format!("{at}[{index}]"), filter)?;
    }
    Ok(())
}

fn check_filter(at: &str, filter: &HttpFilter) -> Result<(), Invalid> {
    match filter {
        HttpFilter::RequestHeaderModifier(it) => check_modifier(&format!("{at}.requestHeaderModifier"), it),
        HttpFilter::ResponseHeaderModifier(it) => check_modifier(&format!("{at}.responseHeaderModifier"), it),
        HttpFilter::RequestRedirect(it) => check_redirect(&format!("{at}.requestRedirect"), it),
        HttpFilter::UrlRewrite(it) => check_hostname(&format!("{at}.urlRewrite"), it.hostname.as_ref()),
        HttpFilter::RequestMirror(it) => check_mirror(&format!("{at}.requestMirror"), it),
        HttpFilter::Cors(it) => check_cors(&format!("{at}.cors"), it),
        HttpFilter::ExternalAuth(it) => check_auth(&format!("{at}.externalAuth"), it),
        HttpFilter::FixedResponse(it) => check_fixed_response(&format!("{at}.fixedResponse"), it),
        HttpFilter::Fault(it) => check_fault(&format!("{at}.fault"), it),
        HttpFilter::Compression(_)
        | HttpFilter::Decompression(_)
        | HttpFilter::BodyLimit(_)
        | HttpFilter::Buffer(_)
        | HttpFilter::GrpcWeb(_) => check_body_filter(at, filter),
    }
}

/// A GRPCRoute has the filters that make sense of a call: those of the Gateway API's `GRPCRouteFilter`, and of ours.
pub(super) fn check_grpc_filters(at: &str, filters: &[HttpFilter]) -> Result<(), Invalid> {
    let allowed = |filter: &HttpFilter| {
        matches!(
            filter,
            HttpFilter::RequestHeaderModifier(_)
                | HttpFilter::ResponseHeaderModifier(_)
                | HttpFilter::RequestMirror(_)
                | HttpFilter::Cors(_)
                | HttpFilter::Fault(_)
                | HttpFilter::BodyLimit(_)
                | HttpFilter::GrpcWeb(_)
        )
    };
    match filters.iter().enumerate().find(|(_, filter)| !allowed(filter)) {
        Some((index, filter)) => {
            let reason = format!("{} is not for a GRPCRoute: use an HTTPRoute", filter.name());
            wrong(format!("{at}[{index}].type"), reason)
        }
        None => Ok(()),
    }
}

fn check_modifier(at: &str, modifier: &HeaderModifier) -> Result<(), Invalid> {
    check_names(&format!("{at}.set"), ".name", modifier.set.iter().map(|field| &field.name), 16)?;
    check_names(&format!("{at}.add"), ".name", modifier.add.iter().map(|field| &field.name), 16)?;
    check_names(&format!("{at}.remove"), "", &modifier.remove, 16)
}

fn check_names<'a>(
    at: &str,
    field: &str,
    names: impl IntoIterator<Item = &'a HeaderName>,
    most: usize,
) -> Result<(), Invalid> {
    let names: Vec<_> = names.into_iter().collect();
    length(at, &names, 0..=most)?;
    let mut seen = HashSet::new();
    for (index, name) in names.into_iter().enumerate() {
        let at = || format!("{at}[{index}]{field}");
        if FRAMING.contains(&name.0.as_str()) {
            return wrong(at(), format!("`{name}` frames the message: it cannot be changed"));
        }
        if !seen.insert(name) {
            return wrong(at(), format!("`{name}` is in this list already: name each header once"));
        }
    }
    Ok(())
}

fn check_redirect(at: &str, redirect: &RequestRedirect) -> Result<(), Invalid> {
    check_hostname(at, redirect.hostname.as_ref())?;
    if redirect.port == Some(0) {
        return wrong(format!("{at}.port"), "0 is out of range: it must be 1 to 65535");
    }
    if !matches!(redirect.status_code, 301 | 302 | 303 | 307 | 308) {
        let reason = format!("{} is not a redirection: use 301, 302, 303, 307 or 308", redirect.status_code);
        return wrong(format!("{at}.statusCode"), reason);
    }
    Ok(())
}

fn check_hostname(at: &str, hostname: Option<&Hostname>) -> Result<(), Invalid> {
    match hostname {
        Some(Hostname::Wildcard(_)) => wrong(format!("{at}.hostname"), "a wildcard is not a host: write one"),
        _ => Ok(()),
    }
}

fn check_mirror(at: &str, mirror: &RequestMirror) -> Result<(), Invalid> {
    check_object(&format!("{at}.backendRef"), mirror.backend_ref.object())?;
    check_portion(at, mirror.percent, mirror.fraction)
}

fn check_portion(at: &str, percent: Option<u32>, fraction: Option<Fraction>) -> Result<(), Invalid> {
    if percent.is_some() && fraction.is_some() {
        return wrong(format!("{at}.fraction"), "not allowed beside percent: keep one of them");
    }
    within(format!("{at}.percent"), percent.unwrap_or(0), 0..=100)?;
    let Some(fraction) = fraction else { return Ok(()) };
    if fraction.denominator == 0 {
        return wrong(format!("{at}.fraction.denominator"), "0 is out of range: it must be at least 1");
    }
    within(format!("{at}.fraction.numerator"), fraction.numerator, 0..=fraction.denominator)
}

fn check_cors(at: &str, cors: &Cors) -> Result<(), Invalid> {
    check_list(&format!("{at}.allowOrigins"), &cors.allow_origins, |it| *it == CorsOrigin::Any, 64)?;
    check_list(&format!("{at}.allowMethods"), &cors.allow_methods, |it| it.0.as_str() == "*", 16)?;
    let any = |name: &HeaderName| name.0 == "*";
    check_list(&format!("{at}.allowHeaders"), &cors.allow_headers, any, 64)?;
    let exposed = format!("{at}.exposeHeaders");
    length(exposed.clone(), &cors.expose_headers, 0..=64)?;
    unique(&exposed, &cors.expose_headers)?;
    within(format!("{at}.maxAge"), cors.max_age, 1..=u32::MAX)
}

/// A list in which `*` stands for everything, and so alone.
fn check_list<T: Hash + Eq + Display>(
    at: &str,
    list: &[T],
    any: impl Fn(&T) -> bool,
    most: usize,
) -> Result<(), Invalid> {
    length(at, list, 0..=most)?;
    unique(at, list)?;
    match list.iter().position(any) {
        Some(index) if list.len() > 1 => {
            wrong(format!("{at}[{index}]"), "`*` stands for all: leave out either it or the others")
        }
        _ => Ok(()),
    }
}

fn check_auth(at: &str, auth: &ExternalAuth) -> Result<(), Invalid> {
    check_object(&format!("{at}.backendRef"), auth.backend_ref.object())?;
    if let Some(path) = &auth.http.path
        && let Err(refused) = check_path(path)
    {
        return wrong(format!("{at}.http.path"), refused.to_string());
    }
    check_names(&format!("{at}.http.allowedHeaders"), "", &auth.http.allowed_headers, 64)?;
    check_names(&format!("{at}.http.allowedResponseHeaders"), "", &auth.http.allowed_response_headers, 64)
}

fn check_fixed_response(at: &str, fixed: &FixedResponse) -> Result<(), Invalid> {
    within(format!("{at}.status"), u32::from(fixed.status), 200..=599)?;
    let body = fixed.body.as_deref().unwrap_or_default();
    if !body.is_empty() && matches!(fixed.status, 204 | 205 | 304) {
        return wrong(format!("{at}.body"), format!("a response with status {} has none", fixed.status));
    }
    if body.len() > 65_536 {
        return wrong(format!("{at}.body"), format!("has {} bytes: it must have 65536 at most", body.len()));
    }
    let names = || fixed.headers.iter().map(|field: &HeaderField| &field.name);
    check_names(&format!("{at}.headers"), ".name", names(), 16)?;
    match names().position(|name| name.0 == http::header::CONTENT_TYPE) {
        Some(index) => wrong(format!("{at}.headers[{index}].name"), "use the field contentType for it"),
        None => Ok(()),
    }
}

fn check_fault(at: &str, fault: &Fault) -> Result<(), Invalid> {
    length(format!("{at}.headers"), &fault.headers, 0..=16)?;
    unique_some(&format!("{at}.headers"), "name", fault.headers.iter().map(|header| Some(&header.name)))?;
    if fault.delay.is_none() && fault.abort.is_none() {
        return wrong(at, "does nothing: give it a delay, an abort, or both");
    }
    if let Some(delay) = &fault.delay {
        check_portion(&format!("{at}.delay"), delay.percent, delay.fraction)?;
    }
    fault.abort.as_ref().map_or(Ok(()), |abort| check_abort(&format!("{at}.abort"), abort))
}

fn check_abort(at: &str, abort: &Abort) -> Result<(), Invalid> {
    match (abort.status, abort.grpc_status) {
        (None, None) => return wrong(at, "missing: status, or grpcStatus"),
        (Some(_), Some(_)) => {
            return wrong(format!("{at}.grpcStatus"), "not allowed beside status: keep one of them");
        }
        (Some(status), None) => within(format!("{at}.status"), u32::from(status), 200..=599)?,
        (None, Some(status)) => within(format!("{at}.grpcStatus"), u32::from(status), 1..=16)?,
    }
    check_portion(at, abort.percent, abort.fraction)
}
