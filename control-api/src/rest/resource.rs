//! Resources: read, written, deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use outrigger_config::{Invalid, Key, Kind, Resource};
use serde_json::Value;

use super::body::{self, AppliedBody, ListBody, ObjectBody, WrittenBody};
use super::error::{ApiError, ErrorBody, InvalidObject};
use crate::Shared;
use crate::store::{Change, Condition, Done, Outcome};

type Answer = Result<Response, ApiError>;

pub(super) async fn all(State(shared): State<Arc<Shared>>) -> Json<ListBody> {
    let world = shared.store.world();
    let items = world.objects().values().map(|object| ObjectBody::from(&**object)).collect();
    Json(ListBody { revision: world.revision, items })
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, Path(kind): Path<String>) -> Answer {
    let kind = find(&kind)?;
    let world = shared.store.world();
    let items = world.of_kind(kind).map(|object| ObjectBody::from(&**object)).collect();
    Ok(Json(ListBody { revision: world.revision, items }).into_response())
}

pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    Path((kind, name)): Path<(String, String)>,
) -> Answer {
    let key = key(&kind, &name)?;
    let world = shared.store.world();
    let object = world.objects().get(&key).ok_or_else(|| missing(key.kind, &name))?;
    Ok((etag(object.revision), Json(ObjectBody::from(&**object))).into_response())
}

pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    Path((kind, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let kind = find(&kind)?;
    let condition = condition(&headers)?;
    let resource = body::resource(body::read(body).await?, Some((kind, &name)))
        .map_err(|invalid| ApiError::invalid(&format!("{kind}/{name}"), invalid))?;
    let outcomes = shared.store.write(vec![Change::Put(Arc::new(resource), condition)]).await?;
    written(outcomes)
}

pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path((kind, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let key = key(&kind, &name)?;
    let outcomes = shared.store.write(vec![Change::Delete(key, condition(&headers)?)]).await?;
    written(outcomes)
}

/// Puts a list of resources, all or none.
pub(super) async fn apply(State(shared): State<Arc<Shared>>, body: Body) -> Answer {
    let Value::Array(items) = body::read(body).await? else {
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "the body must be a list of resources"));
    };
    let resources = all_valid(items)?;
    let changes = resources.into_iter().map(|resource| Change::Put(Arc::new(resource), Condition::Any));
    let outcomes = shared.store.write(changes.collect()).await?;
    let revision = shared.store.world().revision;
    Ok(Json(AppliedBody { revision, items: outcomes.into_iter().map(WrittenBody::from).collect() })
        .into_response())
}

/// Parses every item, and names every one that is wrong.
fn all_valid(items: Vec<Value>) -> Result<Vec<Resource>, ApiError> {
    let (mut resources, mut seen, mut invalid) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        let object = label(&item, index);
        let parsed = body::resource(item, None).and_then(|resource| {
            if seen.insert(resource.key()) {
                Ok(resource)
            } else {
                Err(Invalid { field: "name".into(), reason: "stands twice in the list".into() })
            }
        });
        match parsed {
            Ok(resource) => resources.push(resource),
            Err(Invalid { field, reason }) => {
                invalid.push(InvalidObject { object, field: field.into_owned(), reason });
            }
        }
    }
    let Some(InvalidObject { object, field, reason }) = invalid.first().cloned() else {
        return Ok(resources);
    };
    let error = format!("nothing was applied; {object}: {field}: {reason}");
    let (field, reason) = (Some(field), Some(reason));
    let body = ErrorBody { error, field, reason, invalid, ..ErrorBody::default() };
    Err(ApiError::with(StatusCode::UNPROCESSABLE_ENTITY, body))
}

/// What to call an item that may not be a resource at all.
fn label(item: &Value, index: usize) -> String {
    let text = |field| item.get(field).and_then(Value::as_str);
    match (text("kind"), text("name")) {
        (Some(kind), Some(name)) => format!("{kind}/{name}"),
        _ => format!("item {index}"),
    }
}

impl From<Outcome> for WrittenBody {
    fn from(Outcome { key, revision, done }: Outcome) -> Self {
        Self { kind: key.kind, name: key.name, revision, result: done }
    }
}

fn written(outcomes: Vec<Outcome>) -> Answer {
    let Some(outcome) = outcomes.into_iter().next() else {
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the store answered nothing"));
    };
    let status = if outcome.done == Done::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, etag(outcome.revision), Json(WrittenBody::from(outcome))).into_response())
}

fn etag(revision: u64) -> [(HeaderName, String); 1] {
    [(ETAG, format!("\"{revision}\""))]
}

fn find(kind: &str) -> Result<Kind, ApiError> {
    Kind::find(kind).ok_or_else(|| ApiError::unknown_kind(kind))
}

fn key(kind: &str, name: &str) -> Result<Key, ApiError> {
    let kind = find(kind)?;
    Ok(Key { kind, name: name.parse().map_err(|_| missing(kind, name))? })
}

fn missing(kind: Kind, name: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {kind}/{name}"))
}

/// `If-Match: "REVISION"`, `If-Match: *` and `If-None-Match: *` (RFC 9110, section 13.1).
fn condition(headers: &HeaderMap) -> Result<Condition, ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::Any),
        (Some("*"), None) => Ok(Condition::Present),
        (None, Some("*")) => Ok(Condition::Absent),
        (Some(tag), None) => tag.trim_matches('"').parse().map(Condition::Revision).map_err(|_| {
            let error = format!("If-Match must be \"REVISION\" or *, not {tag}");
            ApiError::new(StatusCode::BAD_REQUEST, error)
        }),
        (_, Some(_)) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "If-None-Match can only be *, and not together with If-Match",
        )),
    }
}
