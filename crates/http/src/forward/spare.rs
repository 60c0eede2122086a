//! What is needed to send a request again.

use std::rc::Rc;

use http::Request;

use super::Way;
use crate::body::{RequestBody, Upload};
use crate::filter::is_idempotent;
use crate::h1::Spelling;
use crate::message::{Interim, Outgoing};

/// What is needed to send a request again.
pub(super) struct Spare<'a> {
    head: Option<Request<()>>,
    spelling: Option<Rc<Spelling>>,
    interim: Interim,
    upload: Option<&'a Upload>,
    /// Whether its body is a copy itself, which cannot be read twice.
    once: bool,
    /// Whether its method says that it may be sent again whatever became of it.
    pub(super) idempotent: bool,
}

impl<'a> Spare<'a> {
    /// Keeps what may be needed of a request that goes this way.
    pub(super) fn new(way: &Way<'_>, outgoing: &Outgoing, upload: Option<&'a Upload>) -> Self {
        let request = &outgoing.request;
        let idempotent = is_idempotent(request.method());
        // By a sidecar and over HTTP/2 it can be known that a request of any method was not processed.
        let mesh = way.pools.are_of_sidecars();
        let once = matches!(request.body(), RequestBody::Copy(_));
        // Where it may have to be sent again after a response, or when HTTP/2 has taken it away. HTTP/1.1 gives it back.
        let retries =
            way.policy.retry.as_ref().is_some_and(|retry| idempotent || !retry.grpc_statuses.is_empty());
        let keep = !once && (retries || mesh || way.speak.is_http2());
        Self {
            head: keep.then(|| copy_head(request)),
            spelling: outgoing.spelling.clone(),
            interim: outgoing.interim.clone(),
            upload,
            once,
            idempotent,
        }
    }

    /// Whether the caller has said its last on its connection.
    pub(super) fn is_abandoned(&self) -> bool {
        self.interim.has_finished()
    }

    /// Whether two attempts can have it at the same time: all of its body was read, and kept.
    pub(super) fn is_whole(&self) -> bool {
        !self.once && self.upload.is_none_or(Upload::is_kept)
    }

    /// A request that was given back, unless a part of its body is gone.
    pub(super) fn renewed(&self, mut outgoing: Outgoing) -> Option<Outgoing> {
        if matches!(outgoing.request.body(), RequestBody::Spent) {
            *outgoing.request.body_mut() = self.body()?;
        }
        Some(outgoing)
    }

    fn body(&self) -> Option<RequestBody> {
        match self.upload {
            None if self.once => None,
            None => Some(RequestBody::Empty),
            Some(upload) => upload.attempt(),
        }
    }

    /// The request once more, unless a part of it is gone.
    pub(super) fn again(&self) -> Option<Outgoing> {
        let head = self.head.as_ref()?;
        let body = self.body()?;
        let request = copy_head(head).map(|()| body);
        Some(Outgoing { request, spelling: self.spelling.clone(), interim: self.interim.clone() })
    }
}

fn copy_head<B>(request: &Request<B>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}
