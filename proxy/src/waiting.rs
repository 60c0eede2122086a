//! The page that a browser gets while the application behind a backend cannot be connected to: it says so, and gives way
//! to the application once it is up.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request};
use outrigger_http::{Error, PROXY_STATUS, Reason};

use crate::local::LocalBackend;

/// Put on a request by the page's own script, which looks whether the application is up.
const LOOKING: HeaderName = HeaderName::from_static("outrigger-waiting");

const PAGE: &str = include_str!("waiting.html");

/// What a request wants to have while the application is not up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The page, for this host.
    Page(String),
    /// To know whether it is up yet: the page asks so each second, of which nobody needs a line in the log.
    Look,
}

impl Waiting {
    /// What a request wants; `None` if it is neither a browser that opens a page, nor the page itself.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        match *request.method() {
            Method::GET if headers.contains_key(LOOKING) => Some(Self::Look),
            Method::GET if wants_html(headers) => {
                let host = request.uri().authority().map(|authority| authority.as_str().as_bytes());
                let host = host.or(headers.get(HOST).map(HeaderValue::as_bytes)).unwrap_or_default();
                Some(Self::Page(String::from_utf8_lossy(host).into_owned()))
            }
            _ => None,
        }
    }
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.into_iter().any(|value| value.contains("text/html"))
}

/// Whether an error means that the application is not up, as far as can be told. A container's port may take connections
/// before the application within does, and drop them.
pub(crate) const fn is_not_up(error: &Error) -> bool {
    matches!(
        error.reason,
        Reason::ConnectionRefused
            | Reason::ConnectionTimeout
            | Reason::ConnectionTerminated
            | Reason::DnsError
            | Reason::DestinationUnavailable
    )
}

/// The page, with its headers.
pub(crate) fn page(host: &str, to: &LocalBackend, error: &Error) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(PROXY_STATUS, error.proxy_status());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let text = fill(&[
        ("host", escape(name)),
        ("why", why(to, error)),
        ("error", escape(&error.to_string())),
        ("backend", escape(&to.backend.name)),
    ]);
    (headers, text.into())
}

fn why(to: &LocalBackend, error: &Error) -> String {
    let addresses: Vec<_> =
        to.backend.endpoints.iter().map(|e| format!("<code>{}</code>", e.address)).collect();
    match error.reason {
        Reason::ConnectionRefused => format!("Nothing listens on {} yet.", addresses.join(" or ")),
        Reason::ConnectionTimeout => format!("{} does not answer.", addresses.join(" or ")),
        Reason::ConnectionTerminated => {
            format!("{} takes connections, and closes them without an answer.", addresses.join(" or "))
        }
        _ => format!("{}.", escape(&error.details)),
    }
}

/// The page with its `{{…}}` filled in, in one pass: what is filled in is not looked at again.
fn fill(values: &[(&str, String)]) -> String {
    let mut page = String::with_capacity(PAGE.len() + 512);
    let mut rest = PAGE;
    while let Some((before, (key, after))) =
        rest.split_once("{{").and_then(|(before, inside)| Some((before, inside.split_once("}}")?)))
    {
        page.push_str(before);
        if let Some((_, value)) = values.iter().find(|(name, _)| *name == key) {
            page.push_str(value);
        }
        rest = after;
    }
    page.push_str(rest);
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().method(method).uri("/");
        headers.iter().fold(builder, |b, (name, value)| b.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn a_browser_that_opens_a_page_gets_one_and_nobody_else() {
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let page = Some(Waiting::Page("shop.localhost:8443".into()));
        assert_eq!(Waiting::of(&request("GET", &[html, ("host", "shop.localhost:8443")])), page);
        assert_eq!(Waiting::of(&request("GET", &[("accept", "*/*")])), None);
        assert_eq!(Waiting::of(&request("POST", &[html])), None);
        assert_eq!(Waiting::of(&request("GET", &[("outrigger-waiting", "1")])), Some(Waiting::Look));
    }

    #[test]
    fn what_is_filled_in_is_text_and_is_filled_in_once() {
        let page = fill(&[("host", escape("<script>{{why}}")), ("why", "WHY".into())]);
        assert!(page.contains("<title>&lt;script&gt;{{why}} is not up yet</title>"));
        assert!(page.contains("<p>WHY</p>") && !page.contains("{{error}}"));
    }
}
