//! TLS with callers and with applications, out of files that are followed.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use outrigger_certs::Authority;
use outrigger_certs::edge::{self, Certified};
use outrigger_testkit::app::{App, TcpApp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::caller::{Http1, Http2, get, shown, tls};
use crate::desk::{Desk, eventually, metric, rejected};

/// A certificate for some names, and its key; both PEM.
fn issue(root: &Authority, names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let (chain, key) = root.server_identity(&names, Duration::from_hours(1), SystemTime::now()).unwrap();
    (chain.chain_pem, key.expose().to_owned())
}

fn leaf(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Writes a certificate's files; answers with the leaf.
fn put(desk: &Desk, name: &str, root: &Authority, names: &[&str]) -> CertificateDer<'static> {
    let (chain, key) = issue(root, names);
    desk.replace(&format!("{name}.key"), &key);
    desk.replace(&format!("{name}.pem"), &chain);
    leaf(&chain)
}

fn https(app: SocketAddr) -> String {
    format!(
        "listeners:
  - name: secure
    address: 127.0.0.1:0
    protocol: HTTPS
    tls: {{ mode: Terminate, certificateRefs: [{{ name: first }}, {{ name: shop }}, {{ name: wild }}] }}
httpRoutes:
  - {{ name: all, listeners: [secure], rules: [{{ backendRefs: [{{ name: app }}] }}] }}
backends:
  - {{ name: app, endpoints: [{{ address: {app} }}] }}
certificates:
  - {{ name: first, chain: first.pem, key: first.key }}
  - {{ name: shop, chain: shop.pem, key: shop.key }}
  - {{ name: wild, chain: wild.pem, key: wild.key }}
"
    )
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name_and_the_protocol_by_alpn() {
    let app = App::builder().start().await;
    let (desk, root) = (Desk::new(), Authority::create("test").unwrap());
    let trust = root.cert_pem();
    let first = put(&desk, "first", &root, &["first.test", "other.example"]);
    let shop = put(&desk, "shop", &root, &["shop.test"]);
    let wild = put(&desk, "wild", &root, &["*.shop.test"]);
    let proxy = desk.start(&https(app.address())).await;
    let address = proxy.listener("secure").unwrap();
    for (name, expected) in
        [("first.test", &first), ("shop.test", &shop), ("api.shop.test", &wild), ("other.example", &first)]
    {
        let stream = tls(address, name, &trust, &[b"h2", b"http/1.1"]).await.unwrap();
        assert_eq!(shown(&stream), *expected, "{name}");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let answer = Http2::over(stream).await.get(&format!("https://{name}/")).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    // Everybody else is shown the first, and may refuse it.
    assert!(tls(address, "unknown.test", &trust, &[]).await.is_err());
    let stream = tls(address, "shop.test", &trust, &[b"http/1.1"]).await.unwrap();
    assert_eq!(Http1::over(stream).await.get("shop.test", "/").await.unwrap().status, 200);
    let stream = tls(address, "shop.test", &trust, &[]).await.unwrap();
    assert_eq!(Http1::over(stream).await.get("shop.test", "/").await.unwrap().status, 200);
    let stream = tls(address, "shop.test", &trust, &[]).await.unwrap();
    assert_eq!(
        Http2::over(stream).await.get("https://shop.test/").await.unwrap().status,
        200,
        "by its preface"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_open_connections_stay() {
    let app = App::builder().start().await;
    let (desk, root) = (Desk::new(), Authority::create("test").unwrap());
    for (name, host) in [("first", "first.test"), ("shop", "shop.test"), ("wild", "*.shop.test")] {
        put(&desk, name, &root, &[host]);
    }
    let proxy = desk.start(&https(app.address())).await;
    let (address, trust) = (proxy.listener("secure").unwrap(), root.cert_pem());
    let mut open = Http1::over(tls(address, "shop.test", &trust, &[b"http/1.1"]).await.unwrap()).await;
    open.get("shop.test", "/").await.unwrap();
    let now = || async { shown(&tls(address, "shop.test", &trust, &[]).await.unwrap()) };

    let renewed = put(&desk, "shop", &root, &["shop.test"]);
    eventually("the new certificate is shown", || async { (now().await == renewed).then_some(()) }).await;
    assert_eq!(open.get("shop.test", "/").await.unwrap().status, 200);

    // A key that is another's, no certificate at all, and no file: the last good one stays, and it is said.
    let (other, _) = issue(&root, &["shop.test"]);
    let (good, key) = (std::fs::read_to_string(desk.path("shop.pem")).unwrap(), desk.path("shop.key"));
    let key = std::fs::read_to_string(key).unwrap();
    for bad in [Some(other.as_str()), Some("no certificate"), None] {
        desk.hush();
        match bad {
            Some(text) => desk.replace("shop.pem", text),
            None => std::fs::remove_file(desk.path("shop.pem")).unwrap(),
        }
        let line = desk.said(&["Certificate shop: chain: ", "shop.pem"]).await;
        assert!(!line.contains("PRIVATE") && !line.contains(key.lines().nth(1).unwrap()), "{line}");
        assert_eq!(now().await, renewed, "{line}");
        rejected(&proxy, 1).await;
    }
    desk.replace("shop.pem", &good);
    rejected(&proxy, 0).await;
    assert_eq!(open.get("shop.test", "/").await.unwrap().status, 200);
    assert!(metric(&proxy.metrics(), "outrigger_certificate_expiry_timestamp_seconds", &["shop"]) > 1e9);
    proxy.stop().await;
}

#[tokio::test]
async fn a_listener_without_its_certificate_opens_when_that_comes() {
    let app = App::builder().start().await;
    let (desk, root) = (Desk::new(), Authority::create("test").unwrap());
    let text = format!("{}  - {{ name: web, address: 127.0.0.1:0 }}\n", "listeners:\n")
        + https(app.address()).strip_prefix("listeners:\n").unwrap();
    let proxy = desk.start(&text).await;
    desk.said(&["Listener secure: tls.certificateRefs", "not opened"]).await;
    assert!(proxy.listener("secure").is_none());
    put(&desk, "shop", &root, &["shop.test"]);
    let address = eventually("it is opened", || async { proxy.listener("secure") }).await;
    let stream = tls(address, "shop.test", &root.cert_pem(), &[b"http/1.1"]).await.unwrap();
    assert_eq!(Http1::over(stream).await.get("shop.test", "/").await.unwrap().status, 200);
    proxy.stop().await;
}

/// An application that terminates TLS itself, under these names, and does with each connection as it is told.
pub(crate) async fn secure_app<F: Future<Output = ()> + Send + 'static>(
    root: &Authority,
    names: &[&str],
    answer: impl Fn(TlsStream<TcpStream>) -> F + Send + 'static,
) -> SocketAddr {
    let (chain, key) = issue(root, names);
    let certified = Certified::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let acceptor = TlsAcceptor::from(edge::server_config(&[certified.into()]).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            tokio::spawn(answer(stream));
        }
    });
    address
}

/// Answers requests of HTTP/1.1.
async fn answer_http(mut stream: TlsStream<TcpStream>) {
    let mut read = [0; 1024];
    while stream.read(&mut read).await.is_ok_and(|length| length > 0) {
        let answer = b"HTTP/1.1 200 OK\r\nx-app: secure\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    }
}

#[tokio::test]
async fn an_application_behind_tls_must_be_who_it_is_expected_to_be() {
    let (desk, root) = (Desk::new(), Authority::create("test").unwrap());
    desk.write("ca.pem", &root.cert_pem());
    desk.write("foreign.pem", &Authority::create("test").unwrap().cert_pem());
    let app = secure_app(&root, &["api.test"], answer_http).await;
    let backend = |hostname: &str, ca: &str| {
        format!(
            "listeners:
  - {{ name: web, address: 127.0.0.1:0, protocol: HTTP }}
httpRoutes:
  - {{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: api }}] }}] }}
backends:
  - name: api
    endpoints: [{{ address: {app} }}]
    tls: {{ hostname: {hostname}, caCertificates: {ca} }}
"
        )
    };
    let proxy = desk.start(&backend("api.test", "ca.pem")).await;
    let address = proxy.listener("web").unwrap();
    assert_eq!(get(address, "x.test", "/").await.app(), "secure");
    for (hostname, ca, said) in
        [("other.test", "ca.pem", "other.test"), ("api.test", "foreign.pem", "UnknownIssuer")]
    {
        desk.write("proxy.yaml", &backend(hostname, ca));
        let answer = eventually("it is refused", || async {
            let answer = get(address, "x.test", "/").await;
            answer.header("proxy-status").contains(said).then_some(answer)
        })
        .await;
        assert_eq!(answer.status, 503);
        let why = answer.header("proxy-status");
        assert!(why.starts_with("outrigger; error=tls_certificate_error"), "{why}");
    }
    // An authority that cannot be read: never without the TLS that was asked for.
    desk.write("proxy.yaml", &backend("third.test", "absent.pem"));
    desk.said(&["Backend api: tls.caCertificates: cannot read", "absent.pem"]).await;
    let answer = get(address, "x.test", "/").await;
    assert_eq!(answer.status, 503);
    proxy.stop().await;
}

#[tokio::test]
async fn opaque_bytes_inside_tls_reach_their_route() {
    let tcp = TcpApp::greeting(b"hello\n").await.unwrap();
    let (desk, root) = (Desk::new(), Authority::create("test").unwrap());
    put(&desk, "db", &root, &["db.test"]);
    let proxy = desk
        .start(&format!(
            "listeners:
  - {{ name: db, address: 127.0.0.1:0, protocol: TLS, tls: {{ certificateRefs: [{{ name: db }}] }} }}
tcpRoutes:
  - {{ name: db, listeners: [db], rules: [{{ backendRefs: [{{ name: db }}] }}] }}
backends:
  - {{ name: db, endpoints: [{{ address: {} }}] }}
certificates:
  - {{ name: db, chain: db.pem, key: db.key }}
",
            tcp.address()
        ))
        .await;
    let address = proxy.listener("db").unwrap();
    // Whatever protocol the caller names, it is the application's to know.
    for alpn in [&[][..], &[b"postgresql".as_slice()]] {
        let mut stream = tls(address, "db.test", &root.cert_pem(), alpn).await.unwrap();
        let mut greeting = [0; 6];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello\n");
        stream.write_all(b"over there").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "over there");
    }
    // Somebody who does not speak TLS gets nothing, and harms nobody.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"hello") && !answer.starts_with(b"HTTP"), "{answer:?}");
    proxy.stop().await;
}

/// What a route says of the scheme is that of the listener, over HTTP/1 and HTTP/2.
#[tokio::test]
async fn http_route_request_redirect_and_session_cookie_over_tls() {
    let app = App::builder().start().await;
    let (desk, root) = (Desk::new(), Authority::create("test").unwrap());
    for (name, host) in [("first", "first.test"), ("shop", "shop.test"), ("wild", "*.shop.test")] {
        put(&desk, name, &root, &[host]);
    }
    let rules = "rules:
    - matches: [{ path: { value: /old } }]
      filters:
        - type: RequestRedirect
          requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /new } }
    - { backendRefs: [{ name: app }], sessionPersistence: { sessionName: s } }
";
    let yaml = https(app.address()).replace(
        "  - { name: all, listeners: [secure], rules: [{ backendRefs: [{ name: app }] }] }",
        &format!("  - name: all\n    listeners: [secure]\n    {}", rules.replace('\n', "\n  ").trim_end()),
    );
    let proxy = desk.start(&yaml).await;
    let (address, trust) = (proxy.listener("secure").unwrap(), root.cert_pem());
    let expected = format!("https://shop.test:{}/new/a?b", address.port());
    let mut http1 = Http1::over(tls(address, "shop.test", &trust, &[b"http/1.1"]).await.unwrap()).await;
    let moved = http1.get("shop.test", "/old/a?b").await.unwrap();
    assert_eq!((moved.status, moved.header("location")), (302, &*expected));
    let first = http1.get("shop.test", "/").await.unwrap();
    let cookie = first.header("set-cookie");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
    let http2 = Http2::over(tls(address, "shop.test", &trust, &[b"h2"]).await.unwrap()).await;
    let moved = http2.get("https://shop.test/old/a?b").await.unwrap();
    assert_eq!((moved.status, moved.header("location")), (302, &*expected));
    proxy.stop().await;
}
