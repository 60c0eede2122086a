//! What happens when the proxy is out of file descriptors.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::binary::Binary;
use crate::desk::{Desk, PATIENCE};

/// A connection that stays open, with a request on it.
async fn ask(address: SocketAddr) -> TcpStream {
    let mut caller = TcpStream::connect(address).await.unwrap();
    caller.write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n").await.unwrap();
    caller
}

/// An application that closes each connection after one answer, so that each request needs one of its own.
async fn serve(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    }
}

/// The first part of an answer.
async fn answer(caller: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, caller.read(&mut bytes)).await.unwrap().unwrap();
    bytes.truncate(read);
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_proxy_out_of_file_descriptors_says_so_and_goes_on_when_it_has_some_again() {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = app.local_addr().unwrap();
    tokio::spawn(serve(app));
    let desk = Desk::new();
    let config = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\n\
         httpRoutes: [{{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}] }}] }}]\n\
         backends: [{{ name: app, endpoints: [{{ address: '{address}' }}] }}]\n"
    );
    desk.write("proxy.yaml", &config);
    let path = desk.path("proxy.yaml");
    let binary = Binary::run(&["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0"]);
    let web = binary.address("listener web").await;
    binary.limit_files(8);
    let mut callers = Vec::new();
    let refused = loop {
        let mut caller = ask(web).await;
        let answer = answer(&mut caller).await;
        callers.push(caller);
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        assert!(callers.len() < 100, "there is no limit: {binary:?}");
    };
    assert!(refused.starts_with("HTTP/1.1 500"), "the application is not to blame: {refused}");
    assert!(refused.contains("proxy_internal_error") && refused.contains("open files"), "{refused}");
    let mut waiting = ask(web).await;
    binary.stderr("cannot accept").await;
    drop(callers);
    let answer = answer(&mut waiting).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_proxy_takes_all_the_file_descriptors_that_it_may_have() {
    let desk = Desk::new();
    desk.write("proxy.yaml", "listeners: [{ name: web, address: '127.0.0.1:0', protocol: HTTP }]\n");
    let path = desk.path("proxy.yaml");
    let binary = Binary::run_with_files(64, &["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0"]);
    binary.address("listener web").await;
    let (soft, hard) = binary.files();
    assert_eq!(soft, hard);
}
