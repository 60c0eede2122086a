use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Entry, TcpEntry};
use crate::json::Line;

fn entry() -> Entry<'static> {
    Entry {
        time: UNIX_EPOCH + Duration::from_millis(1_795_166_851_042),
        direction: "inbound",
        listener: "web",
        method: "GET",
        scheme: Some("https"),
        host: b"shop.localhost:8443",
        path: "/api?q=1",
        protocol: "HTTP/2.0",
        status: 503,
        grpc_status: Some(14),
        reason: Some("connection_refused"),
        details: Some("no endpoint of `api` could be reached"),
        request_bytes: 12,
        response_bytes: 3_000_000_000,
        duration: Duration::from_nanos(1_234_567),
        route: Some("shop"),
        rule: Some("0"),
        backend: Some("api"),
        endpoint: Some("[2001:db8::1]:3000".parse().unwrap()),
        caller: Some("spiffe://mesh.test/ns/a/sa/web"),
        caller_address: "10.1.2.3:40000".parse().unwrap(),
        callee: Some("spiffe://mesh.test/ns/a/sa/api"),
        attempts: 3,
        retried: Some("status"),
        not_retried: Some("budget"),
        user_agent: Some(b"curl/8"),
    }
}

/// The line that something writes.
fn line(write: impl FnOnce(&mut Line<'_>)) -> String {
    let mut text = Vec::new();
    let mut line = Line::new(&mut text);
    write(&mut line);
    line.end();
    String::from_utf8(text).unwrap()
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_request_is_logged_in_full() {
    assert_eq!(
        parsed(&line(|line| entry().write(line))),
        json!({
            "time": "2026-11-20T09:27:31.042Z",
            "direction": "inbound",
            "listener": "web",
            "method": "GET",
            "scheme": "https",
            "host": "shop.localhost:8443",
            "path": "/api?q=1",
            "protocol": "HTTP/2.0",
            "status": 503,
            "grpcStatus": 14,
            "reason": "connection_refused",
            "details": "no endpoint of `api` could be reached",
            "requestBytes": 12,
            "responseBytes": 3_000_000_000u64,
            "durationMs": 1.234,
            "route": "shop",
            "rule": "0",
            "backend": "api",
            "endpoint": "[2001:db8::1]:3000",
            "caller": "spiffe://mesh.test/ns/a/sa/web",
            "callerAddress": "10.1.2.3:40000",
            "callee": "spiffe://mesh.test/ns/a/sa/api",
            "attempts": 3,
            "retried": "status",
            "notRetried": "budget",
            "userAgent": "curl/8",
        })
    );
}

#[test]
fn what_there_is_not_is_left_out() {
    let bare = Entry {
        scheme: None,
        reason: None,
        grpc_status: None,
        details: None,
        route: None,
        rule: None,
        backend: None,
        endpoint: None,
        caller: None,
        callee: None,
        retried: None,
        not_retried: None,
        user_agent: None,
        ..entry()
    };
    let text = line(|line| bare.write(line));
    assert!(!text.contains("null"), "{text}");
    assert_eq!(parsed(&text).as_object().unwrap().len(), 13);
}

#[test]
fn whatever_a_caller_sends_stays_on_its_line() {
    let hostile = Entry {
        host: b"a\"\\\n\r\x1b[31m\0\xff\xfe",
        path: "/\"},{\"status\":200\u{2028}",
        user_agent: Some(b"\xf0\x28\x8c\x28"),
        ..entry()
    };
    let text = line(|line| hostile.write(line));
    assert!(text.trim_end_matches('\n').bytes().all(|byte| byte >= b' '), "{text}");
    let value = parsed(&text);
    assert_eq!(value["host"], "a\"\\\n\r\u{1b}[31m\0\u{fffd}\u{fffd}");
    assert_eq!(value["path"], "/\"},{\"status\":200\u{2028}");
    assert_eq!(value["status"], 503);
}

#[test]
fn a_connection_is_logged() {
    let entry = TcpEntry {
        time: SystemTime::UNIX_EPOCH,
        direction: "outbound",
        listener: "db",
        protocol: "TLS",
        sni: Some("db.example"),
        reason: None,
        error: Some("reset by the callee"),
        sent_bytes: 1,
        received_bytes: 2,
        duration: Duration::from_secs(90),
        route: Some("db"),
        backend: Some("postgres"),
        endpoint: Some("127.0.0.1:5433".parse().unwrap()),
        caller: None,
        caller_address: "[::1]:9".parse().unwrap(),
        callee: None,
    };
    assert_eq!(
        parsed(&line(|line| entry.write(line))),
        json!({
            "time": "1970-01-01T00:00:00.000Z",
            "direction": "outbound",
            "listener": "db",
            "protocol": "TLS",
            "sni": "db.example",
            "error": "reset by the callee",
            "sentBytes": 1,
            "receivedBytes": 2,
            "durationMs": 90_000.0,
            "route": "db",
            "backend": "postgres",
            "endpoint": "127.0.0.1:5433",
            "callerAddress": "[::1]:9",
        })
    );
}
