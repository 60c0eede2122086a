//! Signing: who gets a certificate, for which identity, and who gets 403.

use crate::support::{HOUR, enroll, fingerprint, hello, mesh, name, open, options, sign};
use http::StatusCode;
use outrigger_certs::{Identity, control, signing_request};
use outrigger_control_api::token::Tokens;
use outrigger_control_api::{Options, start};
use serde_json::Value;
use std::time::{Duration, SystemTime};

async fn refused(
    mesh: &crate::support::Mesh,
    tls: std::sync::Arc<outrigger_certs::rustls::ClientConfig>,
    token: Option<&str>,
    node: &str,
) -> String {
    let (_, csr) = signing_request().unwrap();
    let (status, body) = sign(mesh.control.stream(), tls, token, node, &csr).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    body["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_gives_the_identity_that_it_names() {
    let mesh = mesh().await;
    let plain = enroll(&mesh.control, "web-1", None).await;
    assert_eq!(plain.id().as_str(), "spiffe://outrigger.local/node/web-1");
    let id = "spiffe://outrigger.local/ns/shop/sa/api".parse().unwrap();
    // Two replicas, each a node, of one identity.
    for node in ["api-1", "api-2"] {
        assert_eq!(enroll(&mesh.control, node, Some(&id)).await.id(), &id);
    }
    let lifetime = plain.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(lifetime > 23 * HOUR && lifetime <= 24 * HOUR, "{lifetime:?}");
}

#[tokio::test]
async fn expired_foreign_malformed_and_reused_tokens_are_refused() {
    let mesh = mesh().await;
    let other = crate::support::mesh().await;
    let token = mesh.control.token(&name("web-1"), None, HOUR).unwrap();
    let pinned = control::pinned(fingerprint(&token));
    let long_ago = SystemTime::now() - 2 * HOUR;
    let tokens = Tokens::of(mesh.data.path()).unwrap();
    let (expired, _) = tokens.issue(&name("web-1"), None, HOUR, long_ago).unwrap();
    let foreign = other.control.token(&name("web-1"), None, HOUR).unwrap();

    let why = refused(&mesh, pinned.clone(), Some(&token), "web-2").await;
    assert_eq!(why, "the token is for the node web-1, not for web-2");
    let why = refused(&mesh, pinned.clone(), Some(&foreign), "web-1").await;
    assert_eq!(why, "the token was not made by this control API");
    assert!(refused(&mesh, pinned.clone(), Some("x.y.z"), "web-1").await.contains("malformed"));
    // Somebody else's claims over our signature.
    let (ours, theirs) = (token.rsplit_once('.').unwrap(), foreign.rsplit_once('.').unwrap());
    let mixed = format!("{}.{}", theirs.0, ours.1);
    assert!(refused(&mesh, pinned.clone(), Some(&mixed), "web-1").await.contains("not made by"));
    assert!(refused(&mesh, pinned.clone(), None, "web-1").await.contains("neither a token"));

    assert!(refused(&mesh, pinned, Some(&expired), "web-1").await.contains("expired"));
}

#[tokio::test]
async fn a_certificate_renews_itself_and_nothing_else() {
    let mesh = mesh().await;
    let identity = enroll(&mesh.control, "web-1", None).await;
    enroll(&mesh.control, "web-2", None).await;
    let tls = control::client_config(&identity);
    let (key, csr) = signing_request().unwrap();
    let (status, body) = sign(mesh.control.stream(), tls.clone(), None, "web-1", &csr).await;
    assert_eq!(status, StatusCode::OK);
    let pem = |field: &str| body[field].as_str().unwrap().as_bytes().to_vec();
    let renewed = Identity::from_pem(&pem("chain"), key.expose().as_bytes(), &pem("bundle")).unwrap();
    assert_eq!(renewed.id(), identity.id());
    let why = refused(&mesh, tls, None, "web-2").await;
    assert_eq!(why, "spiffe://outrigger.local/node/web-1 does not belong to the node web-2");
}

#[tokio::test]
async fn a_request_that_is_none_is_turned_down_in_words() {
    let mesh = mesh().await;
    let token = mesh.control.token(&name("web-1"), None, HOUR).unwrap();
    let pinned = control::pinned(fingerprint(&token));
    let (status, body) = sign(mesh.control.stream(), pinned, Some(&token), "web-1", "no request").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body["error"].as_str().unwrap().contains("signing request"), "{body}");
}

#[tokio::test]
async fn a_stream_needs_the_certificate_of_its_node() {
    let mesh = mesh().await;
    let identity = enroll(&mesh.control, "web-1", None).await;
    let to = mesh.control.stream();
    let token = mesh.control.token(&name("web-1"), None, HOUR).unwrap();
    let without = control::pinned(fingerprint(&token));
    assert_eq!(open(to, without, &hello("web-1")).await.err(), Some(StatusCode::FORBIDDEN));
    let with = control::client_config(&identity);
    assert_eq!(open(to, with.clone(), &hello("web-2")).await.err(), Some(StatusCode::FORBIDDEN));
    assert!(open(to, with, &hello("web-1")).await.is_ok());
}

#[tokio::test]
async fn root_keys_and_bindings_outlive_a_restart() {
    let mesh = mesh().await;
    let identity = enroll(&mesh.control, "web-1", None).await;
    let token = mesh.control.token(&name("web-2"), None, HOUR).unwrap();
    let bundle = mesh.control.bundle_pem();
    mesh.control.shutdown().await;

    let control = start(options(mesh.data.path())).await.unwrap();
    assert_eq!(control.bundle_pem(), bundle);
    let tls = control::client_config(&identity);
    assert!(open(control.stream(), tls, &hello("web-1")).await.is_ok());
    let (_, csr) = signing_request().unwrap();
    let pinned = control::pinned(fingerprint(&token));
    let (status, _): (_, Value) = sign(control.stream(), pinned, Some(&token), "web-2", &csr).await;
    assert_eq!(status, StatusCode::OK);
}

#[cfg(unix)]
#[tokio::test]
async fn keys_are_for_their_owner_alone_and_the_directory_for_one_process() {
    use std::os::unix::fs::PermissionsExt as _;
    let mesh = mesh().await;
    for file in ["root.key", "token.key", "store.redb"] {
        let mode = std::fs::metadata(mesh.data.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let folder = mesh.data.path().join("made");
    let made = start(options(&folder)).await.unwrap();
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let error = start(options(&folder)).await.unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    made.shutdown().await;
    start(options(&folder)).await.unwrap();
}

#[tokio::test]
async fn a_root_that_has_signed_is_never_made_anew() {
    for (lost, left) in [("root.crt", "root.key"), ("root.key", "root.crt")] {
        let mesh = mesh().await;
        mesh.control.shutdown().await;
        let folder = mesh.data.path();
        let kept = std::fs::read(folder.join(left)).unwrap();
        std::fs::remove_file(folder.join(lost)).unwrap();
        let error = start(options(folder)).await.unwrap_err().to_string();
        assert!(error.contains(&format!("{lost} is missing")), "{error}");
        assert_eq!(std::fs::read(folder.join(left)).unwrap(), kept);
    }
}

#[tokio::test]
async fn certificates_that_are_over_at_once_are_refused_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let options = Options { leaf_lifetime: Duration::ZERO, ..options(data.path()) };
    let error = start(options).await.unwrap_err().to_string();
    assert!(error.contains("at least a second"), "{error}");
}
