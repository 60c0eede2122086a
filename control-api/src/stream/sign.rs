//! Signing: a node's first certificate for a token, every later one for the certificate before it.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use outrigger_config::SpiffeId;
use outrigger_control::message::{SignRequest, SignResponse};

use super::{Body, PATIENCE, Peer, Refused, json};
use crate::Shared;

/// The most bytes of a signing request's body: many times what a key of any kind takes.
const BODY_LIMIT: usize = 64 << 10;

pub(super) async fn sign(
    request: Request<Incoming>,
    peer: &Peer,
    shared: &Shared,
) -> Result<Response<Body>, Refused> {
    let (head, body) = request.into_parts();
    let bad = |why: String| Refused(StatusCode::BAD_REQUEST, why);
    let body = tokio::time::timeout(PATIENCE, Limited::new(body, BODY_LIMIT).collect())
        .await
        .map_err(|_| bad("the body took too long".into()))?
        .map_err(|error| bad(format!("the body cannot be read: {error}")))?;
    let asked: SignRequest = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| bad(format!("the body is not a signing request: {error}")))?;
    let id = entitled(&head.headers, &asked, peer, shared)?;

    let now = SystemTime::now();
    let issued = shared
        .authority
        .sign(asked.csr.as_bytes(), &id, &[], shared.leaf_lifetime, now)
        .map_err(|error| Refused(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    shared
        .store
        .bind(asked.node.clone(), id.clone())
        .await
        .map_err(|error| Refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    tracing::info!(node = %asked.node, %id, peer = %peer.address, "certificate signed");
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let answer = SignResponse {
        chain: issued.chain_pem,
        bundle: shared.authority.cert_pem(),
        id,
        not_before: seconds(issued.not_before),
        not_after: seconds(issued.not_after),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// The identity that may be signed: the token's, or the very one that the node has.
fn entitled(
    headers: &HeaderMap,
    asked: &SignRequest,
    peer: &Peer,
    shared: &Shared,
) -> Result<SpiffeId, Refused> {
    let refuse = |why: String| Refused::forbidden(peer, "signing", why);
    if let Some(value) = headers.get(AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| refuse("the Authorization header is not a bearer token".into()))?;
        return shared.tokens.check(token.trim(), &asked.node).map_err(|why| refuse(why.to_string()));
    }
    let Some(id) = &peer.identity else {
        return Err(refuse(format!("{} showed neither a token nor a certificate", asked.node)));
    };
    if shared.store.world().is_bound(&asked.node, id) {
        Ok(id.clone())
    } else {
        Err(refuse(format!("{id} does not belong to the node {}", asked.node)))
    }
}
