//! What the command says and writes.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use outrigger_testkit::app::App;

use crate::developer::{Developer, secure};

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_mistake_gets_a_message_that_says_what_to_do() {
    let developer = Developer::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let in_use = format!("127.0.0.1:{port}: ");
    let circle = format!("shop={}", 18_443);
    let cases: [(&[&str], &[&str]); 7] = [
        (&["shop"], &["`shop`", "NAME=PORT"]),
        (&["sh op=1"], &["`sh op` is not a name"]),
        (&["shop=99999"], &["port 99999 is out of range"]),
        (&["shop=1", "shop=2"], &["leads to localhost:1 already"]),
        (&["web=./nothing"], &["./nothing", "No such file", "make it first"]),
        (&["shop=1", "--https-port", &port], &[&in_use, "(pid ", "--https-port PORT"]),
        (&[&circle, "--https-port", "18443"], &["this proxy itself listens"]),
    ];
    for (arguments, parts) in cases {
        let output = developer.run(&[&["dev"], arguments].concat());
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.starts_with("outrigger: ") && said.lines().count() == 1, "{said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: no `{part}` in {said}");
        }
    }
    assert!(!developer.root().exists(), "nothing is made for a command line with a mistake in it");
}

#[tokio::test]
async fn write_makes_a_file_that_does_the_same() {
    let app = App::builder().name("shop").start().await;
    let developer = Developer::new();
    std::fs::create_dir(developer.home.path().join("dist")).unwrap();
    std::fs::write(developer.home.path().join("dist/index.html"), "front").unwrap();
    let site = format!("shop={}", app.address().port());
    let line = ["dev", &site, "web=dist", "--https-port", "0", "--http-port", "0", "--write", "dev.yaml"];
    let written = developer.run(&line);
    assert!(written.status.success(), "{}", said(&written));
    let checked = developer.run(&["check", "dev.yaml"]);
    assert_eq!((checked.stdout.as_slice(), said(&checked)), (&b"ok\n"[..], String::new()));

    let again = developer.run(&line);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("dev.yaml is there already"), "{}", said(&again));

    let text = std::fs::read_to_string(developer.home.path().join("dev.yaml")).unwrap();
    let port = text.split("address: \"127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let mut run = developer.command(&["run", "-c", "dev.yaml", "--admin", "127.0.0.1:0"]);
    let mut running = run.stdout(Stdio::null()).spawn().unwrap();
    let until = std::time::Instant::now() + crate::developer::PATIENCE;
    let mut connected = secure(port.parse().unwrap(), "web.localhost", &developer.root()).await;
    while connected.is_err() && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
        connected = secure(port.parse().unwrap(), "web.localhost", &developer.root()).await;
    }
    let mut stream = connected.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: web.localhost\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.unwrap();
    let mut bytes = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await;
    assert!(bytes.ends_with(b"front"), "{}", String::from_utf8_lossy(&bytes));
    running.kill().unwrap();
    running.wait().unwrap();
}

#[tokio::test]
async fn the_authority_is_made_once_and_vouches_for_localhost_alone() {
    let developer = Developer::new();
    let app = App::builder().start().await;
    let site = format!("shop={}", app.address().port());
    let first = developer.dev(&[&site]);
    let root = std::fs::read(developer.root()).unwrap();
    assert_eq!(first.get("shop.localhost", "/", "").await.status, 200);
    drop(first);
    let second = developer.dev(&[&site]);
    assert_eq!(std::fs::read(developer.root()).unwrap(), root);
    assert_eq!(second.get("shop.localhost", "/", "").await.status, 200);
    let key = developer.root().with_file_name("root.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    // Its key in the wrong hands makes a certificate for another name, which is of no use.
    let stolen =
        outrigger_certs::Authority::from_pem(&root, &std::fs::read(key).unwrap(), "localhost").unwrap();
    let day = Duration::from_hours(24);
    for (name, trusted) in [("bank.example", false), ("127.0.0.1", false), ("other.localhost", true)] {
        let (issued, key) =
            stolen.server_identity(&[name.to_owned()], day, std::time::SystemTime::now()).unwrap();
        assert_eq!(accepts(&root, name, &issued.chain_pem, key.expose()).await, trusted, "{name}");
    }
}

/// Whether somebody who trusts the root takes a server for `name` with this certificate.
async fn accepts(root: &[u8], name: &str, chain: &str, key: &str) -> bool {
    use outrigger_certs::edge::{Ca, Certified, client_config, server_config};
    let certified = Certified::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let server = server_config(&[std::sync::Arc::new(certified)]).unwrap();
    let client = client_config(Ca::Pem(root.to_owned()), &[]).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = outrigger_certs::rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let (connected, _) = tokio::join!(
        tokio_rustls::TlsConnector::from(client).connect(name, near),
        tokio_rustls::TlsAcceptor::from(server).accept(far)
    );
    connected.is_ok()
}

#[tokio::test]
async fn a_terminal_gets_lines_that_people_read() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: needs script, of util-linux");
        return;
    }
    let app = App::builder().start().await;
    let developer = Developer::new();
    let program = env!("CARGO_BIN_EXE_outrigger");
    let line = format!("exec {program} dev --https-port 0 --http-port 0 shop={}", app.address().port());
    let mut command = Command::new("script");
    command.args(["-qfec", &line, "/dev/null"]).env("HOME", developer.home.path());
    // What it says comes by way of the terminal, which is `script`'s standard output.
    command.env_remove("XDG_DATA_HOME").env_remove("NO_COLOR").stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output).map_while(Result::ok);
    let url = lines.find(|line| line.starts_with("https://shop.localhost:")).unwrap();
    let port: u16 = url.split(' ').next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let mut stream = secure(port, "shop.localhost", &developer.root()).await.unwrap();
    let request = b"GET /status/404 HTTP/1.1\r\nhost: shop.localhost\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.unwrap();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
    let logged = tokio::task::spawn_blocking(move || lines.find(|line| line.contains("/status/404")));
    let logged = tokio::time::timeout(crate::developer::PATIENCE, logged).await.unwrap().unwrap().unwrap();
    assert!(logged.starts_with("\u{1b}[33m404\u{1b}[0m ") && logged.contains("GET"), "{logged:?}");
    let _ = child.kill();
    let _ = child.wait();
}
