#![allow(clippy::unwrap_used)]
#![allow(clippy::format_collect, clippy::type_complexity, reason = "a test may allocate")]

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use http_body::Frame;
use proptest::prelude::*;

use super::decode::{Decoder, Taken};
use super::head::{self, Framing, Limits, Scanner, Wrong};
use super::outbox::{Coding, Outbox};
use super::spelling::{SPELLING, Spelling, write_fields};

fn request(text: &str) -> Result<head::RequestHead, Wrong> {
    head::request(Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
}

fn framing(fields: &str) -> Result<Framing, Wrong> {
    request(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).map(|head| head.framing)
}

#[test]
fn the_length_of_a_body_is_known_in_one_way_or_the_request_is_refused() {
    assert_eq!(framing(""), Ok(Framing::Length(0)));
    assert_eq!(framing("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
    assert_eq!(framing("Content-Length: 5, 5\r\nContent-Length: 5\r\n"), Ok(Framing::Length(5)));
    assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
    for both in ["5\r\nContent-Length: 6", "5, 6", "-1", "+5", "0x5", "5a", "", "5,", "99999999999999999999"]
    {
        assert!(
            matches!(framing(&format!("Content-Length: {both}\r\n")), Err(Wrong::Malformed(_))),
            "{both}"
        );
    }
    for coding in ["chunked, chunked", "chunked\r\nTransfer-Encoding: chunked", ",chunked", ""] {
        let coding = format!("Transfer-Encoding: {coding}\r\n");
        assert!(matches!(framing(&coding), Err(Wrong::Malformed(_))), "{coding}");
    }
    assert_eq!(framing("Transfer-Encoding: gzip, chunked\r\n"), Err(Wrong::Coding));
    assert_eq!(framing("Transfer-Encoding: xchunked\r\n"), Err(Wrong::Coding));
    let old = request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(matches!(old, Err(Wrong::Malformed(_))));
}

#[test]
fn a_target_and_its_host_say_the_same() {
    let with = |line: &str, host: &str| request(&format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).is_ok();
    for (line, host) in [
        ("GET /", "a"),
        ("GET /", "a:80"),
        ("GET /", "[::1]:80"),
        ("GET /", ""),
        ("OPTIONS *", "a"),
        ("GET http://A:80/x?", "a"),
        ("GET https://a/", "a:443"),
        ("GET /{a}|[b]^c", "a"),
        ("CONNECT a:443", "a"),
    ] {
        assert!(with(line, host), "{line} {host}");
    }
    for (line, host) in [
        ("GET http://a/", "b"),
        ("GET ftp://a/", "a"),
        ("GET /", "a:b"),
        ("GET http://a/", "a:81"),
        ("GET http://u@a/", "a"),
        ("GET *", "a"),
        ("GET a:80", "a"),
        ("GET a", "a"),
        ("CONNECT a", "a"),
        ("CONNECT /", "a"),
        ("CONNECT http://a:80/", "a"),
        ("GET /", "a/b"),
        ("GET /", "u@a"),
        ("GET /#f", "a"),
        ("GET /<a>", "a"),
    ] {
        assert!(!with(line, host), "{line} {host}");
    }
}

#[test]
fn an_absolute_target_becomes_what_a_server_is_told() {
    let told = |line: &str| {
        let head = request(&format!("{line} HTTP/1.1\r\nHost: A\r\n\r\n")).unwrap();
        (head.uri.to_string(), head.headers.get("host").unwrap().clone())
    };
    for (line, target) in [
        ("GET http://a", "/"),
        ("GET http://a/b//c?", "/b//c?"),
        ("GET http://a?b", "/?b"),
        ("OPTIONS http://a", "*"),
        ("OPTIONS http://a/", "/"),
    ] {
        assert_eq!(told(line), (target.to_owned(), HeaderValue::from_static("a")), "{line}");
    }
}

#[test]
fn another_version_is_told_apart_from_none() {
    assert_eq!(request("GET / HTTP/3.0\r\nHost: a\r\n\r\n").unwrap_err(), Wrong::Version);
    for version in ["http/1.1", "HTTP/1", "HTTP/01.1", "HTP/1.1", "HTTP/1.1 x"] {
        let wrong = request(&format!("GET / {version}\r\nHost: a\r\n\r\n")).unwrap_err();
        assert!(matches!(wrong, Wrong::Malformed(_)), "{version}: {wrong:?}");
    }
}

#[test]
fn responses_are_framed_by_what_was_asked_too() {
    let of = |method: Method, text: &str| {
        let text = format!("HTTP/1.1 {text}\r\n\r\n");
        head::response(Bytes::copy_from_slice(text.as_bytes()), &Limits::default(), &method)
    };
    let get = |text: &str| of(Method::GET, text).map(|head| (head.framing, head.keep_alive));
    assert_eq!(get("200 OK\r\nContent-Length: 3"), Ok((Framing::Length(3), true)));
    assert_eq!(get("200 OK"), Ok((Framing::Close, false)));
    assert_eq!(get("204 No Content\r\nContent-Length: 3"), Ok((Framing::Length(0), true)));
    assert_eq!(get("304 Not Modified\r\nContent-Length: 3"), Ok((Framing::Length(0), true)));
    assert_eq!(of(Method::HEAD, "200 OK\r\nContent-Length: 3").unwrap().framing, Framing::Length(0));
    assert_eq!(of(Method::CONNECT, "200 OK").unwrap().framing, Framing::Length(0));
    let both = get("200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked");
    assert!(matches!(both, Err(Wrong::Malformed(_))));
    assert_eq!(of(Method::GET, "200 ").unwrap().status, StatusCode::OK);
}

#[test]
fn limits_are_of_bytes_and_of_fields() {
    let limits = Limits { bytes: 64, fields: 2 };
    let end = |text: &[u8]| Scanner::default().end(text, &limits);
    assert_eq!(end(b"GET / HTTP/1.1\r\n\r\nrest"), Ok(Some(18)));
    assert_eq!(end(&[b'a'; 65]), Err(Wrong::FirstLine));
    assert_eq!(
        end([&[b'a'; 65][..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat().as_slice()),
        Err(Wrong::FirstLine)
    );
    assert_eq!(end([&b"GET / HTTP/1.1\r\n"[..], &[b'a'; 65]].concat().as_slice()), Err(Wrong::Bytes));
    assert!(matches!(end(b"GET / HTTP/1.1\n\n"), Err(Wrong::Malformed(_))));
    let three = Bytes::from_static(b"GET / HTTP/1.1\r\nHost: a\r\nB: b\r\nC: c\r\n\r\n");
    assert_eq!(head::request(three, &limits).unwrap_err(), Wrong::Fields);
}

/// What a decoder takes out of `text`, which comes in parts of `size` bytes.
fn decode(
    framing: Framing,
    text: &[u8],
    size: usize,
) -> Result<(Vec<u8>, Option<HeaderMap>, Vec<u8>), Wrong> {
    let (mut decoder, mut buffer) = (Decoder::new(framing), BytesMut::new());
    let (mut body, mut trailers) = (Vec::new(), None);
    let mut parts = text.chunks(size.max(1));
    loop {
        match decoder.take(&mut buffer, &Limits::default())? {
            Taken::Data(data) => body.extend_from_slice(&data),
            Taken::Trailers(found) => trailers = Some(found),
            Taken::End => break,
            Taken::More => match parts.next() {
                Some(part) => buffer.extend_from_slice(part),
                None => return Err(Wrong::Late),
            },
        }
    }
    parts.for_each(|part| buffer.extend_from_slice(part));
    Ok((body, trailers, buffer.to_vec()))
}

#[test]
fn chunks_are_read_strictly() {
    let read = |text: &str| decode(Framing::Chunked, text.as_bytes(), 1024).map(|(body, _, _)| body);
    assert_eq!(read("3\r\nabc\r\n0\r\n\r\n"), Ok(b"abc".to_vec()));
    assert_eq!(read("03;a=\"b\";c\r\nabc\r\n000\r\n\r\n"), Ok(b"abc".to_vec()));
    let wrong = [
        "3\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "0\r\na: b\n\r\n",
        "0\r\na : b\r\n\r\n",
    ];
    for text in wrong {
        assert!(matches!(read(text), Err(Wrong::Malformed(_))), "{text:?}: {:?}", read(text));
    }
}

#[test]
fn trailers_cannot_frame_a_message() {
    let text = b"0\r\nX-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\nHost: b\r\n\r\nrest";
    let (_, trailers, rest) = decode(Framing::Chunked, text, 7).unwrap();
    let trailers = trailers.unwrap();
    assert_eq!((trailers.len(), trailers.get("x-sum").unwrap().as_bytes()), (2, &b"1"[..]));
    assert!(trailers.contains_key(SPELLING));
    assert_eq!(rest, b"rest");
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_is_not_sent() {
    let mut out = Outbox::default();
    let mut coding = Coding::Length(3);
    assert!(out.push(Frame::data(Bytes::from_static(b"abcd")), &mut coding).is_err());
    let mut coding = Coding::Length(3);
    out.push(Frame::data(Bytes::from_static(b"ab")), &mut coding).unwrap();
    assert!(out.finish(&mut coding).is_err());
}

#[test]
fn a_spelling_passes_between_sidecars_and_cannot_add_a_field() {
    let text = "HTTP/1.1 200 Very Well\r\nX-B: 1\r\nx-A: 2\r\n\r\n";
    let head = head::response(Bytes::from_static(text.as_bytes()), &Limits::default(), &Method::GET).unwrap();
    let value = head.spelling.to_value().unwrap();
    assert_eq!(value, "X-B,x-A,;Very Well;");
    let told = Spelling::from_value(&value);
    assert_eq!(told.status_words(), Some(&b"Very Well"[..]));
    for (told, words) in
        [("A,;;", Some("")), (";  a; b ;", Some("  a; b ")), ("A,", None), ("A,;", None), (";a", None)]
    {
        let told = Spelling::from_value(&HeaderValue::from_static(told));
        assert_eq!(told.status_words(), words.map(str::as_bytes));
    }
    assert_eq!(written(&head.headers, Some(&told)), "X-B: 1\r\nx-A: 2\r\n");
    let forged = Spelling::from_value(&HeaderValue::from_static("X-B,Evil\t:1,X-b,"));
    assert_eq!(written(&head.headers, Some(&forged)), "X-B: 1\r\nx-a: 2\r\n");
}

fn written(headers: &HeaderMap, spelling: Option<&Spelling>) -> String {
    let mut out = BytesMut::new();
    write_fields(headers, spelling, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn field() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        Just("X-Often".to_owned()),
        Just("x-OFTEN".to_owned()),
        "[A-Za-z][A-Za-z0-9-]{0,8}".prop_filter("means something", |name| {
            !["host", "te", "transfer-encoding", "content-length", "connection"]
                .contains(&name.to_ascii_lowercase().as_str())
        })
    ];
    (name, "[!-~]([ -~\t]{0,12}[!-~])?")
}

proptest! {
    #[test]
    fn what_is_read_is_written_as_it_was(fields in proptest::collection::vec(field(), 0..80)) {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).unwrap();
        prop_assert_eq!(head.version, Version::HTTP_11);
        prop_assert_eq!(written(&head.headers, Some(&head.spelling)), format!("Host: a\r\n{lines}"));
        // As another sidecar has it, which got the fields in the order of a map.
        let told = Spelling::from_value(&head.spelling.to_value().unwrap());
        prop_assert_eq!(written(&head.headers, Some(&told)), format!("Host: a\r\n{lines}"));
    }

    #[test]
    fn a_change_leaves_the_other_fields_where_they_were(
        fields in proptest::collection::vec(field(), 1..80),
        pick in any::<prop::sample::Index>(),
    ) {
        let lines = |keep: &dyn Fn(&str) -> bool| -> String {
            let kept = fields.iter().filter(|(name, _)| keep(name));
            kept.map(|(name, value)| format!("{name}: {value}\r\n")).collect()
        };
        let mut head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", lines(&|_| true))).unwrap();
        let gone = &pick.get(&fields).0;
        head.headers.remove(gone.as_str());
        head.headers.append(HeaderName::from_static("zz-added-here"), HeaderValue::from_static("1"));
        let left = lines(&|name| !name.eq_ignore_ascii_case(gone));
        prop_assert_eq!(
            written(&head.headers, Some(&head.spelling)),
            format!("Host: a\r\n{left}zz-added-here: 1\r\n")
        );
    }

    #[test]
    fn what_is_sent_in_chunks_is_read_in_any_parts(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 0..4),
        size in 1_usize..5000,
        trailer in proptest::option::of("[a-z]{1,8}"),
    ) {
        let (mut out, mut coding, mut wire) = (Outbox::default(), Coding::Chunked, Vec::new());
        for part in &parts {
            out.push(Frame::data(Bytes::copy_from_slice(part)), &mut coding).unwrap();
            wire.extend(flushed(&mut out));
        }
        if let Some(value) = &trailer {
            let trailers = [(HeaderName::from_static("x-sum"), value.parse().unwrap())].into_iter().collect();
            out.push(Frame::trailers(trailers), &mut coding).unwrap();
        }
        out.finish(&mut coding).unwrap();
        wire.extend(flushed(&mut out));
        wire.extend(b"next");
        let (body, trailers, rest) = decode(Framing::Chunked, &wire, size).unwrap();
        prop_assert_eq!(body, parts.concat());
        let sum = trailers.and_then(|trailers| trailers.get("x-sum").map(|sum| sum.as_bytes().to_vec()));
        prop_assert_eq!(sum, trailer.map(String::into_bytes));
        prop_assert_eq!(rest, b"next");
    }

    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1_usize..64) {
        let raw = Bytes::from(bytes.clone());
        let _ = head::request(raw.clone(), &Limits::default());
        let _ = head::response(raw.clone(), &Limits::default(), &Method::GET);
        let _ = head::trailers(raw, &Limits::default());
        let _ = decode(Framing::Chunked, &bytes, size);
    }
}

/// All that there is to write.
fn flushed(out: &mut Outbox) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(out.poll_flush(&mut wire, &mut cx).is_ready());
    wire
}
