//! What a match wants, in words.

use crate::route::{GrpcCall, HttpMatch, PathMatch, ValueMatch};

/// All that a match wants: ``path `/api` or below it, method GET, header x-env exactly `canary` ``.
pub(super) fn conditions(one: &HttpMatch) -> String {
    let path = one.path.iter().map(|wanted| format!("path {}", path(wanted)));
    let method = one.method.iter().map(|method| format!("method {method}"));
    let headers = one.headers().map(|h| format!("header {} {}", h.name, value(&h.value)));
    let query = one.query_params().map(|q| format!("query parameter {} {}", q.name, value(&q.value)));
    let call = one.grpc.iter().map(call);
    let all: Vec<String> = path.chain(call).chain(method).chain(headers).chain(query).collect();
    if all.is_empty() { "any request".into() } else { all.join(", ") }
}

/// What call of gRPC it must be.
pub(super) fn call(wanted: &GrpcCall) -> String {
    let method =
        wanted.method.as_ref().map_or_else(String::new, |method| format!(" of the method `{method}`"));
    format!("a call of gRPC{method}")
}

/// What a path must be.
pub(super) fn path(wanted: &PathMatch) -> String {
    match wanted {
        PathMatch::Exact(path) => format!("exactly `{path}`"),
        PathMatch::PathPrefix(prefix) if prefix.is_empty() => "`/` or below it".into(),
        PathMatch::PathPrefix(prefix) => format!("`{prefix}` or below it"),
        PathMatch::RegularExpression(pattern) => format!("like `{pattern}`"),
    }
}

/// What a value must be.
pub(super) fn value(wanted: &ValueMatch) -> String {
    match wanted {
        ValueMatch::Exact(text) => format!("exactly `{text}`"),
        ValueMatch::RegularExpression(pattern) => format!("like `{pattern}`"),
    }
}

/// What there is instead.
pub(super) fn got(value: Option<&str>) -> String {
    value.map_or_else(|| "got none".into(), |value| format!("got `{value}`"))
}
