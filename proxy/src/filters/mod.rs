//! What a route's filters do to a request's head: bound when the live table is built, acted on in one place, and absent
//! where a rule has none.

use std::rc::Rc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use outrigger_config::Snapshot;
use outrigger_config::listener::HttpPath;
use outrigger_config::route::{HttpFilter, HttpRule, PathMatch};
use outrigger_http::body::{ResponseBody, Upload};
use outrigger_http::forward::Speak;
use outrigger_http::message::{Asked, Outgoing};
use outrigger_http::transform::Transforms;
use outrigger_http::{Error, PROXY_STATUS, filter};

use self::auth::Auth;
use self::cors::Cors;
use self::fault::Fault;
use self::instead::Instead;
use self::mirror::Mirror;
use self::target::{Prefix, Rewrite};
use crate::connection::Connection;
use crate::local::Local;
use crate::plan::Plan;
use crate::record::Record;
use crate::request::{Answer, carry_out, fail, made};

mod auth;
mod cors;
mod fault;
mod instead;
mod mirror;

mod target;

/// The filters of a rule, with those of the backend that a request goes to.
#[derive(Debug)]
pub(crate) struct Filters {
    cors: Option<Cors>,
    faults: Box<[Fault]>,
    auth: Option<Auth>,
    /// In place of a backend's response.
    instead: Option<Instead>,
    rewrite: Option<Rewrite>,
    mirrors: Box<[Mirror]>,
    /// What is changed in bodies.
    bodies: Option<Box<Transforms>>,
}

impl Filters {
    /// Binds the filters of a rule and those of one of its backends, where paths are seen in this form; of two that
    /// exclude each other the backend's counts. `None` if there is nothing to do.
    pub(crate) fn bind(
        rule: &HttpRule,
        share: &[HttpFilter],
        form: HttpPath,
        snapshot: &Snapshot,
    ) -> Option<Box<Self>> {
        let matched = match rule.matches.first().and_then(|one| one.path.as_ref()) {
            Some(PathMatch::PathPrefix(prefix)) => prefix,
            _ => "",
        };
        let prefix = Prefix { matched, form };
        let (mut cors, mut auth, mut instead, mut rewrite) = (None, None, None, None);
        let (mut faults, mut mirrors) = (Vec::new(), Vec::new());
        for filter in rule.filters.iter().chain(share) {
            match filter {
                HttpFilter::RequestRedirect(it) => instead = Some(Instead::redirect(it, prefix)),
                HttpFilter::FixedResponse(it) => instead = Some(Instead::fixed(it)),
                HttpFilter::UrlRewrite(it) => rewrite = Some(Rewrite::new(it, prefix)),
                HttpFilter::RequestMirror(it) => mirrors.push(Mirror::new(it, snapshot)),
                HttpFilter::Cors(it) => cors = Some(Cors::new(it)),
                HttpFilter::ExternalAuth(it) => auth = Some(Auth::new(it, snapshot)),
                HttpFilter::Fault(it) => faults.push(Fault::new(it)),
                // Those are done with the headers themselves, when the request is brought into its form.
                HttpFilter::RequestHeaderModifier(_)
                | HttpFilter::ResponseHeaderModifier(_)
                // And these, which change bodies, are bound together.
                | HttpFilter::Compression(_)
                | HttpFilter::Decompression(_)
                | HttpFilter::BodyLimit(_)
                | HttpFilter::Buffer(_)
                | HttpFilter::GrpcWeb(_) => {}
            }
        }
        let bodies = Transforms::new(rule.filters.iter().chain(share));
        let (faults, mirrors) = (faults.into(), mirrors.into());
        let filters = Self { cors, faults, auth, instead, rewrite, mirrors, bodies };
        let idle = filters.cors.is_none()
            && filters.faults.is_empty()
            && filters.auth.is_none()
            && filters.instead.is_none()
            && filters.rewrite.is_none()
            && filters.mirrors.is_empty()
            && filters.bodies.is_none();
        (!idle).then(|| Box::new(filters))
    }

    /// What is changed in bodies, if anything is.
    pub(crate) fn bodies(&self) -> Option<&Transforms> {
        self.bodies.as_deref()
    }

    /// Answers a request: by what the filters say, otherwise by the plan.
    pub(crate) async fn answer(
        &self,
        connection: &Connection,
        plan: Result<Plan<'_>, Error>,
        asked: Asked,
        record: Record,
    ) -> Answer {
        let Some(cors) = &self.cors else { return self.pass(connection, plan, asked, record).await };
        if let Some(headers) = cors.preflight(asked.request.method(), asked.request.headers()) {
            return answered(StatusCode::NO_CONTENT, headers, Bytes::new(), record);
        }
        let origin = cors.judge(asked.request.headers());
        let mut answer = self.pass(connection, plan, asked, record).await;
        cors.apply(origin, answer.response.headers_mut());
        answer
    }

    async fn pass(
        &self,
        connection: &Connection,
        plan: Result<Plan<'_>, Error>,
        mut asked: Asked,
        mut record: Record,
    ) -> Answer {
        let limit = plan.as_ref().ok().and_then(|plan| plan.rule?.0.policy.request_timeout);
        let deadline = limit.map(|limit| record.started() + limit);
        if !self.faults.is_empty() {
            let random = &connection.worker.random;
            if let Some(abort) = fault::inject(&self.faults, asked.request.headers(), deadline, random).await
            {
                return abort.answer(record);
            }
        }
        if let Some(auth) = &self.auth {
            // Before, so that the caller cannot have what the service says taken off by naming it in `Connection`.
            let upgrade = plan.as_ref().is_ok_and(|plan| plan.speak.upgrades());
            filter::strip_hop_by_hop(asked.request.headers_mut(), upgrade);
            record = match auth.judge(connection, &mut asked.request, deadline, record).await {
                Ok(record) => record,
                Err(answer) => return answer,
            };
        }
        if let Some(instead) = &self.instead {
            let (status, headers, body) = instead.make(connection, record.local(), &asked.request);
            return answered(status, headers, body, record);
        }
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return fail(error, record),
        };
        carry_out(connection, plan, asked, record).await
    }

    /// Changes where a request goes, as the backend sees it.
    pub(crate) fn rewrite(&self, request: &mut Parts) {
        if let Some(rewrite) = &self.rewrite {
            rewrite.apply(request);
        }
    }

    /// Sends copies of a request, as it is about to be sent on, to where they are wanted.
    pub(crate) fn mirror(
        &self,
        connection: &Connection,
        local: &Rc<Local>,
        request: &Outgoing,
        upload: Option<&Upload>,
        speak: Speak,
    ) {
        for mirror in &self.mirrors {
            mirror.send(connection, local, request, upload, speak);
        }
    }
}

/// An answer that a filter gives.
fn answered(status: StatusCode, mut headers: HeaderMap, body: Bytes, mut record: Record) -> Answer {
    record.answered(status.as_u16());
    headers.entry(PROXY_STATUS).or_insert(HeaderValue::from_static("outrigger"));
    let body = record.body(body, &mut headers);
    let mut response = Response::new(ResponseBody::full(body, record));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    made(response)
}
