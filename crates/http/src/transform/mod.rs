//! Filters that change bodies (RFC 9110, section 7.7): what a rule says of them, and how it is done to one request and
//! its response. A rule without such a filter has no [`Transforms`], and its bodies are not touched.
//!
//! Their order is the way of the bytes. A request's: limit, decompression, gRPC-Web, buffer. A response's: limit,
//! gRPC-Web, compression.

mod coding;
mod compress;
mod decompress;
mod grpc_web;
mod limit;

use std::rc::Rc;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, EXPECT, HeaderValue};
use http::{Method, Response, StatusCode, request, response};
use http_body::Body as _;
use outrigger_config::route::{BodyLimit, Buffer, Coding, Compression, Decompression, HttpFilter};

use self::grpc_web::Web;
use self::limit::{Whose, limit, whole};
use crate::body::{BodyError, Incoming};
use crate::error::{Error, Reason};
use crate::memory::Account;
use crate::message::{Interim, InterimResponse};

/// What a rule changes in bodies.
#[derive(Debug, Clone, Default)]
pub struct Transforms {
    compression: Option<Compression>,
    decompression: Option<Decompression>,
    limit: BodyLimit,
    buffer: Option<Buffer>,
    grpc_web: bool,
}

/// What of a request decides what becomes of its response.
#[derive(Debug)]
pub struct Asking {
    method: Method,
    coding: Option<Coding>,
    web: Option<Web>,
}

impl Transforms {
    /// Those among these filters; `None` if there is none. Of two of the same type the later counts.
    pub fn new<'a>(filters: impl IntoIterator<Item = &'a HttpFilter>) -> Option<Box<Self>> {
        let mut found = None::<Box<Self>>;
        for filter in filters {
            match filter {
                HttpFilter::Compression(it) => found.get_or_insert_default().compression = Some(it.clone()),
                HttpFilter::Decompression(it) => {
                    found.get_or_insert_default().decompression = Some(it.clone());
                }
                HttpFilter::BodyLimit(it) => found.get_or_insert_default().limit = *it,
                HttpFilter::Buffer(it) => found.get_or_insert_default().buffer = Some(*it),
                HttpFilter::GrpcWeb(_) => found.get_or_insert_default().grpc_web = true,
                _ => {}
            }
        }
        found
    }

    /// The media type of the answers to a request in gRPC-Web that is to become a call.
    pub fn call<B>(&self, request: &http::Request<B>) -> Option<&'static str> {
        let web = if self.grpc_web { Web::of(request.method(), request.headers()) } else { None };
        web.map(Web::media_type)
    }

    /// Changes a request, as it came from its caller. With a buffer it waits for the whole body, until `deadline`.
    ///
    /// # Errors
    /// What is wrong with its body, as far as that is known before it is sent.
    pub async fn request(
        &self,
        parts: &mut request::Parts,
        mut body: Incoming,
        interim: &Interim,
        deadline: Option<Instant>,
        memory: &Rc<Account>,
    ) -> Result<(Incoming, Asking), Error> {
        let web = if self.grpc_web { Web::of(&parts.method, &parts.headers) } else { None };
        let compression = self.compression.as_ref();
        let asking = Asking {
            method: parts.method.clone(),
            coding: compression.and_then(|filter| compress::choose(filter, &parts.method, &parts.headers)),
            web,
        };
        if body.is_end_stream() || parts.method == Method::CONNECT {
            return Ok((body, asking));
        }
        if let Some(most) = self.limit.request_bytes {
            body = limit(body, most, Whose::Request)?;
        }
        if let Some(filter) = &self.decompression {
            body = decompress::decompress(filter, &mut parts.headers, body);
        }
        if let Some(web) = web {
            body = web.request(parts, body);
        }
        if let Some(buffer) = self.buffer {
            body = buffered(buffer, parts, body, interim, deadline, memory).await?;
        }
        Ok((body, asking))
    }

    /// Changes the response to a request, as it came from its backend.
    ///
    /// # Errors
    /// If its body is larger than it may be, as far as that is known before it is sent.
    pub fn response(
        &self,
        asking: &Asking,
        parts: &mut response::Parts,
        mut body: Incoming,
    ) -> Result<Incoming, Error> {
        if asking.method == Method::CONNECT {
            return Ok(body);
        }
        if let Some(most) = self.limit.response_bytes {
            body = limit(body, most, Whose::Response)?;
        }
        if let Some(web) = asking.web {
            body = web.response(parts, body);
        }
        if let Some(filter) = &self.compression {
            body = compress::compress(filter, asking.coding, &asking.method, parts, body);
        }
        Ok(body)
    }
}

/// A request's body as a whole, with its length. One with trailers stays without, for HTTP/1.1 has but one of both.
async fn buffered(
    buffer: Buffer,
    parts: &mut request::Parts,
    body: Incoming,
    interim: &Interim,
    deadline: Option<Instant>,
    memory: &Rc<Account>,
) -> Result<Incoming, Error> {
    // Nobody but the proxy can ask for it now.
    if parts.headers.remove(EXPECT).is_some() {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::CONTINUE;
        interim.send(&InterimResponse { response, spelling: None });
    }
    let reading = whole(body, buffer.max_bytes, memory);
    let whole = match deadline {
        None => reading.await?,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), reading).await.unwrap_or_else(|_| {
            let why = "the request's body did not come within the request timeout";
            Err(Error::unsent(Reason::HttpRequestTimeout, why))
        })?,
    };
    parts.headers.remove(CONTENT_LENGTH);
    if whole.trailers.is_none() {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    }
    Ok(whole.into_body())
}

/// The end of a body that a filter refuses.
fn refused(reason: Reason, why: impl Into<std::borrow::Cow<'static, str>>) -> BodyError {
    BodyError::Refused(Error::sent(reason, why))
}
