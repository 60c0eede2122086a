//! The demo, run as a visitor runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn tells_the_whole_story_without_an_error() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_outrigger-demo"))
        .args(["--seconds", "6", "--rate", "100"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut tried = 0;
    // The line of a second comes after the hints, while there is traffic.
    let hints: Vec<_> = lines.by_ref().take_while(|line| !line.contains(" errors ")).collect();
    for hint in hints.iter().filter_map(|line| line.trim().strip_prefix("curl ")) {
        let answer = curl(hint);
        assert!(answer.starts_with("HTTP/1.1 200"), "curl {hint}: {answer}");
        tried += 1;
    }
    assert_eq!(tried, 5, "{hints:#?}");
    let rest: Vec<_> = lines.collect();
    let rest = rest.join("\n");
    assert!(demo.wait().unwrap().success(), "{rest}");
    let (_, summary) = rest.split_once("\n\n").unwrap();
    assert!(summary.lines().next().unwrap().ends_with("errors: 0"), "{summary}");
    for scene in ["90/10", "50/50", "killed", "back", "certificates"] {
        assert!(summary.contains(&format!("  ok      {scene:<12}  ")), "{summary}");
    }
}

/// What the hint's command gets.
fn curl(hint: &str) -> String {
    let (_, url) = hint.split_once("http://").unwrap();
    let (address, path) = url.split_whitespace().next().unwrap().split_once('/').unwrap();
    let host = hint.strip_prefix("-H 'Host: ").and_then(|rest| rest.split('\'').next()).unwrap_or(address);
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn says_what_it_does_not_take() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_outrigger-demo")).args(["--seconds", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("invalid value '1' for '--seconds <N>'"), "{errors}");
}
