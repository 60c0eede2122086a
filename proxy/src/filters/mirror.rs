//! Copies of requests for another backend. They never hold up the request itself, and nobody waits for their responses.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Request;
use http::header::EXPECT;
use http_body_util::BodyExt as _;
use outrigger_config::Snapshot;
use outrigger_config::backend::BackendProtocol;
use outrigger_config::route::{Portion, RequestMirror};
use outrigger_http::body::{End, Observe, RequestBody, ResponseBody, Upload};
use outrigger_http::forward::{Policy, Progress, Speak, Way, forward};
use outrigger_http::h1::Limits;
use outrigger_http::memory::Level;
use outrigger_http::message::{Interim, Outgoing};
use outrigger_telemetry::{BackendSeries, MirrorResult};

use crate::connection::Connection;
use crate::local::{Local, LocalBackend};
use crate::worker::Worker;

/// How long the response to a copy is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many copies a worker may have under way: more would only pile up before a backend that does not answer.
const MAX_UNDER_WAY: u32 = 1024;

/// A mirror filter.
#[derive(Debug)]
pub(super) struct Mirror {
    /// The backend's place in the table; `None` where it is not there.
    backend: Option<usize>,
    portion: Portion,
}

/// A copy under way, counted when it is over.
struct Copy {
    worker: Rc<Worker>,
    series: BackendSeries,
    limits: Limits,
    result: MirrorResult,
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.worker.mirrors.set(self.worker.mirrors.get().saturating_sub(1));
        self.worker.metrics.mirrored(self.series, self.result);
    }
}

/// Is not told anything.
pub(super) struct Nobody;

impl Observe for Nobody {
    fn ended(self, _: End, _: u64, _: Instant) {}
}

impl Mirror {
    pub(super) fn new(mirror: &RequestMirror, snapshot: &Snapshot) -> Self {
        Self {
            backend: snapshot.backend(mirror.backend_ref.name.as_str()),
            portion: Portion::new(mirror.percent, mirror.fraction),
        }
    }

    /// Sends a copy of a request, which the application is spoken to in `speak` for.
    pub(super) fn send(
        &self,
        connection: &Connection,
        local: &Local,
        request: &Outgoing,
        upload: Option<&Upload>,
        speak: Speak,
    ) {
        let worker = &connection.worker;
        let found = self.backend.and_then(|at| Some((local.backend(at)?, local.live.backends.get(at)?)));
        let Some((to, live)) = found else { return };
        // Of what follows an upgrade there is no copy.
        if speak.upgrades() || !self.portion.has(worker.random.borrow_mut().u32(..)) {
            return;
        }
        let body = upload.map_or(Some(RequestBody::Empty), Upload::copy);
        let series = live.connections;
        let Some(body) = body.filter(|_| has_room(worker)) else {
            return worker.metrics.mirrored(series, MirrorResult::Dropped);
        };
        worker.mirrors.set(worker.mirrors.get() + 1);
        let limits = connection.settings.limits;
        let copy = Copy { worker: worker.clone(), series, limits, result: MirrorResult::Failed };
        let speak = match live.protocol {
            Some(BackendProtocol::H2c) => Speak::Http2,
            Some(BackendProtocol::Http) => Speak::Http1,
            None => speak,
        };
        tokio::task::spawn_local(copy.carry_out(to.clone(), again(request, body), speak));
    }
}

/// Whether a worker may send one more copy: not where memory is scarce.
fn has_room(worker: &Worker) -> bool {
    worker.mirrors.get() < MAX_UNDER_WAY && worker.memory.level() == Level::Plenty
}

/// The same request with another body, which does not wait to be asked for.
fn again(Outgoing { request, spelling, .. }: &Outgoing, body: RequestBody) -> Outgoing {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy.headers_mut().remove(EXPECT);
    Outgoing { request: copy, spelling: spelling.clone(), interim: Interim::default() }
}

impl Copy {
    async fn carry_out(mut self, to: Rc<LocalBackend>, request: Outgoing, speak: Speak) {
        let started = Instant::now();
        let deadline = Some(started + PATIENCE);
        let way = Way {
            backend: &to.backend,
            pools: &to.pools,
            policy: &Policy { request_timeout: Some(PATIENCE), ..Policy::default() },
            dialer: &to.dialer,
            speak,
            started,
            ready: started,
            deadline,
            timed_call: false,
            limits: self.limits,
            prefer: None,
            hash: None,
            random: &self.worker.random,
        };
        let Ok((answered, lease)) = forward(&way, &mut Some(request), None, &mut Progress::default()).await
        else {
            return;
        };
        let body = answered.response.into_body();
        let mut body = ResponseBody::stream(body, lease, deadline, Nobody);
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return;
            }
        }
        self.result = MirrorResult::Ok;
    }
}
