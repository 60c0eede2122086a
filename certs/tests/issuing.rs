//! Keys, requests, the authority, and what an identity is checked for.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::{Duration, SystemTime};

use outrigger_certs::{Authority, Error, Identity, Part, mesh, signing_request};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use support::{DAY, DOMAIN, authority, id, identity, identity_from};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Chain and key of a leaf that another tool made: `change` says what is odd about it.
fn odd_leaf(root: &Authority, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id("api").as_str().try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    change(&mut params);
    let issuer_key = KeyPair::from_pem(root.key_pem().expose()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&root.cert_pem(), issuer_key).unwrap();
    (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}

fn check(root: &Authority, (chain, key): &(String, String)) -> Result<Identity, Error> {
    Identity::from_pem(chain.as_bytes(), key.as_bytes(), root.cert_pem().as_bytes())
}

#[test]
fn an_identity_comes_back_as_it_was() {
    let root = authority();
    let first = identity(&root, "ns/shop/sa/api");
    let again = Identity::from_pem(
        first.chain_pem().as_bytes(),
        first.key_pem().expose().as_bytes(),
        first.bundle_pem().as_bytes(),
    )
    .unwrap();
    assert_eq!(again.id(), &id("ns/shop/sa/api"));
    assert_eq!((again.not_before(), again.not_after()), (first.not_before(), first.not_after()));
    assert_eq!(again.bundle_pem(), root.cert_pem());
    let life = first.not_after().duration_since(first.not_before()).unwrap();
    assert_eq!(life, DAY + Duration::from_mins(1), "it begins a minute back");
}

#[test]
fn a_key_is_never_shown() {
    let root = authority();
    let me = identity(&root, "api");
    let shown = format!("{me:?} {root:?} {:?} {:?}", me.key_pem(), root.key_pem());
    assert!(!shown.contains("PRIVATE") && !shown.contains("MII"), "{shown}");
    assert!(shown.contains("spiffe://outrigger.test/api"), "{shown}");
}

#[test]
fn what_is_wrong_is_named() {
    let root = authority();
    let good = identity(&root, "api");
    let (chain, key, bundle) = (good.chain_pem(), good.key_pem().expose().to_owned(), root.cert_pem());
    let refused = |chain: &str, key: &str, bundle: &str| {
        Identity::from_pem(chain.as_bytes(), key.as_bytes(), bundle.as_bytes()).unwrap_err()
    };
    assert_eq!(refused("", &key, &bundle), Error::Empty(Part::Chain));
    assert_eq!(refused(&chain, "", &bundle), Error::Empty(Part::Key));
    assert_eq!(refused(&chain, &key, ""), Error::Empty(Part::Bundle));
    assert_eq!(refused(&chain, signing_request().unwrap().0.expose(), &bundle), Error::KeyMismatch);
    assert!(matches!(refused(&chain, &key, &authority().cert_pem()), Error::Untrusted(_)));
    assert_eq!(refused(&bundle, &key, &bundle), Error::WrongRole { part: Part::Chain, is_ca: true });
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(refused(garbage, &key, &bundle), Error::Unreadable { part: Part::Chain, .. }));
    assert!(matches!(refused(&chain, &key, garbage), Error::Unreadable { part: Part::Bundle, .. }));
}

#[test]
fn a_certificate_out_of_its_time_is_refused() {
    let root = authority();
    let now = SystemTime::now();
    let past = identity_from(&root, "api", Duration::from_mins(1), now - DAY);
    let (chain, key, bundle) = (past.chain_pem(), past.key_pem().expose().to_owned(), root.cert_pem());
    let at = |time| Identity::from_pem_at(chain.as_bytes(), key.as_bytes(), bundle.as_bytes(), time);
    let error = at(now).unwrap_err();
    assert_eq!(error, Error::Expired { part: Part::Chain, since: past.not_after() });
    assert!(error.to_string().starts_with("the certificate chain has been expired since "), "{error}");
    let error = at(now - 2 * DAY).unwrap_err();
    assert_eq!(error, Error::NotYetValid { part: Part::Chain, until: past.not_before() });
}

#[test]
fn a_leaf_has_exactly_one_spiffe_id() {
    let root = authority();
    assert!(check(&root, &odd_leaf(&root, |_| {})).is_ok());
    let none = odd_leaf(&root, |params| params.subject_alt_names.clear());
    assert!(matches!(check(&root, &none), Err(Error::NoSpiffeId(_))));
    let two = odd_leaf(&root, |params| {
        params.subject_alt_names.push(SanType::URI(id("web").as_str().try_into().unwrap()));
    });
    let error = check(&root, &two).unwrap_err();
    assert!(error.to_string().contains("it has 2: "), "{error}");
    let der = CertificateDer::from_pem_slice(two.0.as_bytes()).unwrap();
    assert_eq!(mesh::peer_identity(Some(&[der])), None);
    let other = odd_leaf(&root, |params| {
        params.subject_alt_names = vec![SanType::URI("https://shop.example/".try_into().unwrap())];
    });
    assert!(matches!(check(&root, &other), Err(Error::NoSpiffeId(_))));
    assert_eq!(mesh::peer_identity(None), None);
    assert_eq!(mesh::peer_identity(Some(&[CertificateDer::from(vec![1, 2, 3])])), None);
}

/// A request asks for CA:TRUE, for another's name, for every use: it gets what the authority gives to everyone.
#[test]
fn nothing_of_a_request_counts_but_its_key() {
    let root = authority();
    let key = KeyPair::generate().unwrap();
    let mut wish = CertificateParams::new(vec!["bank.example".to_owned()]).unwrap();
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wish.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    wish.subject_alt_names.push(SanType::URI(id("admin").as_str().try_into().unwrap()));
    let request = wish.serialize_request(&key).unwrap();
    for request in [request.pem().unwrap().as_bytes(), request.der().as_ref()] {
        let issued = root.sign(request, &id("api"), &[], DAY, SystemTime::now()).unwrap();
        let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        assert!(!leaf.is_ca());
        assert!(!leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
        let usages = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usages.server_auth && usages.client_auth && !usages.code_signing);
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(leaf.raw_serial(), issued.serial);
        let chain = issued.chain_pem.as_bytes();
        let bundle = root.cert_pem();
        let me = Identity::from_pem(chain, key.serialize_pem().as_bytes(), bundle.as_bytes()).unwrap();
        assert_eq!(me.id(), &id("api"));
    }
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let root = authority();
    let key = KeyPair::generate().unwrap();
    let mut der = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    for request in [der.as_slice(), b"-----BEGIN nothing", b"", b"\x30\x82"] {
        let error = root.sign(request, &id("api"), &[], DAY, SystemTime::now()).unwrap_err();
        assert!(matches!(error, Error::Unreadable { part: Part::Request, .. }), "{error}");
    }
}

#[test]
fn a_leaf_never_outlives_the_root() {
    let root = authority();
    let (_, request) = signing_request().unwrap();
    let century = DAY * 36_500;
    let issued = root.sign(request.as_bytes(), &id("api"), &[], century, SystemTime::now()).unwrap();
    assert!(issued.not_after <= SystemTime::now() + DAY * 3650);
    let late = SystemTime::now() + century;
    let error = root.sign(request.as_bytes(), &id("api"), &[], DAY, late).unwrap_err();
    assert!(matches!(error, Error::Expired { part: Part::Root, .. }), "{error}");
}

#[test]
fn a_root_from_files_signs_as_before() {
    let root = authority();
    let (certificate, key) = (root.cert_pem(), root.key_pem().expose().to_owned());
    let again = Authority::from_pem(certificate.as_bytes(), key.as_bytes(), DOMAIN).unwrap();
    assert_eq!(again.fingerprint(), root.fingerprint());
    let me = identity(&again, "api");
    assert!(
        Identity::from_pem(
            me.chain_pem().as_bytes(),
            me.key_pem().expose().as_bytes(),
            root.cert_pem().as_bytes()
        )
        .is_ok()
    );
    let other = authority().key_pem().expose().to_owned();
    let error = Authority::from_pem(certificate.as_bytes(), other.as_bytes(), DOMAIN).unwrap_err();
    assert_eq!(error, Error::KeyMismatch);
    let key = me.key_pem().expose().as_bytes();
    let error = Authority::from_pem(me.chain_pem().as_bytes(), key, DOMAIN).unwrap_err();
    assert_eq!(error, Error::WrongRole { part: Part::Root, is_ca: false });
}

/// Certificates come from the network: none may break the reader.
#[test]
fn no_flipped_bit_breaks_the_reader() {
    let me = identity(&authority(), "api");
    let der = CertificateDer::from_pem_slice(me.chain_pem().as_bytes()).unwrap().to_vec();
    for at in 0..der.len() * 8 {
        let mut flipped = der.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let _ = mesh::peer_identity(Some(&[CertificateDer::from(flipped)]));
    }
    for length in 0..der.len() {
        assert_eq!(mesh::peer_identity(Some(&[CertificateDer::from(&der[..length])])), None);
    }
}
