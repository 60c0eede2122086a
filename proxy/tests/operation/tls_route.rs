//! TLSRoutes: connections by the name that the caller asks for, passed on as they are or decrypted.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use outrigger_certs::Authority;
use outrigger_proxy::Proxy;
use outrigger_testkit::app::TcpApp;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::caller::{shown, tls};
use crate::desk::{Desk, eventually, metric};
use crate::tls::secure_app;

/// An application that terminates TLS itself, under these names, and answers each connection with its own name.
async fn named_app(root: &Authority, name: &'static str, names: &[&str]) -> SocketAddr {
    let answer = move |mut stream: TlsStream<TcpStream>| async move {
        let _ = stream.write_all(name.as_bytes()).await;
        let _ = stream.shutdown().await;
    };
    secure_app(root, names, answer).await
}

/// Who answers a caller that asks for `name`, and with which certificate; or why nobody does.
async fn ask(proxy: &Proxy, name: &str, trust: &str) -> Result<(String, CertificateDer<'static>), String> {
    let address = proxy.listener("tls").unwrap();
    let mut stream = tls(address, name, trust, &[]).await.map_err(|error| error.to_string())?;
    let certificate = shown(&stream);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
    Ok((answer, certificate))
}

#[tokio::test]
async fn tls_route_passes_connections_on_by_the_most_specific_name() {
    let (desk, root) = (Desk::new(), Authority::create("test").unwrap());
    let shop = named_app(&root, "shop", &["shop.test"]).await;
    let wild = named_app(&root, "wild", &["*.shop.test", "*.example.test"]).await;
    let proxy = desk
        .start(&format!(
            "listeners:
  - {{ name: tls, address: 127.0.0.1:0, protocol: TLS, tls: {{ mode: Passthrough }} }}
tlsRoutes:
  - {{ name: shop, listeners: [tls], hostnames: [shop.test], rules: [{{ backendRefs: [{{ name: shop }}] }}] }}
  - {{ name: api, listeners: [tls], hostnames: [api.shop.test], rules: [{{ backendRefs: [{{ name: gone }}] }}] }}
  - {{ name: wild, listeners: [tls], hostnames: ['*.shop.test'], rules: [{{ backendRefs: [{{ name: wild }}] }}] }}
backends:
  - {{ name: shop, endpoints: [{{ address: {shop} }}] }}
  - {{ name: wild, endpoints: [{{ address: {wild} }}] }}
"
        ))
        .await;
    let trust = root.cert_pem();
    for (name, app) in [("shop.test", "shop"), ("a.shop.test", "wild")] {
        assert_eq!(ask(&proxy, name, &trust).await.unwrap().0, app, "{name}");
    }
    // The most specific route decides, although its backend is not there.
    assert!(ask(&proxy, "api.shop.test", &trust).await.is_err());
    // A name that no route has: the caller is told so, in its own protocol.
    let refused = ask(&proxy, "a.example.test", &trust).await.unwrap_err();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    let failed = ["route=\"\"", "listener=\"tls\""];
    eventually("it is counted", || async {
        let failed = metric(&proxy.metrics(), "outrigger_tcp_connections_failed_total", &failed);
        ((failed - 1.0).abs() < 0.1).then_some(())
    })
    .await;
    // What is no TLS is nobody's.
    let mut plain = TcpStream::connect(proxy.listener("tls").unwrap()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");
    proxy.stop().await;
}

#[tokio::test]
async fn tls_route_at_a_listener_that_terminates_gets_the_bytes_inside() {
    let (desk, root) = (Desk::new(), Authority::create("test").unwrap());
    let (db, cache, other) = (
        TcpApp::greeting(b"db").await.unwrap(),
        TcpApp::greeting(b"cache").await.unwrap(),
        TcpApp::greeting(b"other").await.unwrap(),
    );
    let names = ["db.test", "cache.test", "other.test"].map(String::from);
    let (chain, key) = root.server_identity(&names, Duration::from_hours(1), SystemTime::now()).unwrap();
    desk.write("all.pem", &chain.chain_pem);
    desk.write("all.key", key.expose());
    let config = |rest: &str| {
        format!(
            "listeners:
  - {{ name: tls, address: 127.0.0.1:0, protocol: TLS, tls: {{ certificateRefs: [{{ name: all }}] }} }}
tlsRoutes:
  - {{ name: db, listeners: [tls], hostnames: [db.test], rules: [{{ backendRefs: [{{ name: db }}] }}] }}
  - {{ name: cache, listeners: [tls], hostnames: [cache.test], rules: [{{ backendRefs: [{{ name: cache }}] }}] }}
{rest}backends:
  - {{ name: db, endpoints: [{{ address: {} }}] }}
  - {{ name: cache, endpoints: [{{ address: {} }}] }}
  - {{ name: other, endpoints: [{{ address: {} }}] }}
certificates:
  - {{ name: all, chain: all.pem, key: all.key }}
",
            db.address(),
            cache.address(),
            other.address()
        )
    };
    let proxy = desk.start(&config("")).await;
    let trust = root.cert_pem();
    let greets = |name: &'static str| {
        let (address, trust) = (proxy.listener("tls").unwrap(), trust.clone());
        async move {
            let mut stream = tls(address, name, &trust, &[]).await.map_err(|error| error.to_string())?;
            let mut greeting = [0; 2];
            stream.read_exact(&mut greeting).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(String::from_utf8(greeting.to_vec()).unwrap())
        }
    };
    assert_eq!(greets("db.test").await.unwrap(), "db");
    assert_eq!(greets("cache.test").await.unwrap(), "ca");
    let refused = greets("other.test").await.unwrap_err();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    // A TCPRoute at the same listener takes what no TLSRoute does.
    let rest =
        "tcpRoutes:\n  - { name: rest, listeners: [tls], rules: [{ backendRefs: [{ name: other }] }] }\n";
    desk.replace("proxy.yaml", &config(rest));
    eventually("the TCPRoute is there", || async {
        (greets("other.test").await.ok()? == "ot").then_some(())
    })
    .await;
    assert_eq!(greets("db.test").await.unwrap(), "db");
    proxy.stop().await;
}

/// Where a listener detects what is spoken, its TLSRoutes take the TLS; also in a sidecar.
#[tokio::test]
async fn tls_route_at_a_listener_that_detects() {
    for direction in ["Edge", "Outbound", "Inbound"] {
        detects(direction).await;
    }
}

async fn detects(direction: &str) {
    let (desk, root) = (Desk::new(), Authority::create("test").unwrap());
    let shop = named_app(&root, "shop", &["shop.test"]).await;
    let plain = TcpApp::greeting(b"plain").await.unwrap();
    let proxy = desk
        .start(&format!(
            "listeners:
  - {{ name: tls, address: 127.0.0.1:0, direction: {direction} }}
tlsRoutes:
  - {{ name: shop, listeners: [tls], hostnames: [shop.test], rules: [{{ backendRefs: [{{ name: shop }}] }}] }}
tcpRoutes:
  - {{ name: rest, listeners: [tls], rules: [{{ backendRefs: [{{ name: plain }}] }}] }}
backends:
  - {{ name: shop, endpoints: [{{ address: {shop} }}] }}
  - {{ name: plain, endpoints: [{{ address: {} }}] }}
",
            plain.address()
        ))
        .await;
    assert_eq!(ask(&proxy, "shop.test", &root.cert_pem()).await.unwrap().0, "shop");
    let mut stream = TcpStream::connect(proxy.listener("tls").unwrap()).await.unwrap();
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"plain");
    drop(stream);
    proxy.stop().await;
}
