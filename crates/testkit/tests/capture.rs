//! The capture rules against a real kernel: two pods, and plain sockets in the place of the proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use outrigger_net::capture::{self, CaptureError, Rules};
use outrigger_net::listen::{self, BindError};
use outrigger_net::original;
use outrigger_testkit::netns::{self, APP, Net, PROXY, Pod};

const PATIENCE: Duration = Duration::from_secs(10);

/// A pod whose traffic may be captured, and one that is just there.
struct Pods {
    captured: Pod,
    other: Pod,
}

/// `None`, with a line that says why, where this cannot run.
fn pods(tools: &[&str]) -> Option<Pods> {
    if let Err(why) = netns::available(tools) {
        println!("skipped: {why}");
        return None;
    }
    let net = Net::new().unwrap();
    let (captured, other) = (Pod::new(&net, "captured", 1).unwrap(), Pod::new(&net, "other", 2).unwrap());
    Some(Pods { captured, other })
}

/// Listens on one port of a pod, on IPv6 and IPv4 alike.
fn listen(pod: &Pod, port: u16) -> TcpListener {
    listen_on(pod, SocketAddr::from(([0_u16; 8], port)))
}

fn listen_on(pod: &Pod, address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pod.within(|| listen::bind(address, 1)).unwrap() {
            Ok(bound) => return bound.sockets.into_iter().next().unwrap(),
            // A listener that was dropped lives on for a moment in a program that another test is just starting.
            Err(BindError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn connect(pod: &Pod, uid: u32, target: SocketAddr) -> TcpStream {
    let stream = pod.within_as(uid, || TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    stream.unwrap_or_else(|error| panic!("user {uid} to {target}: {error}"))
}

/// The connection that waits at a listener, if there is one.
fn waiting(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Where the connection that waits at a listener was going, as the proxy would ask.
fn original_destination(listener: &TcpListener) -> Option<SocketAddr> {
    let stream = waiting(listener).expect("a connection at the proxy's port");
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _inside = runtime.enter();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    original::destination(&stream, stream.local_addr().unwrap())
}

fn up(pod: &Pod, rules: &Rules) {
    pod.within(|| rules.up()).unwrap().unwrap();
}

fn ruleset(pod: &Pod) -> String {
    pod.exec_as(0, &["nft", "list", "ruleset"]).unwrap().ok().unwrap()
}

#[test]
fn what_an_application_sends_lands_at_the_proxy() {
    let Some(Pods { captured, other }) = pods(&[]) else { return };
    up(&captured, &Rules::default());
    let real = listen(&other, 8080);
    let proxy = listen(&captured, 15001);
    let nobody: [IpAddr; 2] = ["10.99.0.1".parse().unwrap(), "fd99::1".parse().unwrap()];
    for ip in other.ips().into_iter().chain(nobody) {
        let target = SocketAddr::new(ip, 8080);
        let _caller = connect(&captured, APP, target);
        assert_eq!(original_destination(&proxy), Some(target));
    }
    drop(proxy);
    // The same where only IPv4 is listened on, as on a machine without IPv6.
    let proxy = listen_on(&captured, "0.0.0.0:15001".parse().unwrap());
    let target = SocketAddr::new(other.ipv4().into(), 8080);
    let _caller = connect(&captured, APP, target);
    assert_eq!(original_destination(&proxy), Some(target));
    assert!(waiting(&real).is_none());
}

#[test]
fn what_an_application_receives_lands_at_the_proxy() {
    let Some(Pods { captured, other }) = pods(&[]) else { return };
    up(&captured, &Rules { skip_inbound_ports: vec![9100], ..Rules::default() });
    let app = listen(&captured, 8080);
    let proxy = listen(&captured, 15006);
    for ip in captured.ips() {
        let target = SocketAddr::new(ip, 8080);
        let _caller = connect(&other, APP, target);
        assert_eq!(original_destination(&proxy), Some(target));

        let direct = SocketAddr::new(ip, 15006);
        let _caller = connect(&other, APP, direct);
        assert_eq!(original_destination(&proxy), None);
    }
    assert!(waiting(&app).is_none());
    for port in [15000, 15001, 15020, 15021, 9100] {
        let left_out = listen(&captured, port);
        let _caller = connect(&other, APP, SocketAddr::new(captured.ipv6().into(), port));
        assert!(waiting(&left_out).is_some(), "port {port}");
    }
}

#[test]
fn the_proxy_and_loopback_are_left_alone() {
    let Some(Pods { captured, other }) = pods(&[]) else { return };
    up(&captured, &Rules::default());
    let (outbound, inbound) = (listen(&captured, 15001), listen(&captured, 15006));
    let real = listen(&other, 8080);
    for ip in other.ips() {
        let _proxy = connect(&captured, PROXY, SocketAddr::new(ip, 8080));
        assert!(waiting(&real).is_some());
    }
    let app = listen(&captured, 8080);
    let loopback: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    for ip in captured.ips().into_iter().chain(loopback) {
        for uid in [PROXY, APP] {
            let _caller = connect(&captured, uid, SocketAddr::new(ip, 8080));
            assert!(waiting(&app).is_some(), "user {uid} to {ip}");
        }
    }
    assert!(waiting(&outbound).is_none() && waiting(&inbound).is_none());
}

#[test]
fn listed_ports_and_networks_are_left_out() {
    let Some(Pods { captured, other }) = pods(&[]) else { return };
    let rules = Rules {
        skip_outbound_ports: vec![5432, 6379],
        skip_outbound_cidrs: vec!["fd77::/16".parse().unwrap(), "10.99.0.0/16".parse().unwrap()],
        ..Rules::default()
    };
    up(&captured, &rules);
    let proxy = listen(&captured, 15001);
    for (ip, port, direct) in
        [(other.ips()[0], 5432, true), (other.ips()[0], 8080, false), (other.ips()[1], 8080, true)]
    {
        let real = listen(&other, port);
        let _caller = connect(&captured, APP, SocketAddr::new(ip, port));
        assert_eq!(waiting(&real).is_some(), direct, "{ip} {port}");
        assert_eq!(waiting(&proxy).is_some(), !direct, "{ip} {port}");
    }
}

#[test]
fn put_twice_and_taken_back_completely() {
    let Some(Pods { captured, .. }) = pods(&[]) else { return };
    captured.within(capture::down).unwrap().unwrap();
    assert_eq!(ruleset(&captured), "");
    let rules = Rules { skip_outbound_ports: vec![443], ..Rules::default() };
    up(&captured, &rules);
    let once = ruleset(&captured);
    assert!(once.contains("redirect to :15001") && once.contains("redirect to :15006"), "{once}");
    up(&captured, &rules);
    assert_eq!(ruleset(&captured), once);
    up(&captured, &Rules { outbound: 25001, ..Rules::default() });
    let other = ruleset(&captured);
    assert!(other.contains(":25001") && !other.contains(":15001") && !other.contains("443"), "{other}");
    captured.within(capture::down).unwrap().unwrap();
    assert_eq!(ruleset(&captured), "");
    captured.within(capture::down).unwrap().unwrap();
}

#[test]
fn a_user_without_the_right_is_told_what_is_needed() {
    let Some(Pods { captured, .. }) = pods(&[]) else { return };
    let error = captured.within_as(APP, || Rules::default().up()).unwrap().unwrap_err();
    assert!(matches!(error, CaptureError::Permission), "{error}");
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

/// Connection tracking begins with the rules, so to it these connections look new, in the middle of their life.
#[test]
fn connections_older_than_the_rules_live_on() {
    let Some(Pods { captured, other }) = pods(&[]) else { return };
    let (there, here) = (listen(&other, 8080), listen(&captured, 8080));
    for index in [0, 1] {
        let out = connect(&captured, APP, SocketAddr::new(other.ips()[index], 8080));
        let into = connect(&other, APP, SocketAddr::new(captured.ips()[index], 8080));
        let pairs = [(out, waiting(&there).unwrap()), (into, waiting(&here).unwrap())];
        up(&captured, &Rules::default());
        for (mut caller, mut callee) in pairs {
            for stream in [&caller, &callee] {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            let mut bytes = [0; 4];
            caller.write_all(b"ping").unwrap();
            callee.read_exact(&mut bytes).unwrap();
            callee.write_all(b"pong").unwrap();
            caller.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"pong");
        }
        captured.within(capture::down).unwrap().unwrap();
    }
}

/// The harness itself: programs, their output and their user, and what is seen on the wire.
#[test]
fn programs_run_in_a_pod_and_the_wire_is_seen() {
    let Some(Pods { captured, other }) = pods(&["tcpdump", "curl", "sh"]) else { return };
    let mut loud = other.spawn_as(APP, &["sh", "-c", "id -u; echo ready >&2; exec sleep 60"]).unwrap();
    loud.wait_for("ready", PATIENCE).unwrap();
    loud.wait_for("1000", PATIENCE).unwrap();
    loud.terminate().unwrap();
    assert!(!loud.wait(PATIENCE).unwrap().success());
    assert!(loud.wait_for("never said", PATIENCE).unwrap_err().to_string().contains("ready"));

    let wire = other.tcpdump("tcp port 8080").unwrap();
    let app = listen(&other, 8080);
    app.set_nonblocking(false).unwrap();
    let answering = std::thread::spawn(move || {
        for stream in app.incoming().take(2) {
            let mut stream = stream.unwrap();
            let _request = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nin the clear").unwrap();
        }
    });
    for host in [format!("{}", other.ipv4()), format!("[{}]", other.ipv6())] {
        let page =
            captured.exec_as(APP, &["curl", "-sS", &format!("http://{host}:8080/")]).unwrap().ok().unwrap();
        assert_eq!(page, "in the clear");
    }
    answering.join().unwrap();
    let wire = wire.stop().unwrap();
    assert!(wire.contains("in the clear") && !wire.contains("in the dark"));
}
