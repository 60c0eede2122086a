//! Handshakes between sidecars: who is believed, and who is not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};
use outrigger_certs::{Authority, mesh};
use support::{DOMAIN, authority, handshake, id, identity, identity_from};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAME: &str = "0.0.0.0";

#[tokio::test]
async fn two_identities_of_one_mesh_know_each_other() {
    let root = authority();
    let (caller, callee) = (identity(&root, "web"), identity(&root, "api"));
    let client = mesh::client_config(&caller, callee.id(), &[mesh::TCP]);
    let (near, far) = handshake(&client, &mesh::server_config(&callee), NAME).await;
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!(mesh::peer_identity(far.get_ref().1.peer_certificates()), Some(id("web")));
    assert_eq!(mesh::peer_identity(near.get_ref().1.peer_certificates()), Some(id("api")));
    let session = far.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(mesh::TCP));
    assert_eq!(session.server_name(), None, "the name of the callee is not sent");
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let suite = session.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
    let group = session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn another_identity_than_the_expected_is_refused_and_named() {
    let root = authority();
    let (caller, callee) = (identity(&root, "web"), identity(&root, "thief"));
    let client = mesh::client_config(&caller, &id("api"), &[mesh::HTTP1]);
    let (near, far) = handshake(&client, &mesh::server_config(&callee), NAME).await;
    let error = near.unwrap_err();
    let wrong = mesh::wrong_identity(&error).expect("the error says who answered");
    assert_eq!(wrong.expected, id("api"));
    assert_eq!(wrong.presented, [id("thief").to_string()]);
    assert!(wrong.to_string().contains("expected spiffe://outrigger.test/api"), "{wrong}");
    assert!(far.is_err());
}

#[tokio::test]
async fn a_wrong_root_is_not_a_wrong_identity() {
    let foreign = identity(&authority(), "api");
    let client = mesh::client_config(&identity(&authority(), "web"), &id("api"), &[mesh::HTTP1]);
    let (near, _) = handshake(&client, &mesh::server_config(&foreign), NAME).await;
    let error = near.unwrap_err();
    assert!(mesh::wrong_identity(&error).is_none());
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn a_caller_of_a_foreign_root_is_refused() {
    let root = authority();
    let callee = identity(&root, "api");
    // It believes the callee, but its own certificate is from elsewhere.
    let elsewhere = authority();
    let (key, request) = outrigger_certs::signing_request().unwrap();
    let now = SystemTime::now();
    let issued = elsewhere.sign(request.as_bytes(), &id("web"), &[], support::DAY, now).unwrap();
    let both = [elsewhere.cert_pem(), root.cert_pem()].concat();
    let (chain, key) = (issued.chain_pem.as_bytes(), key.expose().as_bytes());
    let caller = outrigger_certs::Identity::from_pem(chain, key, both.as_bytes()).unwrap();
    let client = mesh::client_config(&caller, &id("api"), &[mesh::HTTP1]);
    let (_, far) = handshake(&client, &mesh::server_config(&callee), NAME).await;
    assert!(far.unwrap_err().to_string().contains("UnknownIssuer"));
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let callee = identity(&authority(), "api");
    let anyone = outrigger_certs::control::pinned([0; 32]);
    let mut client = (*mesh::client_config(&identity(&authority(), "web"), &id("api"), &[])).clone();
    client.client_auth_cert_resolver = anyone.client_auth_cert_resolver.clone();
    let (_, far) = handshake(&Arc::new(client), &mesh::server_config(&callee), NAME).await;
    assert!(far.is_err());
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides() {
    let root = authority();
    let hour_ago = SystemTime::now() - Duration::from_hours(1);
    let expired = |path| identity_from(&root, path, Duration::from_mins(1), hour_ago);
    let client = mesh::client_config(&identity(&root, "web"), &id("api"), &[mesh::HTTP1]);
    let (near, _) = handshake(&client, &mesh::server_config(&expired("api")), NAME).await;
    assert!(near.unwrap_err().to_string().contains("expired"));
    let client = mesh::client_config(&expired("web"), &id("api"), &[mesh::HTTP1]);
    let (_, far) = handshake(&client, &mesh::server_config(&identity(&root, "api")), NAME).await;
    assert!(far.unwrap_err().to_string().contains("expired"));
}

/// The control API's own certificate is from the same root, but it is nobody in the mesh.
#[tokio::test]
async fn a_certificate_without_a_spiffe_id_is_refused() {
    let root = authority();
    let names = ["localhost".to_owned()];
    let (issued, key) = root.server_identity(&names, support::DAY, SystemTime::now()).unwrap();
    let bundle = root.cert_pem();
    let server =
        outrigger_certs::control::server_config(issued.chain_pem.as_bytes(), &key, bundle.as_bytes())
            .unwrap();
    let client = mesh::client_config(&identity(&root, "web"), &id("api"), &[b"h2"]);
    let (near, _) = handshake(&client, &server, NAME).await;
    let error = near.unwrap_err();
    let wrong = mesh::wrong_identity(&error).unwrap();
    assert_eq!(wrong.presented, Vec::<String>::new());
    assert!(wrong.to_string().contains("without a SPIFFE ID"), "{wrong}");
}

#[tokio::test]
async fn no_session_is_resumed() {
    let root = authority();
    let callee = identity(&root, "api");
    let server = mesh::server_config(&callee);
    // A caller that would resume if it could.
    let mut client = (*mesh::client_config(&identity(&root, "web"), &id("api"), &[mesh::HTTP1])).clone();
    client.resumption = outrigger_certs::rustls::client::Resumption::in_memory_sessions(8);
    let client = Arc::new(client);
    for _ in 0..3 {
        let (near, far) = handshake(&client, &server, NAME).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        // Tickets would arrive with the first bytes.
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
        assert_ne!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(near.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_new_identity_leaves_connections_alone() {
    let root = authority();
    let (caller, first, second) = (identity(&root, "web"), identity(&root, "api"), identity(&root, "api"));
    let client = mesh::client_config(&caller, &id("api"), &[mesh::HTTP1]);
    let (near, far) = handshake(&client, &mesh::server_config(&first), NAME).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let (near2, far2) = handshake(&client, &mesh::server_config(&second), NAME).await;
    assert!(near2.is_ok() && far2.is_ok());
    assert_ne!(near.get_ref().1.peer_certificates(), near2.unwrap().get_ref().1.peer_certificates());
    near.write_all(b"still here").await.unwrap();
    near.flush().await.unwrap();
    let mut heard = [0; 10];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn a_protocol_that_the_mesh_does_not_speak_is_refused() {
    let root = authority();
    let client = mesh::client_config(&identity(&root, "web"), &id("api"), &[b"spdy/3"]);
    let (near, _) = handshake(&client, &mesh::server_config(&identity(&root, "api")), NAME).await;
    assert!(near.is_err());
}

#[test]
fn an_authority_signs_for_its_own_trust_domain_alone() {
    let other = Authority::create("elsewhere.test").unwrap();
    let (_, request) = outrigger_certs::signing_request().unwrap();
    let error = other.sign(request.as_bytes(), &id("web"), &[], support::DAY, SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("elsewhere.test"), "{error}");
    assert!(error.to_string().contains(DOMAIN), "{error}");
}
