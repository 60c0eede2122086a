use std::time::UNIX_EPOCH;

use super::*;

fn entry() -> Entry<'static> {
    Entry {
        time: UNIX_EPOCH,
        direction: "edge",
        listener: "https",
        method: "GET",
        scheme: Some("https"),
        host: b"shop.localhost:8443",
        path: "/api?q=1",
        protocol: "HTTP/2.0",
        grpc_status: None,
        status: 200,
        reason: None,
        details: None,
        request_bytes: 0,
        response_bytes: 5,
        duration: Duration::from_micros(12_345),
        route: Some("shop"),
        rule: Some("0"),
        backend: Some("api"),
        endpoint: Some("127.0.0.1:3000".parse().unwrap()),
        caller: None,
        caller_address: "127.0.0.1:40000".parse().unwrap(),
        callee: None,
        attempts: 1,
        retried: None,
        not_retried: None,
        user_agent: None,
    }
}

fn line(entry: &Entry<'_>, colours: bool) -> String {
    let mut out = Vec::new();
    request(&mut out, entry, colours);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_is_one_readable_line() {
    assert_eq!(line(&entry(), false), "200 GET    shop.localhost:8443/api?q=1  12 ms  api 127.0.0.1:3000\n");
    let failed = Entry {
        status: 503,
        reason: Some("connection_refused"),
        details: Some("127.0.0.1:3000: Connection refused"),
        duration: Duration::from_micros(740),
        ..entry()
    };
    assert_eq!(
        line(&failed, false),
        "503 GET    shop.localhost:8443/api?q=1  0.7 ms  api 127.0.0.1:3000  \
         connection_refused: 127.0.0.1:3000: Connection refused\n"
    );
    let left = Entry { status: 0, backend: None, endpoint: None, ..entry() };
    assert_eq!(line(&left, false), " -  GET    shop.localhost:8443/api?q=1  12 ms\n");
}

#[test]
fn colours_are_only_where_they_are_wanted() {
    assert!(line(&entry(), true).starts_with("\u{1b}[32m200\u{1b}[0m "));
    assert!(!line(&entry(), false).contains('\u{1b}'));
}

#[test]
fn what_a_terminal_would_act_on_is_written_out() {
    let wicked = Entry { host: b"\x1b[2J", path: "/\u{9b}31m\r\n", ..entry() };
    let line = line(&wicked, false);
    assert!(line.contains("\\u{1b}[2J/\\u{9b}31m\\r\\n  12 ms"), "{line}");
    assert_eq!(line.matches('\n').count(), 1);
}

#[test]
fn times_have_three_digits_or_so() {
    let took = |micros| Took(Duration::from_micros(micros)).to_string();
    let times = [40, 9_949, 9_999, 999_400, 999_900, 1_230_000, 61_000_000].map(took);
    assert_eq!(times, ["0.0 ms", "9.9 ms", "10 ms", "999 ms", "1.0 s", "1.2 s", "1 min 1 s"]);
}

#[test]
fn a_connection_is_one_readable_line() {
    let entry = TcpEntry {
        time: UNIX_EPOCH,
        direction: "edge",
        listener: "db",
        protocol: "TCP",
        sni: None,
        reason: None,
        error: Some("the callee broke off"),
        sent_bytes: 120,
        received_bytes: 4096,
        duration: Duration::from_millis(1_234),
        route: Some("db"),
        backend: Some("postgres"),
        endpoint: Some("127.0.0.1:5433".parse().unwrap()),
        caller: None,
        caller_address: "127.0.0.1:40000".parse().unwrap(),
        callee: None,
    };
    let mut out = Vec::new();
    connection(&mut out, &entry, false);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "TCP db  1.2 s  ↑ 120 ↓ 4096 bytes  postgres 127.0.0.1:5433  the callee broke off\n"
    );
}
