//! What a filter must be by itself, and beside the others.

use std::collections::HashSet;

use super::kinds::check_body_filter;
use super::{length, wrong};
use crate::resource::Invalid;
use crate::route::{HeaderField, HeaderModifier, HttpFilter};

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

pub(super) fn check_filters(at: &str, filters: &[HttpFilter]) -> Result<(), Invalid> {
    length(at, filters, 0..=16)?;
    let mut seen = HashSet::new();
    for (index, filter) in filters.iter().enumerate() {
        if !seen.insert(std::mem::discriminant(filter)) {
            return wrong(format!("{at}[{index}].type"), "a second filter of this type: put both into one");
        }
        match filter {
            HttpFilter::RequestHeaderModifier(modifier) => {
                check_modifier(&format!("{at}[{index}].requestHeaderModifier"), modifier)?;
            }
            HttpFilter::ResponseHeaderModifier(modifier) => {
                check_modifier(&format!("{at}[{index}].responseHeaderModifier"), modifier)?;
            }
            HttpFilter::Compression(_)
            | HttpFilter::Decompression(_)
            | HttpFilter::BodyLimit(_)
            | HttpFilter::Buffer(_)
            | HttpFilter::GrpcWeb(_) => check_body_filter(&format!("{at}[{index}]"), filter)?,
        }
    }
    Ok(())
}

/// A GRPCRoute has the filters that make sense of a call: those of the Gateway API's `GRPCRouteFilter`, and of ours.
pub(super) fn check_grpc_filters(at: &str, filters: &[HttpFilter]) -> Result<(), Invalid> {
    let allowed = |filter: &HttpFilter| {
        matches!(
            filter,
            HttpFilter::RequestHeaderModifier(_)
                | HttpFilter::ResponseHeaderModifier(_)
                | HttpFilter::BodyLimit(_)
                | HttpFilter::GrpcWeb(_)
        )
    };
    match filters.iter().position(|filter| !allowed(filter)) {
        Some(index) => wrong(format!("{at}[{index}].type"), "not for a GRPCRoute: use an HTTPRoute"),
        None => Ok(()),
    }
}

fn check_modifier(at: &str, modifier: &HeaderModifier) -> Result<(), Invalid> {
    let named = |fields: &[HeaderField]| fields.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    for (list, names, field) in [
        ("set", named(&modifier.set), ".name"),
        ("add", named(&modifier.add), ".name"),
        ("remove", modifier.remove.clone(), ""),
    ] {
        let at = format!("{at}.{list}");
        length(at.clone(), &names, 0..=16)?;
        let mut seen = HashSet::new();
        for (index, name) in names.iter().enumerate() {
            let at = || format!("{at}[{index}]{field}");
            if FRAMING.contains(&name.0.as_str()) {
                return wrong(at(), format!("`{name}` frames the message: it cannot be changed"));
            }
            if !seen.insert(name) {
                return wrong(at(), format!("`{name}` is in this list already: name each header once"));
            }
        }
    }
    Ok(())
}
