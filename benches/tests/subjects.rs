//! What stands between callers and the application, as processes: each forwards what it is set up for, and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

use clap::ValueEnum;
use outrigger_benches::{
    callee::Callee,
    load::{Arrivals, Callers, Connect, Load, Target, Tls, Traffic},
    subject::{
        Environment, Hops, Kind, Peer, Setup, Subject, Syscalls, available, first_answer, forwarder::forward,
    },
};

const PATIENCE: Duration = Duration::from_secs(10);

/// What is sent: on two connections, as many requests as are answered within a moment.
fn load(traffic: Traffic, tls: bool) -> Load {
    let streams = if matches!(traffic, Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream) { 4 } else { 1 };
    Load {
        traffic,
        arrivals: Arrivals::Saturated,
        connections: 2,
        streams,
        request_bytes: 100,
        response_bytes: 1000,
        connect: Connect::Keep,
        tls: if tls { Tls::Full } else { Tls::Off },
        seed: 1,
    }
}

/// Sends requests, all of which have to be answered as they should be.
async fn send(subject: &Subject, load: &Load) {
    let target = Target::application(subject.address, subject.trust.clone());
    let sent = async {
        let mut callers = Callers::connect(load, &target).await.unwrap();
        loop {
            let seen = callers.run(Duration::from_millis(50)).await.unwrap();
            assert_eq!((seen.errors, seen.first_error), (0, None), "{load:?}");
            // On a busy host a moment may be too short for the first answer.
            if seen.answered > 0 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, sent).await.unwrap();
}

fn setup(hops: Hops, traffic: Traffic) -> Setup {
    Setup { hops, traffic, tls: false, workers: 1, routes: 1, access_log: false, tracing: false }
}

fn environment(application: SocketAddr, peers: Vec<Peer>) -> Environment {
    let outrigger = PathBuf::from(env!("CARGO_BIN_EXE_outrigger-bench")).with_file_name("outrigger");
    Environment { application, cpus: None, outrigger, outrigger_args: Vec::new(), peers }
}

/// Starts a peer for everything that it can do, and sends requests through each.
async fn forwards(kind: Kind, peers: Vec<Peer>) {
    let dir = tempfile::tempdir().unwrap();
    let plain = setup(Hops::One, Traffic::Http1);
    for traffic in Traffic::value_variants().iter().copied() {
        let application = Callee::start(&load(traffic, false)).await.unwrap();
        let environment = environment(application.address(), peers.clone());
        if let Err(why) = available(&kind, &plain, &environment) {
            return println!("skipped: needs {kind:?} ({why})");
        }
        let (one, two) = (setup(Hops::One, traffic), setup(Hops::Two, traffic));
        let more = Setup { tls: true, access_log: true, workers: 2, ..one };
        for setup in [one, more, two] {
            if let Err(why) = available(&kind, &setup, &environment) {
                println!("{setup:?}: {why}");
                continue;
            }
            let subject = Subject::start(&kind, &setup, &environment, dir.path()).await.unwrap();
            send(&subject, &load(traffic, setup.tls)).await;
            assert_eq!(subject.processes.len(), if setup.hops == Hops::One { 1 } else { 2 });
            assert!(subject.usage().unwrap().cpu > Duration::ZERO);
            assert!(subject.resident_kib().unwrap() > 500);
            let secrets = subject.configuration.iter().filter(|(_, text)| text.contains("PRIVATE KEY"));
            assert_eq!((subject.configuration.is_empty(), secrets.count()), (false, 0));
            let pids: Vec<i32> =
                subject.processes.iter().flat_map(|process| process.pids().unwrap()).collect();
            drop(subject);
            for pid in pids {
                gone(pid);
            }
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
    let application = Callee::start(&load(Traffic::Http1, false)).await.unwrap();
    let environment = environment(application.address(), peers);
    let took = first_answer(&kind, &plain, &environment, dir.path()).await.unwrap();
    assert!(took > Duration::from_micros(100) && took < PATIENCE, "{took:?}");
}

/// Waits until a process has been killed; its own children are left to whoever takes care of orphans.
fn gone(pid: i32) {
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn nginx_forwards() {
    forwards(Kind::Peer("nginx".into()), Vec::new()).await;
}

#[tokio::test]
async fn haproxy_forwards() {
    forwards(Kind::Peer("haproxy".into()), Vec::new()).await;
}

#[tokio::test]
async fn envoy_forwards() {
    let peers = std::env::var("ENVOY").map(|path| Peer { name: "envoy".into(), given: Some(path) });
    forwards(Kind::Peer("envoy".into()), peers.into_iter().collect()).await;
}

#[tokio::test]
async fn outrigger_forwards() {
    forwards(Kind::Outrigger, Vec::new()).await;
}

#[tokio::test]
async fn what_the_user_names_forwards() {
    forwards(Kind::Peer("mine".into()), vec![forwarder()]).await;
}

/// What `forward` is started with, as a proxy that the user names.
fn forwarder() -> Peer {
    let command =
        concat!(env!("CARGO_BIN_EXE_outrigger-bench"), " forward --listen {listen} --to {application}");
    Peer { name: "mine".into(), given: Some(command.into()) }
}

#[tokio::test]
async fn counts_the_system_calls_of_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let application = Callee::start(&load(Traffic::Tcp, false)).await.unwrap();
    let environment = environment(application.address(), vec![forwarder()]);
    let setup = setup(Hops::One, Traffic::Tcp);
    let subject = Subject::start(&Kind::Peer("mine".into()), &setup, &environment, dir.path()).await.unwrap();
    let target = Target::application(subject.address, None);
    let load = Load { connections: 1, ..load(Traffic::Tcp, false) };
    let mut callers = Callers::connect(&load, &target).await.unwrap();
    // The connection is there before anything is counted.
    callers.run(Duration::from_millis(20)).await.unwrap();
    let mut syscalls = match Syscalls::of(&subject) {
        Ok(syscalls) => syscalls,
        Err(why) => return println!("skipped: needs the kernel's events ({why})"),
    };
    let seen = callers.run(Duration::from_millis(100)).await.unwrap();
    // A read, a write and an epoll_wait for either direction.
    let each = syscalls.count().unwrap() as f64 / seen.answered as f64;
    assert!((3.9..=6.1).contains(&each), "{each}");
}

#[test]
fn the_forwarder_passes_on_bytes_and_either_end_of_them() {
    let application = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = application.local_addr().unwrap();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // It ends with this process.
    std::thread::spawn(move || forward(listen, to));
    let mut caller = loop {
        if let Ok(caller) = TcpStream::connect(listen) {
            break caller;
        }
    };
    let (mut callee, _) = application.accept().unwrap();
    // More than the sockets on the way hold, so that it waits until it can write.
    let bytes: Vec<u8> = (0..16 << 20).map(|n: u32| (n % 251) as u8).collect();
    let sent = bytes.clone();
    let mut sender = caller.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    callee.read_to_end(&mut received).unwrap();
    sending.join().unwrap();
    assert!(received == bytes);
    // The other direction goes on after the end of the first.
    callee.write_all(b"still here").unwrap();
    drop(callee);
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "still here");
    // Where the application refuses the connection, the caller's is closed.
    drop(application);
    let mut refused = TcpStream::connect(listen).unwrap();
    assert!(!matches!(refused.read(&mut [0]), Ok(1)));
}
