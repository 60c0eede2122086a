//! The head of a message: where it ends, what it says, and whether it can be understood in one way alone. What could
//! be understood in another way by the next one who reads it is refused here, and so never forwarded (RFC 9112,
//! sections 2.2, 3, 5 and 6).

use std::mem::MaybeUninit;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, StatusCode, Uri, Version};
use httparse::{EMPTY_HEADER, Header, Status};

use super::spelling::{SPELLING, Spelling};
use crate::error::{Error, Reason};
use crate::filter::strip_passed_on;

/// How much header a message may have, trailers included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, the first line and line ends included.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 * 1024, fields: 128 }
    }
}

/// How the end of a message's body is found (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length, which is 0 where there is no body.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// The head of a request.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) spelling: Rc<Spelling>,
    pub(super) framing: Framing,
    /// Whether the caller may send another request on the connection.
    pub(super) keep_alive: bool,
}

/// The head of a response.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) spelling: Rc<Spelling>,
    pub(super) framing: Framing,
    /// Whether the backend takes another request on the connection.
    pub(super) keep_alive: bool,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is not HTTP, or could be understood in two ways.
    Malformed(&'static str),
    /// It is not HTTP/1.0 or HTTP/1.1.
    Version,
    /// Its body has a transfer coding that nobody here knows.
    Coding,
    /// Its first line alone is longer than a head may be.
    FirstLine,
    /// It has more bytes than allowed.
    Bytes,
    /// It has more fields than allowed.
    Fields,
    /// It did not come in time.
    Late,
}

impl Wrong {
    /// What the caller is told of its request.
    pub(crate) fn of_request(self, limits: &Limits) -> Error {
        let (reason, details) = match self {
            Self::Malformed(why) => (Reason::HttpRequestError, why.to_owned()),
            Self::Version => {
                (Reason::HttpVersionNotSupported, "HTTP/1.0 and HTTP/1.1 are spoken here".into())
            }
            Self::Coding => (
                Reason::HttpTransferCodingNotSupported,
                "the one transfer coding known here is chunked".into(),
            ),
            Self::FirstLine => {
                (Reason::HttpRequestUriTooLong, format!("the limit is {} bytes of header", limits.bytes))
            }
            Self::Bytes | Self::Fields => (Reason::HttpRequestHeaderSectionSize, self.limit(limits)),
            Self::Late => (Reason::HttpRequestTimeout, "the request's header took too long".into()),
        };
        Error::unsent(reason, details)
    }

    /// What the caller is told of the backend's response, and its [`Error::details`] begin with `from`.
    pub(crate) fn of_response(self, limits: &Limits, from: &str) -> Error {
        let (reason, details) = match self {
            Self::Malformed(why) => (Reason::HttpResponseIncomplete, why.to_owned()),
            Self::Version => (Reason::HttpResponseIncomplete, "not HTTP/1.0 or HTTP/1.1".into()),
            Self::Coding => (Reason::HttpResponseTransferCoding, "the one known here is chunked".into()),
            Self::FirstLine => (Reason::HttpResponseHeaderSectionSize, Self::Bytes.limit(limits)),
            Self::Bytes | Self::Fields => (Reason::HttpResponseHeaderSectionSize, self.limit(limits)),
            Self::Late => (Reason::HttpResponseTimeout, "the response's header took too long".into()),
        };
        Error::sent(reason, format!("{from}: {details}"))
    }

    fn limit(self, limits: &Limits) -> String {
        match self {
            Self::Fields => format!("the limit is {} header fields", limits.fields),
            _ => format!("the limit is {} bytes of header", limits.bytes),
        }
    }
}

/// Looks for the empty line that ends a head, and at each byte but once.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// What has been looked at.
    seen: usize,
    /// Where the line begins that has not ended yet.
    line: usize,
}

impl Scanner {
    /// Where the head ends, if all of it is there. Afterwards the scanner is ready for another head.
    pub(super) fn end(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, Wrong> {
        let new = buffer.get(self.seen..).unwrap_or_default();
        for found in memchr::memchr_iter(b'\n', new) {
            let at = self.seen + found;
            // By its length, not by how much of it comes at a time.
            if self.line == 0 && at >= limits.bytes {
                return Err(Wrong::FirstLine);
            }
            if at.checked_sub(1).and_then(|before| buffer.get(before)) != Some(&b'\r') {
                return Err(Wrong::Malformed("a line ends without CR"));
            }
            if at - 1 == self.line {
                *self = Self::default();
                return if at + 1 > limits.bytes { Err(Wrong::Bytes) } else { Ok(Some(at + 1)) };
            }
            self.line = at + 1;
        }
        self.seen = buffer.len();
        match buffer.len() > limits.bytes {
            true if self.line == 0 => Err(Wrong::FirstLine),
            true => Err(Wrong::Bytes),
            false => Ok(None),
        }
    }
}

/// The length of `HTTP/1.1 200 `, after which the words of a status line come.
const STATUS_LINE: usize = 13;

/// How many fields a listener commonly adds to what passes through it: `x-forwarded-*` and `via` to a request, `via` to a
/// response. A map that has no room for them is made anew for each of the first few.
const TOLD_TO_CALLEES: usize = 5;
const TOLD_TO_CALLERS: usize = 1;

/// Reads the head of a request, which ends with its empty line.
pub(super) fn request(raw: Bytes, limits: &Limits) -> Result<RequestHead, Wrong> {
    with_room(limits, |room| {
        let mut parsed = httparse::Request::new(&mut []);
        complete(parsed.parse_with_uninit_headers(&raw, room)).map_err(|wrong| of_version(wrong, &raw))?;
        let version = version(parsed.version)?;
        let method = parsed.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let method = method.ok_or(Wrong::Malformed("the method is not valid"))?;
        let mut spelling = Spelling::of(raw.clone());
        let target = parsed.path.unwrap_or_default();
        let uri = uri(&method, target, &raw)?;
        let mut headers = fields(&raw, parsed.headers, TOLD_TO_CALLEES, &mut spelling)?;
        host(&method, &uri, version, &headers)?;
        let uri = origin_form(&method, target, uri, &mut headers)?;
        let framing = framing(&mut headers, version)?.unwrap_or(Framing::Length(0));
        let keep_alive = keeps_alive(version, &headers);
        Ok(RequestHead { method, uri, version, headers, spelling: Rc::new(spelling), framing, keep_alive })
    })
}

/// Reads the head of a response to a request with `method`.
pub(super) fn response(raw: Bytes, limits: &Limits, method: &Method) -> Result<ResponseHead, Wrong> {
    with_room(limits, |room| {
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        complete(config.parse_response_with_uninit_headers(&mut parsed, &raw, room))?;
        let version = version(parsed.version)?;
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Wrong::Malformed("the status is not valid"))?;
        let mut spelling = Spelling::of(raw.clone());
        spelling.reason_after(STATUS_LINE);
        let mut headers = fields(&raw, parsed.headers, TOLD_TO_CALLERS, &mut spelling)?;
        let framed = framing(&mut headers, version)?;
        let framing = match framed {
            _ if has_no_body(method, status) => Framing::Length(0),
            framed => framed.unwrap_or(Framing::Close),
        };
        let keep_alive = keeps_alive(version, &headers) && framing != Framing::Close;
        Ok(ResponseHead { status, headers, spelling: Rc::new(spelling), framing, keep_alive })
    })
}

/// Reads the trailers of a chunked body, which end with an empty line. What frames a message or routes a request has no
/// business there (RFC 9110, section 6.5.1) and is dropped.
pub(super) fn trailers(raw: Bytes, limits: &Limits) -> Result<HeaderMap, Wrong> {
    let mut room = vec![EMPTY_HEADER; limits.fields];
    let parsed = match httparse::parse_headers(&raw, &mut room) {
        Ok(Status::Complete((_, parsed))) => parsed,
        Ok(Status::Partial) => return Err(Wrong::Malformed("the trailers are not complete")),
        Err(error) => return Err(wrong(error)),
    };
    let mut spelling = Spelling::of(raw.clone());
    let mut trailers = fields(&raw, parsed, 0, &mut spelling)?;
    for name in [header::CONTENT_LENGTH, header::HOST] {
        trailers.remove(name);
    }
    strip_passed_on(&mut trailers, false);
    trailers.remove(header::TE);
    if let Some(spelling) = spelling.to_value() {
        trailers.insert(SPELLING, spelling);
    }
    Ok(trailers)
}

/// Whether a response never has a body (RFC 9112, section 6.3).
pub(super) fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || (*method == Method::CONNECT && status.is_success())
}

/// Room for as many fields as are allowed: on the stack for as many as there commonly are.
fn with_room<'b, T>(limits: &Limits, parse: impl FnOnce(&mut [MaybeUninit<Header<'b>>]) -> T) -> T {
    const COMMON: usize = 128;
    if limits.fields <= COMMON {
        let mut room = [const { MaybeUninit::uninit() }; COMMON];
        parse(room.get_mut(..limits.fields).unwrap_or_default())
    } else {
        parse(&mut vec![MaybeUninit::uninit(); limits.fields])
    }
}

fn complete(parsed: httparse::Result<usize>) -> Result<(), Wrong> {
    match parsed {
        Ok(Status::Complete(_)) => Ok(()),
        Ok(Status::Partial) => Err(Wrong::Malformed("the head is not complete")),
        Err(error) => Err(wrong(error)),
    }
}

const fn wrong(error: httparse::Error) -> Wrong {
    match error {
        httparse::Error::HeaderName => Wrong::Malformed("a field has a name that is not valid"),
        httparse::Error::HeaderValue => Wrong::Malformed("a field has a value that is not valid"),
        httparse::Error::NewLine => Wrong::Malformed("a line ends where it must not"),
        httparse::Error::Status => Wrong::Malformed("the status is not valid"),
        httparse::Error::Token => Wrong::Malformed("the first line is not valid"),
        httparse::Error::TooManyHeaders => Wrong::Fields,
        httparse::Error::Version => Wrong::Version,
    }
}

const fn version(minor: Option<u8>) -> Result<Version, Wrong> {
    match minor {
        Some(1) => Ok(Version::HTTP_11),
        Some(0) => Ok(Version::HTTP_10),
        _ => Err(Wrong::Version),
    }
}

/// The fields, whose values share the head's bytes, with room for so many more.
fn fields(
    raw: &Bytes,
    parsed: &[Header<'_>],
    more: usize,
    spelling: &mut Spelling,
) -> Result<HeaderMap, Wrong> {
    let mut headers = HeaderMap::try_with_capacity(parsed.len() + more).map_err(|_| Wrong::Fields)?;
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Wrong::Malformed("a field has a name that is not valid"))?;
        let value = HeaderValue::from_maybe_shared(raw.slice_ref(field.value))
            .map_err(|_| Wrong::Malformed("a field has a value that is not valid"))?;
        spelling.name(field.name);
        headers.try_append(name, value).map_err(|_| Wrong::Fields)?;
    }
    Ok(headers)
}

/// What is wrong with a version: it is another one, or none at all (RFC 9112, section 2.3).
fn of_version(wrong: Wrong, raw: &[u8]) -> Wrong {
    let line = raw.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match line.get(line.len().saturating_sub(9)..) {
        Some([b' ', b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => wrong,
        _ if wrong == Wrong::Version => Wrong::Malformed("the first line is not valid"),
        _ => wrong,
    }
}

/// The target as a URI: a path, `*`, or an absolute one; of CONNECT an authority (RFC 9112, section 3.2).
fn uri(method: &Method, target: &str, raw: &Bytes) -> Result<Uri, Wrong> {
    const WRONG: Wrong = Wrong::Malformed("the target is not valid");
    let is_authority = *method == Method::CONNECT;
    if target.contains('#') || (is_authority && target.contains('/')) {
        return Err(WRONG);
    }
    let uri = Uri::from_maybe_shared(raw.slice_ref(target.as_bytes())).map_err(|_| WRONG)?;
    let valid = match (uri.scheme_str(), uri.authority()) {
        (None, Some(authority)) => is_authority && authority.port().is_some(),
        (Some("http" | "https"), Some(authority)) => !is_authority && !authority.as_str().contains('@'),
        (Some(_), _) => false,
        (None, None) => target.starts_with('/') || (target == "*" && *method == Method::OPTIONS),
    };
    if valid { Ok(uri) } else { Err(WRONG) }
}

/// An absolute target as a server is told it: a path, or `*`, with its authority in `Host` (RFC 9112, sections 3.2.2 and
/// 3.2.4).
fn origin_form(method: &Method, target: &str, uri: Uri, headers: &mut HeaderMap) -> Result<Uri, Wrong> {
    const WRONG: Wrong = Wrong::Malformed("the target is not valid");
    let Some((scheme, authority)) = uri.scheme_str().zip(uri.authority()) else { return Ok(uri) };
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| WRONG)?;
    headers.insert(header::HOST, host);
    let rest = target.get(scheme.len() + "://".len() + authority.as_str().len()..).unwrap_or_default();
    match rest {
        "" if *method == Method::OPTIONS => Ok(Uri::from_static("*")),
        "" => Ok(Uri::from_static("/")),
        path if path.starts_with('/') => path.parse().map_err(|_| WRONG),
        query => format!("/{query}").parse().map_err(|_| WRONG),
    }
}

/// One valid host, which an absolute target agrees with (RFC 9112, section 3.2). HTTP/1.0 need not have any.
fn host(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), Wrong> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes(),
        (None, _) if version == Version::HTTP_10 => return Ok(()),
        (None, _) => return Err(Wrong::Malformed("HTTP/1.1 wants a Host")),
        (Some(_), Some(_)) => return Err(Wrong::Malformed("there is more than one Host")),
    };
    if host.is_empty() {
        return if uri.authority().is_none() { Ok(()) } else { Err(Wrong::Malformed("the Host is empty")) };
    }
    let named = Authority::try_from(host).ok().filter(|authority| !authority.as_str().contains('@'));
    // What follows the last colon is a port, but within the brackets of an IPv6 address.
    let port = named.as_ref().and_then(|authority| authority.as_str().strip_prefix(authority.host()));
    if !port.is_some_and(|port| port.bytes().skip(1).all(|byte| byte.is_ascii_digit())) {
        return Err(Wrong::Malformed("the Host is not valid"));
    }
    match uri.authority() {
        Some(authority) if *method != Method::CONNECT && !same_host(authority, host, uri.scheme_str()) => {
            Err(Wrong::Malformed("the target and Host do not agree"))
        }
        _ => Ok(()),
    }
}

/// Whether both are the same host and port. A port that the scheme implies may be left out.
pub(crate) fn same_host(authority: &Authority, host: &[u8], scheme: Option<&str>) -> bool {
    let default: &[u8] = if scheme == Some("https") { b":443" } else { b":80" };
    let bare = |text: &[u8]| text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase();
    bare(authority.as_str().as_bytes()) == bare(host)
}

/// How the end of the body is found; `None` if the header does not say (RFC 9112, sections 6.1 to 6.3). A length that was
/// said several times is afterwards said once.
fn framing(headers: &mut HeaderMap, version: Version) -> Result<Option<Framing>, Wrong> {
    let (length, times) = length(headers)?;
    if let Some(length) = length.filter(|_| times > 1) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter().peekable();
    if codings.peek().is_none() {
        return Ok(length.map(Framing::Length));
    }
    if length.is_some() {
        return Err(Wrong::Malformed("there are both a Content-Length and a Transfer-Encoding"));
    }
    if version == Version::HTTP_10 {
        return Err(Wrong::Malformed("HTTP/1.0 has no Transfer-Encoding"));
    }
    let mut chunked = 0;
    for coding in codings.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
        match coding.trim_ascii() {
            // An empty member of a list is none (RFC 9110, section 5.6.1.2), but here it is suspicious.
            coding if coding.eq_ignore_ascii_case(b"chunked") => chunked += 1,
            b"" => return Err(Wrong::Malformed("the Transfer-Encoding is not valid")),
            _ => return Err(Wrong::Coding),
        }
    }
    match chunked {
        1 => Ok(Some(Framing::Chunked)),
        _ => Err(Wrong::Malformed("a body is chunked once, not more often")),
    }
}

/// The one length that all of the `Content-Length` fields agree on (RFC 9110, section 8.6), and how often they say it.
fn length(headers: &HeaderMap) -> Result<(Option<u64>, usize), Wrong> {
    let (mut agreed, mut times) = (None, 0);
    for text in
        headers.get_all(header::CONTENT_LENGTH).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','))
    {
        let text = text.trim_ascii();
        let digits = !text.is_empty() && text.len() <= 19 && text.iter().all(u8::is_ascii_digit);
        let length = digits.then(|| text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
        match (length, agreed) {
            (None, _) => return Err(Wrong::Malformed("the Content-Length is not valid")),
            (Some(length), Some(other)) if length != other => {
                return Err(Wrong::Malformed("there are different Content-Lengths"));
            }
            (length, _) => agreed = length,
        }
        times += 1;
    }
    Ok((agreed, times))
}

/// Whether the connection goes on after the message (RFC 9112, section 9.3).
fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let has = |option| has_option(headers, option);
    !has("close") && (version == Version::HTTP_11 || has("keep-alive"))
}

/// Whether `Connection` has an option.
pub(super) fn has_option(headers: &HeaderMap, option: &str) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}
