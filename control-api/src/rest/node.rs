//! Nodes: who is connected, and the tokens that let others in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::body::{self, TokenBody, TokenRequest};
use super::error::ApiError;
use crate::Shared;
use crate::node::NodeStatus;
use crate::token::TokenError;

/// How long a token is good for where nothing is said.
const TOKEN_TTL: Duration = Duration::from_hours(1);

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<Vec<NodeStatus>> {
    Json(shared.nodes.list(shared.store.world().revision))
}

pub(super) async fn token(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, ApiError> {
    let wrong = |why: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    let request: TokenRequest =
        serde_json::from_value(body::read(body).await?).map_err(|error| wrong(error.to_string()))?;
    let ttl = request.ttl.map_or(TOKEN_TTL, outrigger_config::Duration::get);
    match shared.tokens.issue(&request.node, request.id.as_ref(), ttl, SystemTime::now()) {
        Ok((token, expires)) => Ok((StatusCode::CREATED, Json(TokenBody { token, expires })).into_response()),
        Err(error @ TokenError::Signing(_)) => {
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        }
        Err(error) => Err(wrong(error.to_string())),
    }
}
