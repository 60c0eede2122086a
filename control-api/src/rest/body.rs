//! Bodies: the shapes that the REST API takes and gives.

use axum::body::Body;
use axum::http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use outrigger_config::{Duration, Invalid, Kind, Name, Resource, SpiffeId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::BODY_LIMIT;
use super::error::{ApiError, ErrorBody};
use crate::store::Done;
use crate::world::Object;

/// One object, as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectBody {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// The store's revision that put it there.
    pub revision: u64,
    /// What it says.
    pub spec: Value,
}

impl From<&Object> for ObjectBody {
    fn from(object: &Object) -> Self {
        Self {
            kind: object.resource.kind(),
            name: object.resource.name.clone(),
            revision: object.revision,
            spec: object.spec.clone(),
        }
    }
}

/// Several objects, as they are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListBody {
    /// The store's revision.
    pub revision: u64,
    /// The objects, by kind and name.
    pub items: Vec<ObjectBody>,
}

/// What was done with one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenBody {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Its revision; of a deleted one, the store's.
    pub revision: u64,
    /// What was done.
    pub result: Done,
}

/// What was done with a list of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedBody {
    /// The store's revision, or a later one.
    pub revision: u64,
    /// The objects, in the order they were sent.
    pub items: Vec<WrittenBody>,
}

/// What a token is asked for with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The node that may use it.
    pub node: Name,
    /// The identity that the node gets; `spiffe://TRUST-DOMAIN/node/NAME` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SpiffeId>,
    /// How long it is good for; an hour where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBody {
    /// What the node shows.
    pub token: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
}

/// Reads a JSON body.
pub(crate) async fn read(body: Body) -> Result<Value, ApiError> {
    let bytes = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body must not have more than {BODY_LIMIT} bytes"),
            ));
        }
        Err(error) => {
            return Err(ApiError::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (Some(error.line()), Some(error.column()));
        let error = format!("the body is not JSON: {error}");
        ApiError::with(StatusCode::BAD_REQUEST, ErrorBody { error, line, column, ..ErrorBody::default() })
    })
}

/// Reads a resource, whose kind and name may be left out where the path gives them, and must agree where it does.
/// A `revision` is passed over, so that what was read can be written back.
pub(crate) fn resource(body: Value, path: Option<(Kind, &str)>) -> Result<Resource, Invalid> {
    let wrong = |field: String, reason: String| Invalid { field: field.into(), reason };
    let Value::Object(mut fields) = body else {
        return Err(wrong("spec".into(), "a resource is an object with `kind`, `name` and `spec`".into()));
    };
    fields.remove("revision");
    let kind = text(&mut fields, "kind")?;
    let name = text(&mut fields, "name")?;
    let spec = fields.remove("spec");
    if let Some(field) = fields.keys().next() {
        return Err(wrong(field.clone(), "is unknown: a resource has `kind`, `name` and `spec`".into()));
    }
    let kind = match (kind, path) {
        (None, Some((kind, _))) => kind,
        (None, None) => return Err(wrong("kind".into(), "is missing".into())),
        (Some(text), path) => {
            let known = Kind::ALL.map(Kind::as_str).join(", ");
            let kind = Kind::find(&text)
                .ok_or_else(|| wrong("kind".into(), format!("`{text}` is no kind: the kinds are {known}")))?;
            if let Some((expected, _)) = path
                && expected != kind
            {
                return Err(wrong("kind".into(), format!("is {kind}, but the path says {expected}")));
            }
            kind
        }
    };
    let name = match (name, path) {
        (None, Some((_, name))) => name.to_owned(),
        (None, None) => return Err(wrong("name".into(), "is missing".into())),
        (Some(name), Some((_, expected))) if name != expected => {
            return Err(wrong("name".into(), format!("is `{name}`, but the path says `{expected}`")));
        }
        (Some(name), _) => name,
    };
    let spec = spec.ok_or_else(|| wrong("spec".into(), "is missing".into()))?;
    Resource::parse(kind, &name, spec)
}

fn text(fields: &mut serde_json::Map<String, Value>, field: &'static str) -> Result<Option<String>, Invalid> {
    match fields.remove(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Invalid { field: field.into(), reason: "must be text".into() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// JSON of any shape, with the words that matter here more often than chance would have it.
    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            "kind|name|spec|revision|endpoints|address|listeners|rules",
            "Backend|httpRoutes|TCPRoute|api|127.0.0.1:80",
            ".{0,8}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(word.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_breaks_it_and_what_is_taken_is_what_the_path_says(body in any_json()) {
            let _ = resource(body.clone(), None);
            if let Ok(taken) = resource(body, Some((Kind::Backend, "api"))) {
                prop_assert_eq!(taken.key().to_string(), "Backend/api");
            }
        }
    }

    #[test]
    fn the_bare_spec_is_not_a_resource() {
        let wrong = resource(json!({ "endpoints": [] }), Some((Kind::Backend, "api"))).unwrap_err();
        assert_eq!(wrong.field, "endpoints");
    }
}
