//! The REST API: resources, nodes and tokens, as JSON. It has no authentication of its own, so it listens on loopback
//! unless told otherwise, and refuses what a web page could make a browser send (`guard`).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::json;

use crate::Shared;

pub mod body;
pub mod error;
mod guard;
mod node;
mod resource;

use error::ApiError;

/// The most bytes of a request's body.
pub const BODY_LIMIT: usize = 4 << 20;

/// Everything under one router.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz/live", get(async || "ok\n"))
        .route("/healthz/ready", get(ready))
        .route("/v1/resources", get(resource::all))
        .route("/v1/apply", post(resource::apply))
        .route("/v1/nodes", get(node::list))
        .route("/v1/tokens", post(node::token))
        .route("/v1/{kind}", get(resource::list))
        .route("/v1/{kind}/{name}", get(resource::get).put(resource::put).delete(resource::delete))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "there is nothing here: see /v1/resources"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not possible here")
        })
        .layer(from_fn_with_state(shared.clone(), guard::guard))
        .with_state(shared)
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.store.is_open() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        let why = json!({ "error": "the store is closed" });
        (StatusCode::SERVICE_UNAVAILABLE, axum::Json(why)).into_response()
    }
}
