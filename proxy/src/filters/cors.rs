//! CORS as the Fetch standard has it (<https://fetch.spec.whatwg.org/#http-cors-protocol>): preflight requests are
//! answered here, and of responses the proxy alone says who may read them.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use outrigger_config::route;
use outrigger_config::scalar::CorsOrigin;

/// A CORS filter with its answers made.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Box<[CorsOrigin]>,
    credentials: bool,
    methods: Allowed,
    headers: Allowed,
    exposed: Allowed,
    max_age: HeaderValue,
}

/// What a list of methods or headers allows.
#[derive(Debug)]
enum Allowed {
    /// Nothing beyond what always is.
    Nothing,
    /// Everything.
    Anything,
    /// These.
    These(HeaderValue),
}

impl Allowed {
    fn new<T: ToString>(list: &[T]) -> Self {
        let names: Vec<String> = list.iter().map(ToString::to_string).collect();
        if names.is_empty() {
            return Self::Nothing;
        }
        if names.iter().any(|name| name == "*") {
            return Self::Anything;
        }
        // Methods and headers are tokens, which a value can always hold.
        HeaderValue::try_from(names.join(", ")).map_or(Self::Nothing, Self::These)
    }
}

/// What the Fetch standard has a server say of a response, all of it taken off before the proxy says its own.
const OWN: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

impl Cors {
    pub(super) fn new(cors: &route::Cors) -> Self {
        Self {
            origins: cors.allow_origins.clone().into(),
            credentials: cors.allow_credentials,
            methods: Allowed::new(&cors.allow_methods),
            headers: Allowed::new(&cors.allow_headers),
            exposed: Allowed::new(&cors.expose_headers),
            max_age: cors.max_age.into(),
        }
    }

    /// Whether `*` is said to everyone alike. Not where credentials are allowed: browsers refuse it then.
    fn is_for_all(&self) -> bool {
        !self.credentials && matches!(*self.origins, [CorsOrigin::Any])
    }

    /// What is said of a request's origin; `None` if it may not read the response, or is none.
    pub(super) fn judge(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        if self.is_for_all() {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins.iter().any(|allowed| allowed.allows(text)).then(|| origin.clone())
    }

    /// The header of the answer to a preflight request; `None` if the request is none.
    pub(super) fn preflight(&self, method: &Method, request: &HeaderMap) -> Option<HeaderMap> {
        let wanted = request.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        if *method != Method::OPTIONS || !request.contains_key(ORIGIN) {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(8);
        if let Some(origin) = self.judge(request) {
            self.allow(origin, &mut headers);
            match &self.methods {
                Allowed::Nothing => {}
                Allowed::These(list) => drop(headers.insert(ACCESS_CONTROL_ALLOW_METHODS, list.clone())),
                // Browsers take `*` for a method's name where credentials are allowed.
                Allowed::Anything if self.credentials => {
                    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
                }
                Allowed::Anything => {
                    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("*"));
                }
            }
            match &self.headers {
                Allowed::Nothing => {}
                Allowed::These(list) => drop(headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, list.clone())),
                // `*` would not cover `Authorization`, so they are named.
                Allowed::Anything => {
                    for line in request.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
                        headers.append(ACCESS_CONTROL_ALLOW_HEADERS, line.clone());
                    }
                }
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        self.vary(&mut headers);
        Some(headers)
    }

    /// Puts into a response what was said of the request's origin.
    pub(super) fn apply(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        for name in &OWN {
            headers.remove(name);
        }
        if let Some(origin) = origin {
            match &self.exposed {
                Allowed::Nothing => {}
                Allowed::These(list) => drop(headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, list.clone())),
                Allowed::Anything => {
                    // Browsers take `*` for a header's name where credentials are allowed, so they are named.
                    let list =
                        if self.credentials { names(headers) } else { Some(HeaderValue::from_static("*")) };
                    if let Some(list) = list {
                        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, list);
                    }
                }
            }
            self.allow(origin, headers);
        }
        self.vary(headers);
    }

    fn allow(&self, origin: HeaderValue, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Tells caches that the response depends on the origin, even where this one may not read it.
    fn vary(&self, headers: &mut HeaderMap) {
        let says = |line: &HeaderValue| {
            let mut names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
        };
        if !self.is_for_all() && !headers.get_all(VARY).iter().any(says) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

/// The names of a response's headers, but for that which no page may read.
fn names(headers: &HeaderMap) -> Option<HeaderValue> {
    let names: Vec<&str> =
        headers.keys().filter(|name| *name != SET_COOKIE).map(HeaderName::as_str).collect();
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
}
