//! Connections that are used for something else than HTTP: `Upgrade` and CONNECT, whatever either side speaks.

use std::time::Instant;

use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, Request, StatusCode, Version};
use outrigger_http::body::{End, Observe};
use outrigger_http::forward::Speak;
use outrigger_http::pool::Lease;
use outrigger_http::upgrade::{OnUpgrade, relay};
use outrigger_http::{Error, Reason, websocket};

use crate::record::Record;

/// What a request wants to use its connection for.
#[derive(Debug)]
pub(crate) enum Tunnel {
    /// Nothing else than HTTP.
    None,
    /// Another protocol, by an upgrade of HTTP/1.1.
    Upgrade,
    /// Another protocol, by extended CONNECT of HTTP/2.
    Extended,
    /// Another protocol, by extended CONNECT of HTTP/2, of a backend of HTTP/1.1, which is to answer this key.
    WebSocket(Box<HeaderValue>),
    /// Any bytes.
    Connect,
}

impl Tunnel {
    /// What a request wants that is going to be sent on in the version of `speak`.
    pub(crate) fn wanted<B>(request: &Request<B>, speak: Speak) -> Self {
        match (request.method(), request.version()) {
            (&Method::CONNECT, _) => Self::Connect,
            _ if !speak.upgrades() => Self::None,
            (_, Version::HTTP_2) => Self::Extended,
            _ => Self::Upgrade,
        }
    }

    /// Whether the request is one for an upgrade.
    pub(crate) const fn is_upgrade(&self) -> bool {
        !matches!(self, Self::None | Self::Connect)
    }

    /// Adds what HTTP/1.1 wants of a request for a WebSocket that came over HTTP/2.
    pub(crate) fn complete(&mut self, headers: &mut HeaderMap, speak: Speak, random: &mut fastrand::Rng) {
        let websocket = || headers.get(UPGRADE).is_some_and(websocket::is_asked);
        if !matches!(self, Self::Extended) || speak != Speak::Http1Upgrade || !websocket() {
            return;
        }
        let key = headers.entry(SEC_WEBSOCKET_KEY).or_insert_with(|| websocket::key(random)).clone();
        *self = Self::WebSocket(Box::new(key));
    }

    /// Whether a response agrees to it.
    ///
    /// # Errors
    /// It says something that the request did not ask for.
    pub(crate) fn agreed(&self, status: StatusCode, headers: &HeaderMap) -> Result<bool, Error> {
        let failed = |why| Err(Error::sent(Reason::HttpUpgradeFailed, why));
        let switching = status == StatusCode::SWITCHING_PROTOCOLS;
        match self {
            Self::None if switching => failed("the application changed the protocol unasked"),
            Self::Connect if switching => {
                failed("the application changed the protocol where CONNECT asked it to connect")
            }
            Self::None => Ok(false),
            Self::Connect => Ok(status.is_success()),
            // To its caller, any success would be consent.
            Self::Extended | Self::WebSocket(_) if status.is_success() => {
                failed("the application answered, and did not change the protocol")
            }
            Self::WebSocket(key)
                if switching && headers.get(SEC_WEBSOCKET_ACCEPT) != Some(&websocket::accept(key)) =>
            {
                failed("the application did not answer the key of the WebSocket")
            }
            Self::Upgrade | Self::Extended | Self::WebSocket(_) => Ok(switching),
        }
    }
}

/// Copies between both sides until both have closed, or neither has said anything for too long.
pub(crate) fn open(caller: OnUpgrade, callee: OnUpgrade, lease: Lease, record: Record) {
    tokio::task::spawn_local(async move {
        let copied = relay(caller, callee, record.stream_timeout()).await;
        let end = match &copied {
            Some(copied) if copied.idle => End::Silent(Reason::ConnectionReadTimeout),
            Some(_) => End::Complete,
            None => End::CallerGone,
        };
        record.ended(end, copied.map_or(0, |copied| copied.b_to_a), Instant::now());
        drop(lease);
    });
}
