//! The mesh on captured traffic: real binaries in network namespaces, seen from the applications and on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod mesh;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_certs::edge;
use outrigger_testkit::app::{App, TcpApp};
use outrigger_testkit::netns::{APP, PROXY, Pod, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use mesh::{
    GREETING, GREETS, HTTP, Member, Mesh, NOWHERE, PATIENCE, SPARE, curl, curl_as, dial, echo, hear, url,
};

const A: &str = "spiffe://outrigger.local/node/a";
const B: &str = "spiffe://outrigger.local/node/b";
/// What an observer of the wire must not see.
const MARK: &str = "in-the-clear";
/// What the hello of the mesh's mutual TLS names as its protocol (ALPN), and nothing else does.
const HELLO: &str = "outrigger/";

/// A path that is different for each address family.
fn path(what: &str, ip: IpAddr) -> String {
    format!("/{what}-{}", if ip.is_ipv4() { "v4" } else { "v6" })
}

/// What passes a pod's interface meanwhile.
fn wire_of(pod: &Pod, traffic: impl FnOnce()) -> Wire {
    let recording = pod.tcpdump("tcp").unwrap();
    traffic();
    recording.stop().unwrap()
}

fn strict(mode: &str) -> String {
    format!(
        "listeners: [{{ name: inbound, address: '[::]:15006', direction: Inbound, mtls: {{ mode: {mode} }} }}]"
    )
}

#[test]
fn what_one_pod_sends_to_another_is_mutual_tls_on_the_wire() {
    let Some(mesh) = Mesh::start() else { return };
    let (a, b) = (&mesh.a, &mesh.b);
    for ip in b.pod.ips() {
        let path = path("hello", ip);
        let wire = wire_of(&b.pod, || {
            let got = curl(&a.pod, &format!("-H x-marker:{MARK} {}", url(ip, HTTP, &path)));
            assert!(got.status == 200 && got.head.contains("x-app: b"), "{got:?}");
            let host = format!(r#"["host","{}"]"#, SocketAddr::new(ip, HTTP));
            assert!(got.body.contains(MARK) && got.body.contains(&host), "{got:?}");
        });
        assert!(!wire.contains(MARK) && !wire.contains("x-app") && !wire.contains(&path));
        assert!(wire.contains(HELLO));

        let callee = b.logged("inbound", &path);
        assert_eq!((&callee["caller"], &callee["scheme"]), (&A.into(), &"https".into()), "{callee}");
        let caller = a.logged("outbound", &path);
        let endpoint = SocketAddr::new(ip, HTTP).to_string();
        assert_eq!((&caller["callee"], &caller["endpoint"]), (&B.into(), &endpoint.into()), "{caller}");

        // An application of HTTP/2 is spoken to as its caller speaks.
        let http2 = curl(&a.pod, &format!("--http2-prior-knowledge {}", url(ip, HTTP, "/")));
        assert!(http2.status == 200 && http2.body.contains("HTTP/2"), "{http2:?}");
    }
}

#[test]
fn outsiders_are_let_in_until_the_listener_is_strict() {
    let Some(mesh) = Mesh::start() else { return };
    let (b, outside) = (&mesh.b, &mesh.outside);
    for ip in b.pod.ips() {
        let path = path("stranger", ip);
        let got = curl(outside, &url(ip, HTTP, &path));
        assert!(got.status == 200 && got.head.contains("x-app: b"), "{got:?}");
        let entry = b.logged("inbound", &path);
        assert_eq!((entry.get("caller"), &entry["scheme"]), (None, &"http".into()), "{entry}");
        let mut stream = dial(outside, (ip, GREETS).into());
        hear(&mut stream, GREETING);
        echo(stream, b"plain");
    }

    mesh.apply(&strict("Strict"));
    for ip in b.pod.ips() {
        let got = curl(outside, &url(ip, HTTP, "/refused"));
        assert!(got.status == 403 && got.head.contains("error=http_request_denied"), "{got:?}");
        // Closed, or reset: without a word either way.
        let mut refused = dial(outside, (ip, GREETS).into());
        refused.write_all(b"\0plain").unwrap();
        let end = refused.read(&mut [0; 1]).map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
        assert_eq!(curl(&mesh.a.pod, &url(ip, HTTP, "/member")).status, 200);
    }

    mesh.apply(&strict("Permissive"));
    assert_eq!(curl(outside, &url(b.pod.ipv4().into(), HTTP, "/again")).status, 200);
}

/// Forty requests for a host that only the route knows, and how many `b` and its canary took.
fn shares(from: &Member) -> (usize, usize) {
    let answers = curl(&from.pod, &format!("--resolve shop.mesh:80:{NOWHERE} http://shop.mesh/shop-[1-40]"));
    let all = answers.head + &answers.body;
    (all.matches("x-app: b\r\n").count(), all.matches("x-app: b-canary\r\n").count())
}

#[test]
fn a_route_of_captured_traffic_sends_a_host_to_backends_by_weight() {
    let Some(mesh) = Mesh::start() else { return };
    let route = |b: u32, canary: u32| {
        mesh.apply(&format!(
            "httpRoutes: [{{ name: shop, listeners: [outbound], hostnames: [shop.mesh], rules: [{{ \
             backendRefs: [{{ name: b, weight: {b} }}, {{ name: b-canary, weight: {canary} }}] }}] }}]"
        ));
    };
    route(1, 1);
    let (b, canary) = shares(&mesh.a);
    assert!(b > 0 && canary > 0 && b + canary == 40, "{b} and {canary}");
    let entry = mesh.a.logged("outbound", "/shop-7\"");
    assert_eq!((&entry["route"], &entry["callee"]), (&"shop".into(), &B.into()), "{entry}");
    assert_eq!(mesh.b.logged("inbound", "/shop-7\"")["caller"], A);
    route(1, 0);
    assert_eq!(shares(&mesh.a), (40, 0));

    // The callee's own pod: by the same route, and by its own address.
    let wire = wire_of(&mesh.b.pod, || assert_eq!(shares(&mesh.b), (40, 0)));
    assert!(!wire.contains(HELLO) && !wire.contains("shop-"));
    let entry = mesh.b.logged("inbound", &format!("\"caller\":\"{B}\""));
    assert_eq!(entry["status"], 200, "{entry}");
    for ip in mesh.b.pod.ips() {
        let got = curl(&mesh.b.pod, &url(ip, HTTP, "/own"));
        assert!(got.status == 200 && got.head.contains("x-app: b"), "{got:?}");
    }
}

/// The sidecar cannot wait for ever for the first word: it reaches for the callee, and lets go again.
#[test]
fn a_connection_opened_in_advance_is_routed_when_it_speaks() {
    let Some(mesh) = Mesh::start() else { return };
    mesh.apply(
        "httpRoutes: [{ name: shop, listeners: [outbound], hostnames: [shop.mesh], rules: [{ backendRefs: [{ name: b }] }] }]",
    );
    for ip in mesh.outside.ips() {
        let outside = mesh.outside.within(|| TcpListener::bind((ip, SPARE))).unwrap().unwrap();
        let mut early = dial(&mesh.a.pod, (ip, SPARE).into());
        let (mut silent, _) = outside.accept().unwrap();
        let path = path("early", ip);
        early.write_all(format!("GET {path} HTTP/1.1\r\nhost: shop.mesh\r\n\r\n").as_bytes()).unwrap();
        hear(&mut early, b"HTTP/1.1 200 OK\r\n");
        assert_eq!(mesh.a.logged("outbound", &path)["route"], "shop");
        assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);

        // The same with what is not HTTP keeps the connection that was made.
        let mut opaque = dial(&mesh.a.pod, (ip, SPARE).into());
        let (mut callee, _) = outside.accept().unwrap();
        opaque.write_all(b"\0bytes").unwrap();
        hear(&mut callee, b"\0bytes");
        callee.write_all(b"more").unwrap();
        drop(callee);
        hear(&mut opaque, b"more");
        assert_eq!(opaque.read(&mut [0; 1]).unwrap(), 0);
    }
}

/// What arrives at the listener for outbound traffic leaves with the node's identity.
#[test]
fn nobody_but_its_own_application_speaks_through_a_sidecar() {
    let Some(mesh) = Mesh::start() else { return };
    mesh.apply(
        "httpRoutes: [{ name: shop, listeners: [outbound], hostnames: [shop.mesh], rules: [{ backendRefs: [{ name: b }] }] }]",
    );
    let as_proxy = |pod: &Pod, ip: IpAddr| {
        let target = url(ip, 15001, "/");
        pod.exec_as(APP, &["curl", "-qsS", "-i", "-m", "20", "-H", "host: shop.mesh", &target]).unwrap()
    };
    for ip in mesh.a.pod.ips() {
        let own = as_proxy(&mesh.a.pod, ip).ok().unwrap();
        assert!(own.contains("x-app: b"), "{own}");
        let refused = as_proxy(&mesh.outside, ip);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    }
}

#[test]
fn an_application_that_speaks_first_is_heard_through_mutual_tls() {
    let Some(mesh) = Mesh::start() else { return };
    for ip in mesh.b.pod.ips() {
        let there = SocketAddr::new(ip, GREETS);
        let wire = wire_of(&mesh.b.pod, || {
            let mut stream = dial(&mesh.a.pod, there);
            hear(&mut stream, GREETING);
            echo(stream, MARK.as_bytes());
            // A caller that only listens.
            let mut mute = dial(&mesh.a.pod, there);
            mute.shutdown(Shutdown::Write).unwrap();
            hear(&mut mute, GREETING);
            assert_eq!(mute.read(&mut [0; 1]).unwrap(), 0);
        });
        assert!(wire.contains(HELLO) && !wire.contains(MARK) && !wire.contains(GREETING));
        let entry = mesh.b.logged("inbound", &there.to_string());
        assert_eq!((&entry["caller"], &entry["protocol"]), (&A.into(), &"TLS".into()), "{entry}");
        assert_eq!(mesh.a.logged("outbound", &there.to_string())["callee"], B);
    }
}

/// An HTTPS server of `b`'s own, and its certificate.
fn serve_own_tls(b: &Member) -> String {
    let own = rcgen::generate_simple_self_signed(["secret.mesh".to_owned()]).unwrap();
    let pem = own.cert.pem();
    let certified =
        edge::Certified::from_pem(pem.as_bytes(), own.signing_key.serialize_pem().as_bytes()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(edge::server_config(&[Arc::new(certified)]).unwrap());
    b.apps.run(async move {
        let listener = tokio::net::TcpListener::bind(("::", SPARE)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let _request = stream.read(&mut [0; 4096]).await.unwrap();
                let response =
                    b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nmy own TLS";
                stream.write_all(response).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
    });
    pem
}

#[test]
fn an_applications_own_tls_passes_through_untouched() {
    let Some(mesh) = Mesh::start() else { return };
    let (_folder, trusted) = mesh::readable("own.pem", &serve_own_tls(&mesh.b));
    for ip in mesh.b.pod.ips() {
        let resolved = if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") };
        let wire = wire_of(&mesh.b.pod, || {
            let got = curl(
                &mesh.a.pod,
                &format!(
                    "--http1.1 --cacert {} --resolve secret.mesh:{SPARE}:{resolved} https://secret.mesh:{SPARE}/",
                    trusted.display()
                ),
            );
            assert_eq!((got.status, &*got.body), (200, "my own TLS"), "{got:?}");
        });
        // The application's hello, which names its host, is itself encrypted.
        assert!(wire.contains(HELLO) && !wire.contains("secret.mesh"));
        let entry = mesh.b.logged("inbound", &SocketAddr::new(ip, SPARE).to_string());
        assert_eq!((&entry["caller"], entry.get("status")), (&A.into(), None), "{entry}");
    }
    let to = format!("--resolve secret.mesh:{SPARE}:{} https://secret.mesh:{SPARE}/", mesh.b.pod.ipv4());
    let outsiders = curl(&mesh.outside, &format!("--http1.1 --cacert {} {to}", trusted.display()));
    assert_eq!((outsiders.status, &*outsiders.body), (200, "my own TLS"), "{outsiders:?}");
}

#[test]
fn what_the_mesh_does_not_know_is_reached_as_before() {
    let Some(mesh) = Mesh::start() else { return };
    let apps = mesh.outside.inside_as(APP).unwrap();
    let everywhere = |port| SocketAddr::from(([0_u16; 8], port));
    let _apps = apps.run(async move {
        let app = App::builder().name("outside").address(everywhere(HTTP)).start().await;
        (app, TcpApp::start(everywhere(GREETS), GREETING).await.unwrap())
    });
    for ip in mesh.outside.ips() {
        let path = path("unknown", ip);
        let got = curl(&mesh.a.pod, &url(ip, HTTP, &path));
        assert!(got.status == 200 && got.head.contains("x-app: outside"), "{got:?}");
        assert_eq!(mesh.a.logged("outbound", &path).get("callee"), None);
        let mut stream = dial(&mesh.a.pod, (ip, GREETS).into());
        hear(&mut stream, GREETING);
        echo(stream, b"as before");
    }
    // Where nothing listens: at a host outside, and in a pod, where the callee's sidecar finds out.
    for ip in mesh.outside.ips().into_iter().chain(mesh.b.pod.ips()) {
        let got = curl(&mesh.a.pod, &url(ip, 7, "/"));
        assert!(got.status == 503 && got.head.contains("error=connection_refused"), "{got:?}");
        let end = dial(&mesh.a.pod, (ip, 7).into()).read(&mut [0; 1]).map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    }
}

#[test]
fn what_is_not_captured_is_plain() {
    let Some(mesh) = Mesh::start() else { return };
    let (a, b) = (&mesh.a, &mesh.b);
    let plain = |uid: u32| {
        for ip in b.pod.ips() {
            let wire = wire_of(&b.pod, || {
                let got = curl_as(&a.pod, uid, &format!("-H x-marker:{MARK} {}", url(ip, HTTP, "/plain")));
                assert!(got.status == 200 && got.head.contains("x-app: b"), "{got:?}");
            });
            assert!(wire.contains(MARK) && !wire.contains(HELLO), "user {uid} to {ip}");
        }
    };
    plain(PROXY);
    a.capture_down();
    b.capture_down();
    plain(APP);
    assert!(!a.sidecar.lines().iter().any(|line| line.contains("/plain")));
}

#[test]
fn sidecars_that_were_killed_go_on_without_the_control_api() {
    let Some(mut mesh) = Mesh::start() else { return };
    // Long enough that the length of what is kept shows whether this is in it.
    let long: Vec<_> = (1..500).map(|port| format!("{{ address: '{NOWHERE}:{port}' }}")).collect();
    mesh.apply(&format!(
        "{}\nbackends: [{{ name: long, endpoints: [{}] }}]\n{}",
        strict("Strict"),
        long.join(", "),
        "httpRoutes: [{ name: long, listeners: [outbound], hostnames: [long.mesh], rules: [{ backendRefs: [{ name: long }] }] }]"
    ));
    drop(mesh.control.take());
    for member in [&mut mesh.a, &mut mesh.b] {
        member.kept(10_000);
        member.kill_sidecar();
        member.restart_sidecar();
    }
    for ip in mesh.b.pod.ips() {
        let path = path("restarted", ip);
        let got = curl(&mesh.a.pod, &url(ip, HTTP, &path));
        assert!(got.status == 200 && got.head.contains("x-app: b"), "{got:?}");
        assert_eq!(mesh.b.logged("inbound", &path)["caller"], A);
        assert_eq!(curl(&mesh.outside, &url(ip, HTTP, "/refused")).status, 403);
    }
}

#[test]
fn a_sidecar_that_is_told_to_end_finishes_what_is_under_way_and_waits_for_its_application() {
    let Some(mut mesh) = Mesh::start() else { return };
    let to = url(mesh.b.pod.ipv4().into(), HTTP, "/delay/1000");
    // The callee's sidecar knows where its application is from what was captured; the caller's from nothing.
    for which in ["caller", "callee"] {
        if which == "callee" {
            mesh.a.restart_sidecar();
        }
        let before = mesh.b.app.requests();
        let mut under_way = mesh.a.pod.spawn_as(APP, &["curl", "-qsS", "-i", "-m", "20", &to]).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while mesh.b.app.requests() == before {
            assert!(Instant::now() < deadline, "the request does not arrive");
            std::thread::sleep(Duration::from_millis(5));
        }
        let asks = url(mesh.a.pod.ipv4().into(), HTTP, "/");
        let member = if which == "callee" { &mut mesh.b } else { &mut mesh.a };
        member.sidecar.terminate().unwrap();
        member.sidecar.wait_for("draining", PATIENCE).unwrap();
        under_way.wait_for("200 OK", PATIENCE).unwrap();
        assert!(under_way.wait(PATIENCE).unwrap().success());
        if which == "callee" {
            // Its application is still there, and asks others as before.
            assert_eq!(curl(&member.pod, &asks).status, 200);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(member.app.kill());
        }
        // Sooner than the grace period, which would cut what is left.
        let sidecar = &mut member.sidecar;
        assert!(sidecar.wait(PATIENCE).unwrap().success(), "{:?}", sidecar.lines());
    }
}
