use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Hello, parse, peek};

const LONG: Duration = Duration::from_secs(30);

/// What a rustls client sends first.
fn client_hello(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (caller, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (caller.unwrap(), accepted.unwrap().0)
}

#[test]
fn reads_name_and_protocols() {
    let hello = parse(&client_hello("shop.localhost", &[b"h2", b"http/1.1"])).unwrap().unwrap();
    assert_eq!(hello.server_name.as_deref(), Some("shop.localhost"));
    assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert_eq!(parse(&client_hello("127.0.0.1", &[])), Some(Some(Hello::default())));
}

#[test]
fn every_part_of_a_hello_needs_more_and_garbage_does_not() {
    let bytes = client_hello("shop.localhost", &[b"h2"]);
    for length in 0..bytes.len() {
        assert_eq!(parse(&bytes[..length]), None, "{length} of {} bytes", bytes.len());
    }
    assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n"), Some(None));
    // An alert, and a handshake message that is no ClientHello.
    assert_eq!(parse(&[0x15, 3, 3, 0, 2, 2, 40]), Some(None));
    assert_eq!(parse(&[0x16, 3, 3, 0, 4, 14, 0, 0, 0]), Some(None));
}

#[tokio::test]
async fn waits_for_the_second_packet_and_consumes_nothing() {
    let (mut caller, mut accepted) = pair().await;
    let bytes = client_hello("shop.localhost", &[]);
    let (first, second) = bytes.split_at(700);
    caller.write_all(first).await.unwrap();
    assert_eq!(peek(&accepted, Duration::from_millis(20)).await.unwrap(), None);
    let (hello, sent) = tokio::join!(peek(&accepted, LONG), caller.write_all(second));
    sent.unwrap();
    assert_eq!(hello.unwrap().unwrap().server_name.as_deref(), Some("shop.localhost"));
    let mut all = vec![0; bytes.len()];
    accepted.read_exact(&mut all).await.unwrap();
    assert_eq!(all, bytes);
}

#[tokio::test]
async fn a_hello_without_end_is_none() {
    let (mut caller, accepted) = pair().await;
    // Records of a handshake message that says it is 60,000 bytes long.
    let mut bytes = vec![0x16, 3, 1, 0x3f, 0xff, 1, 0, 0xea, 0x60];
    bytes.resize(20_000, 0);
    caller.write_all(&bytes).await.unwrap();
    assert_eq!(peek(&accepted, LONG).await.unwrap(), None);
}
