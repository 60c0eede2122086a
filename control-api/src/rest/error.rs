//! What the REST API answers when it cannot do what it was asked.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use outrigger_config::{Invalid, Kind};
use serde::{Deserialize, Serialize};

use crate::store::WriteError;

/// The body of every error: always with `error`, the rest where it applies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what to do, for people.
    pub error: String,
    /// The field that is wrong, from the object's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong with that field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The line where the body stops being JSON, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column where the body stops being JSON, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The object's revision, where a write was stale and the object is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Every object that is wrong, where several were sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid: Vec<InvalidObject>,
}

/// One of several objects, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidObject {
    /// Which: `HTTPRoute/shop`, or its place in the list where it does not say.
    pub object: String,
    /// The field that is wrong.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An error with its status.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Box<ErrorBody>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self::with(status, ErrorBody { error: error.into(), ..ErrorBody::default() })
    }

    pub(crate) fn with(status: StatusCode, body: ErrorBody) -> Self {
        Self { status, body: Box::new(body) }
    }

    pub(crate) fn unknown_kind(text: &str) -> Self {
        let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::plural).collect();
        let error = format!("there is no kind `{text}`: the kinds are {}", kinds.join(", "));
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub(crate) fn invalid(object: &str, invalid: Invalid) -> Self {
        let error = format!("{object}: {invalid}");
        let Invalid { field, reason } = invalid;
        let (field, reason) = (Some(field.into_owned()), Some(reason));
        Self::with(
            StatusCode::UNPROCESSABLE_ENTITY,
            ErrorBody { error, field, reason, ..ErrorBody::default() },
        )
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        match error {
            WriteError::Stale { current, .. } => Self::with(
                StatusCode::CONFLICT,
                ErrorBody { error: text, revision: current, ..ErrorBody::default() },
            ),
            WriteError::Missing(_) => Self::new(StatusCode::NOT_FOUND, text),
            WriteError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, text),
            WriteError::Disk(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
            WriteError::Closed => Self::new(StatusCode::SERVICE_UNAVAILABLE, text),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
