//! What passes through: requests as callers send them and as backends get them, responses on the way back. Beside the
//! message itself, whatever HTTP says outside of it: how its header was spelled, the interim responses before the final
//! one, and the connection that two sides agree to use for something else.

use std::fmt;
use std::rc::Rc;

use http::{Request, Response};

use crate::body::{Incoming, RequestBody};
use crate::error::Error;
use crate::h1::Spelling;
use crate::upgrade::OnUpgrade;

/// A request as a caller sent it.
#[derive(Debug)]
pub struct Asked {
    /// Its head and body.
    pub request: Request<Incoming>,
    /// How its header was spelled, where it came over HTTP/1.
    pub spelling: Option<Rc<Spelling>>,
    /// Where interim responses to it go.
    pub interim: Interim,
    /// The caller's side of the connection, where the request asks for another use of it (`Upgrade`, `CONNECT`).
    pub upgrade: Option<OnUpgrade>,
}

/// A request on its way to a backend.
#[derive(Debug)]
pub struct Outgoing {
    /// Its head and body.
    pub request: Request<RequestBody>,
    /// How its header was spelled when it came.
    pub spelling: Option<Rc<Spelling>>,
    /// Where interim responses to it go.
    pub interim: Interim,
}

/// A response as a backend sent it.
#[derive(Debug)]
pub struct Answered {
    /// Its head and body.
    pub response: Response<Incoming>,
    /// How its header was spelled, where it came over HTTP/1.
    pub spelling: Option<Rc<Spelling>>,
    /// The backend's side of the connection, where the response agrees to another use of it.
    pub upgrade: Option<OnUpgrade>,
}

/// A response on its way to a caller.
#[derive(Debug)]
pub struct Reply<B> {
    /// Its head and body.
    pub response: Response<B>,
    /// How its header was spelled, where it came over HTTP/1.
    pub spelling: Option<Rc<Spelling>>,
}

impl<B> Reply<B> {
    /// A response that is made here.
    pub const fn new(response: Response<B>) -> Self {
        Self { response, spelling: None }
    }
}

/// An interim response (RFC 9110, section 15.2): a status from 100 to 199, but for 101.
#[derive(Debug)]
pub struct InterimResponse {
    /// Its head.
    pub response: Response<()>,
    /// How its header was spelled, where it came over HTTP/1.
    pub spelling: Option<Rc<Spelling>>,
}

/// Where a caller's interim responses go.
pub trait InterimSink: fmt::Debug {
    /// Sends one, unless the final response has begun.
    fn send(&self, interim: &InterimResponse);

    /// Whether the caller has said its last on this connection: it may still read, or be gone.
    fn has_finished(&self) -> bool {
        false
    }

    /// Why the request is to fail, once nothing has moved on it for too long. Whoever waits is woken then.
    fn silence(&self) -> Option<Error> {
        None
    }
}

/// Where the interim responses to a request go; nowhere, if its caller cannot understand them.
#[derive(Debug, Clone, Default)]
pub struct Interim(Option<Rc<dyn InterimSink>>);

impl Interim {
    /// To this sink.
    pub fn to(sink: Rc<dyn InterimSink>) -> Self {
        Self(Some(sink))
    }

    /// Sends one, unless the final response has begun.
    pub fn send(&self, interim: &InterimResponse) {
        if let Some(sink) = &self.0 {
            sink.send(interim);
        }
    }

    /// Whether the caller has said its last on its connection: it may still read, or be gone.
    pub fn has_finished(&self) -> bool {
        self.0.as_ref().is_some_and(|sink| sink.has_finished())
    }

    /// Why the request is to fail, once nothing has moved on it for too long.
    pub(crate) fn silence(&self) -> Option<Error> {
        self.0.as_ref()?.silence()
    }
}

/// Answers the requests of one connection.
pub trait Handler {
    /// The bodies of its answers.
    type Body;

    /// Answers a request.
    fn answer(&self, asked: Asked) -> impl Future<Output = Reply<Self::Body>> + use<Self>;

    /// What is said of a request that could not be understood.
    fn refuse(&self, error: Error) -> Reply<Self::Body>;

    /// What is said of a request that was understood, and is wrong.
    fn decline(&self, error: Error, request: &Request<()>) -> Reply<Self::Body> {
        let _ = request;
        self.refuse(error)
    }
}
