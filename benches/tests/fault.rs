//! Faults under load, with the proxy's binary: no request fails.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{path::PathBuf, time::Duration};

use outrigger_benches::{
    fault::{self, Fault},
    subject::Environment,
};

async fn suffer(fault: Fault) {
    let outrigger = PathBuf::from(env!("CARGO_BIN_EXE_outrigger-bench")).with_file_name("outrigger");
    if !outrigger.is_file() {
        println!("skipped: needs {}: cargo build -p outrigger-proxy", outrigger.display());
        return;
    }
    let environment = Environment {
        application: ([127, 0, 0, 1], 9).into(),
        cpus: None,
        outrigger,
        outrigger_args: Vec::new(),
        peers: Vec::new(),
    };
    let outcome = fault::run(fault, &environment, Duration::from_secs(3)).await.unwrap();
    let seen = &outcome.measured;
    assert!(seen.due > 2000, "{outcome:?}");
    assert_eq!((seen.errors, &seen.first_error), (0, &None), "{} {}", outcome.changes, fault.changes());
    let slowest = Duration::from_nanos(seen.latency.max());
    println!("{} requests, {} {}, slowest {slowest:.1?}", seen.due, outcome.changes, fault.changes());
}

#[tokio::test]
async fn no_request_fails_while_routes_change() {
    suffer(Fault::Routes).await;
}

#[tokio::test]
async fn no_request_fails_while_endpoints_come_and_go() {
    suffer(Fault::Endpoints).await;
}

#[tokio::test]
async fn no_request_fails_while_certificates_are_renewed() {
    suffer(Fault::Certificates).await;
}

#[tokio::test]
async fn no_request_fails_while_proxies_are_replaced() {
    suffer(Fault::Drain).await;
}
