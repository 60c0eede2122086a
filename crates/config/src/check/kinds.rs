//! GRPCRoutes, TLSRoutes, what is done with TLS, and filters of bodies.

use super::filter::{check_filters, check_grpc_filters};
use super::{
    Check, check_attached, check_backend_ref, check_object, check_retry, check_rules, check_session,
    check_timeouts, length, unique, within, wrong,
};
use crate::listener::{ListenerTls, Protocol, TlsMode};
use crate::resource::Invalid;
use crate::route::{Coding, Compression, Decompression, GrpcRoute, GrpcRule, HttpFilter, TcpRule, TlsRoute};

pub(super) fn check_mode(protocol: Option<Protocol>, tls: &ListenerTls) -> Result<(), Invalid> {
    match tls.mode {
        TlsMode::Terminate => length("tls.certificateRefs", &tls.certificate_refs, 1..=usize::MAX),
        TlsMode::Passthrough if protocol != Some(Protocol::Tls) => {
            wrong("tls.mode", "Passthrough is for `protocol: TLS` alone: what is passed on cannot be read")
        }
        TlsMode::Passthrough if !tls.certificate_refs.is_empty() => {
            wrong("tls.certificateRefs", "not allowed with mode Passthrough: the application has its own")
        }
        TlsMode::Passthrough => Ok(()),
    }
}

impl Check for GrpcRoute {
    fn check(&self) -> Result<(), Invalid> {
        check_attached(&self.listeners, &self.hostnames)?;
        check_rules(&self.rules, |rule| rule.name.as_ref())?;
        for (index, rule) in self.rules.iter().enumerate() {
            check_grpc_rule(&format!("rules[{index}]"), rule)?;
        }
        Ok(())
    }
}

fn check_grpc_rule(at: &str, rule: &GrpcRule) -> Result<(), Invalid> {
    length(format!("{at}.matches"), &rule.matches, 0..=64)?;
    for (index, one) in rule.matches.iter().enumerate() {
        length(format!("{at}.matches[{index}].headers"), &one.headers, 0..=16)?;
    }
    let filters = format!("{at}.filters");
    check_grpc_filters(&filters, &rule.filters)?;
    check_filters(&filters, &rule.filters)?;
    length(format!("{at}.backendRefs"), &rule.backend_refs, 0..=16)?;
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let at = format!("{at}.backendRefs[{index}]");
        check_grpc_filters(&format!("{at}.filters"), &backend.filters)?;
        check_backend_ref(&at, backend)?;
    }
    check_timeouts(&format!("{at}.timeouts"), &rule.timeouts)?;
    rule.retry.as_ref().map_or(Ok(()), |retry| check_retry(&format!("{at}.retry"), retry))?;
    check_session(&format!("{at}.sessionPersistence"), rule.session_persistence.as_ref())
}

impl Check for TlsRoute {
    fn check(&self) -> Result<(), Invalid> {
        check_attached(&self.listeners, &self.hostnames)?;
        check_tcp_rules(&self.rules)
    }
}

pub(super) fn check_tcp_rules(rules: &[TcpRule]) -> Result<(), Invalid> {
    length("rules", rules, 1..=1)?;
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("rules[{index}].backendRefs");
        length(at.clone(), &rule.backend_refs, 1..=16)?;
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            check_object(&format!("{at}[{index}]"), backend.object())?;
            within(format!("{at}[{index}].weight"), backend.weight, 0..=1_000_000)?;
        }
    }
    Ok(())
}

/// Filters that change bodies.
pub(super) fn check_body_filter(at: &str, filter: &HttpFilter) -> Result<(), Invalid> {
    match filter {
        HttpFilter::Compression(it) => check_compression(&format!("{at}.compression"), it),
        HttpFilter::Decompression(it) => check_decompression(&format!("{at}.decompression"), it),
        HttpFilter::BodyLimit(it) if it.request_bytes.is_none() && it.response_bytes.is_none() => {
            wrong(format!("{at}.bodyLimit"), "limits nothing: add requestBytes, responseBytes, or both")
        }
        HttpFilter::Buffer(it) if !(1..=1_073_741_824).contains(&it.max_bytes) => {
            let reason = format!("{} is out of range: it must be 1 to 1073741824", it.max_bytes);
            wrong(format!("{at}.buffer.maxBytes"), reason)
        }
        _ => Ok(()),
    }
}

fn check_compression(at: &str, filter: &Compression) -> Result<(), Invalid> {
    let algorithms = format!("{at}.algorithms");
    if let Some(index) = filter.algorithms.iter().position(|coding| *coding == Coding::Deflate) {
        return wrong(
            format!("{algorithms}[{index}]"),
            "Deflate is for requests alone: callers disagree on it",
        );
    }
    length(algorithms.clone(), &filter.algorithms, 1..=3)?;
    unique(&algorithms, &filter.algorithms)?;
    length(format!("{at}.contentTypes"), &filter.content_types, 1..=64)
}

fn check_decompression(at: &str, filter: &Decompression) -> Result<(), Invalid> {
    let algorithms = format!("{at}.algorithms");
    length(algorithms.clone(), &filter.algorithms, 1..=4)?;
    unique(&algorithms, &filter.algorithms)?;
    within(format!("{at}.maxRatio"), filter.max_ratio, 1..=u32::MAX)?;
    if filter.max_bytes == 0 {
        return wrong(format!("{at}.maxBytes"), "must be 1 or more: leave it out for 10 MiB");
    }
    Ok(())
}
