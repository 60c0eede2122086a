//! Ordinary TLS: the choice by name, and the control API's server before and after a node has an identity.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::SystemTime;

use outrigger_certs::edge::{self, Ca, Certified};
use outrigger_certs::rustls::{ClientConfig, ServerConfig};
use outrigger_certs::{Authority, CertificateDer, control, mesh};
use support::{DAY, authority, handshake, id, identity};

fn certified(root: &Authority, names: &[&str]) -> Arc<Certified> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let (issued, key) = root.server_identity(&names, DAY, SystemTime::now()).unwrap();
    Arc::new(Certified::from_pem(issued.chain_pem.as_bytes(), key.expose().as_bytes()).unwrap())
}

fn trusting(root: &Authority, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    edge::client_config(Ca::Pem(root.cert_pem().into_bytes()), alpn).unwrap()
}

/// The leaf that answers to a name, though it may not be valid for it.
async fn answering(server: &Arc<ServerConfig>, name: &str) -> CertificateDer<'static> {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let mut client = (*trusting(&authority(), &[])).clone();
    client.dangerous().set_certificate_verifier(Arc::new(Witness(seen.clone())));
    let _ = handshake(&Arc::new(client), server, name).await;
    let leaf = seen.lock().unwrap().take();
    leaf.expect("a certificate was shown")
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name() {
    let root = authority();
    let (shop, wild, old) = (
        certified(&root, &["shop.example", "www.shop.example"]),
        certified(&root, &["*.example"]),
        certified(&root, &["shop.example", "old.example"]),
    );
    let server = edge::server_config(&[shop.clone(), wild.clone(), old.clone()]).unwrap();
    let only = |one: &Arc<Certified>| edge::server_config(std::slice::from_ref(one)).unwrap();
    let leaf = async |one: &Arc<Certified>| answering(&only(one), "x.test").await;
    let (shop, wild, old) = (leaf(&shop).await, leaf(&wild).await, leaf(&old).await);
    for (name, expected) in [
        ("shop.example", &shop),
        ("WWW.Shop.Example", &shop),
        ("old.example", &old),
        ("other.example", &wild),
        ("a.b.example", &shop),
        ("elsewhere.test", &shop),
        ("127.0.0.1", &shop),
    ] {
        assert_eq!(&answering(&server, name).await, expected, "{name}");
    }
}

#[tokio::test]
async fn the_protocol_is_the_callers_choice() {
    let root = authority();
    let server = edge::server_config(&[certified(&root, &["shop.example"])]).unwrap();
    for (offer, chosen) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], Some(b"h2".as_slice())),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let (near, far) = handshake(&trusting(&root, offer), &server, "shop.example").await;
        assert_eq!(near.unwrap().get_ref().1.alpn_protocol(), chosen);
        assert!(far.is_ok());
    }
    let (near, _) = handshake(&trusting(&root, &[]), &server, "other.example").await;
    assert!(near.unwrap_err().to_string().contains("not valid for name"));
    let (near, _) = handshake(&trusting(&authority(), &[]), &server, "shop.example").await;
    assert!(near.unwrap_err().to_string().contains("UnknownIssuer"));
}

#[test]
fn a_certificate_needs_its_own_key() {
    let root = authority();
    let (issued, _) = root.server_identity(&["a.example".into()], DAY, SystemTime::now()).unwrap();
    let (key, _) = outrigger_certs::signing_request().unwrap();
    let error = Certified::from_pem(issued.chain_pem.as_bytes(), key.expose().as_bytes()).unwrap_err();
    assert_eq!(error, outrigger_certs::Error::KeyMismatch);
    assert!(edge::server_config(&[]).is_err());
    assert_eq!(certified(&root, &["A.example"]).names(), ["a.example"]);
}

#[tokio::test]
async fn a_node_knows_the_control_api_by_its_root() {
    let root = authority();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let (issued, key) = root.server_identity(&names, DAY, SystemTime::now()).unwrap();
    let bundle = root.cert_pem();
    let server = control::server_config(issued.chain_pem.as_bytes(), &key, bundle.as_bytes()).unwrap();
    for name in ["localhost", "127.0.0.1"] {
        let (near, far) = handshake(&control::pinned(root.fingerprint()), &server, name).await;
        assert_eq!(near.unwrap().get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        assert_eq!(mesh::peer_identity(far.unwrap().get_ref().1.peer_certificates()), None);
    }
    let (near, _) = handshake(&control::pinned(root.fingerprint()), &server, "other").await;
    assert!(near.unwrap_err().to_string().contains("not valid for name"));
    let (near, _) = handshake(&control::pinned(authority().fingerprint()), &server, "localhost").await;
    assert!(near.unwrap_err().to_string().contains("UnknownIssuer"));

    let me = identity(&root, "node/a");
    let (near, far) = handshake(&control::client_config(&me), &server, "localhost").await;
    assert!(near.is_ok());
    assert_eq!(mesh::peer_identity(far.unwrap().get_ref().1.peer_certificates()), Some(id("node/a")));
    let stranger = identity(&authority(), "node/a");
    let mut config = (*control::client_config(&me)).clone();
    config.client_auth_cert_resolver = control::client_config(&stranger).client_auth_cert_resolver.clone();
    let (_, far) = handshake(&Arc::new(config), &server, "localhost").await;
    assert!(far.is_err(), "a certificate that is shown must be right");
    // A sidecar cannot stand in for the control API: its certificate has no such name.
    let (near, _) = handshake(&control::client_config(&me), &mesh::server_config(&me), "localhost").await;
    assert!(near.is_err());
}

/// Notes the certificate that it is shown, and refuses it.
#[derive(Debug)]
struct Witness(Arc<std::sync::Mutex<Option<CertificateDer<'static>>>>);

mod witness {
    use outrigger_certs::rustls::client::danger::{
        HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
    };
    use outrigger_certs::rustls::{DigitallySignedStruct, Error, SignatureScheme};
    use outrigger_certs::{CertificateDer, ServerName, UnixTime};

    impl ServerCertVerifier for super::Witness {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            *self.0.lock().unwrap() = Some(end_entity.clone().into_owned());
            Err(Error::General("seen".into()))
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("seen".into()))
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("seen".into()))
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
}
