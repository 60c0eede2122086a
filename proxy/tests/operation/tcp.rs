//! Connections that are not HTTP, by TCP routes.

use std::fmt::Write as _;
use std::net::SocketAddr;

use outrigger_testkit::app::TcpApp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::desk::{Desk, eventually, free, metric};

/// A listener `db` with a route to backends of these endpoints and weights.
fn config(protocol: &str, backends: &[(&[SocketAddr], u32)]) -> String {
    let mut text = format!("listeners:\n  - {{ name: db, address: 127.0.0.1:0{protocol} }}\n");
    let refs: Vec<_> = backends
        .iter()
        .enumerate()
        .map(|(n, (_, weight))| format!("{{ name: b{n}, weight: {weight} }}"))
        .collect();
    text += "tcpRoutes:\n  - name: db\n    listeners: [db]\n";
    write!(text, "    rules: [{{ backendRefs: [{}] }}]\nbackends:\n", refs.join(", ")).unwrap();
    for (n, (endpoints, _)) in backends.iter().enumerate() {
        let endpoints: Vec<_> = endpoints.iter().map(|address| format!("{{ address: {address} }}")).collect();
        writeln!(
            text,
            "  - {{ name: b{n}, balance: {{ type: RoundRobin }}, endpoints: [{}] }}",
            endpoints.join(", ")
        )
        .unwrap();
    }
    text
}

/// Whether what is sent comes back.
async fn echoes(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let exchanged = async {
        stream.write_all(b"ping").await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    exchanged.await.is_ok_and(|answer| answer == b"ping")
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_half_closes_on_its_own() {
    let app = TcpApp::echo().await.unwrap();
    let desk = Desk::new();
    let proxy = desk.start(&config(", protocol: TCP", &[(&[app.address()], 1)])).await;
    let address = proxy.listener("db").unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        }
    });
    let mut received = Vec::new();
    read.read_to_end(&mut received).await.unwrap();
    writing.await.unwrap();
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
    let counted = |way: &str| metric(&proxy.metrics(), "outrigger_tcp_bytes_total", &[way, "backend=\"b0\""]);
    eventually("the bytes are counted", || async {
        ((counted("sent") - 1e6).abs() < 0.5 && (counted("received") - 1e6).abs() < 0.5).then_some(())
    })
    .await;
    let labels = ["direction=\"edge\"", "listener=\"db\"", "route=\"db\""];
    assert!((metric(&proxy.metrics(), "outrigger_tcp_connections_total", &labels) - 1.0).abs() < 0.1);
    proxy.stop().await;
}

/// On a listener for anything, an application that speaks first is heard although its caller says nothing.
#[tokio::test]
async fn an_application_may_speak_first() {
    let app = TcpApp::greeting(b"220 ready\r\n").await.unwrap();
    for protocol in [", protocol: TCP", ""] {
        let desk = Desk::new();
        let proxy = desk.start(&config(protocol, &[(&[app.address()], 1)])).await;
        let mut stream = TcpStream::connect(proxy.listener("db").unwrap()).await.unwrap();
        let mut greeting = [0; 11];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ready\r\n");
        stream.write_all(b"quit").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"quit");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn weights_share_the_connections_out() {
    let (often, never) = (TcpApp::echo().await.unwrap(), TcpApp::echo().await.unwrap());
    let half = TcpApp::echo().await.unwrap();
    let desk = Desk::new();
    let backends: [(&[SocketAddr], u32); 3] =
        [(&[often.address()], 3), (&[never.address()], 0), (&[half.address()], 1)];
    let proxy = desk.start(&config(", protocol: TCP", &backends)).await;
    let address = proxy.listener("db").unwrap();
    for _ in 0..200 {
        assert!(echoes(address).await);
    }
    assert_eq!(never.connections(), 0);
    assert_eq!(often.connections() + half.connections(), 200);
    // 50 expected, with a standard deviation of 6.
    assert!((14..=86).contains(&half.connections()), "{}", half.connections());
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let app = TcpApp::echo().await.unwrap();
    let gone = free();
    let desk = Desk::new();
    let proxy = desk.start(&config(", protocol: TCP", &[(&[gone, app.address()], 1)])).await;
    let address = proxy.listener("db").unwrap();
    for _ in 0..20 {
        assert!(echoes(address).await);
    }
    desk.write("proxy.yaml", &config(", protocol: TCP", &[(&[gone], 1)]));
    eventually("nobody answers", || async { (!echoes(address).await).then_some(()) }).await;
    eventually("it is counted", || async {
        (metric(&proxy.metrics(), "outrigger_tcp_connections_failed_total", &["db"]) > 0.5).then_some(())
    })
    .await;
    proxy.stop().await;
}

/// An application that breaks off is not taken for one that has finished: the caller sees the reset too.
#[tokio::test]
async fn a_reset_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let desk = Desk::new();
    let proxy = desk.start(&config(", protocol: TCP", &[(&[listener.local_addr().unwrap()], 1)])).await;
    let mut caller = TcpStream::connect(proxy.listener("db").unwrap()).await.unwrap();
    caller.write_all(b"half").await.unwrap();
    let (mut callee, _) = listener.accept().await.unwrap();
    callee.read_exact(&mut [0; 4]).await.unwrap();
    callee.write_all(b"an ans").await.unwrap();
    caller.read_exact(&mut [0; 6]).await.unwrap();
    callee.set_zero_linger().unwrap();
    drop(callee);
    let end = caller.read(&mut [0; 16]).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    proxy.stop().await;
}
