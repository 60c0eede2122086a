//! Faults made on purpose: requests that are held back, or fail.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, StatusCode};
use outrigger_config::matching::header_matches;
use outrigger_config::route::{self, HeaderMatch, Portion};
use outrigger_http::{Error, PROXY_STATUS, Reason, grpc};

use crate::record::Record;
use crate::request::{Answer, fail, refusal};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const DETAILS: &str = "a fault of the route";

/// A fault filter.
#[derive(Debug)]
pub(super) struct Fault {
    headers: Box<[HeaderMatch]>,
    delay: Option<(Duration, Portion)>,
    abort: Option<(Abort, Portion)>,
}

/// How a request fails.
#[derive(Debug, Clone, Copy)]
pub(super) enum Abort {
    Status(StatusCode),
    Grpc(u16),
}

impl Fault {
    pub(super) fn new(fault: &route::Fault) -> Self {
        let delay = fault.delay.as_ref();
        let abort = fault.abort.as_ref();
        Self {
            headers: fault.headers.clone().into(),
            delay: delay.map(|delay| (delay.duration.get(), Portion::new(delay.percent, delay.fraction))),
            abort: abort.map(|abort| (Abort::new(abort), Portion::new(abort.percent, abort.fraction))),
        }
    }
}

/// Holds a request back where a fault says so, at most until `deadline`, and tells how it fails if it does.
pub(super) async fn inject(
    faults: &[Fault],
    headers: &HeaderMap,
    deadline: Option<Instant>,
    random: &RefCell<fastrand::Rng>,
) -> Option<Abort> {
    let drawn = |portion: Portion| portion.has(random.borrow_mut().u32(..));
    for fault in faults {
        if !fault.headers.iter().all(|header| header_matches(header, headers)) {
            continue;
        }
        if let Some((duration, portion)) = fault.delay
            && drawn(portion)
        {
            let until = Instant::now() + duration;
            tokio::time::sleep_until(deadline.map_or(until, |deadline| until.min(deadline)).into()).await;
        }
        if let Some((abort, portion)) = fault.abort
            && drawn(portion)
        {
            return Some(abort);
        }
    }
    None
}

impl Abort {
    fn new(abort: &route::Abort) -> Self {
        match (abort.grpc_status, abort.status) {
            (Some(status), _) => Self::Grpc(status),
            (None, status) => {
                let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                Self::Status(status.unwrap_or(Reason::FaultInjected.status()))
            }
        }
    }

    /// The answer to a request that fails.
    pub(super) fn answer(self, mut record: Record) -> Answer {
        // Not sent, but it must not be tried elsewhere, as a caller's sidecar would do with what was not.
        let error = Error::sent(Reason::FaultInjected, DETAILS);
        match self {
            Self::Status(status) => fail(error.with_status(status), record),
            Self::Grpc(status) => {
                record.grpc_status = Some(status);
                let mut headers = HeaderMap::with_capacity(4);
                grpc::say(&error, record.call.unwrap_or(grpc::MEDIA_TYPE), &mut headers);
                headers.insert(GRPC_STATUS, status.into());
                headers.insert(PROXY_STATUS, error.proxy_status());
                record.grpc_status = Some(status);
                refusal(&error.with_status(StatusCode::OK), headers, Bytes::new(), record)
            }
        }
    }
}
