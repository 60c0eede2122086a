//! Requests and responses that are made up: none differs with a proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use outrigger_benches::diff::{Harness, Path, Speaks};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};

/// A message as it goes over the wire, and whether its sender closes after it.
#[derive(Clone)]
struct Made {
    wire: Vec<u8>,
    close: bool,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.wire.escape_ascii(), if self.close { " and closes" } else { "" })
    }
}

type Field = (String, Vec<u8>);

fn field() -> impl Strategy<Value = Field> {
    // Few names, so that they come again; in whichever case.
    let known = select(vec![
        "Accept",
        "accept-language",
        "COOKIE2",
        "Content-Type",
        "content-language",
        "ETag",
        "X-A",
        "x-a",
        "X-B",
        "x_b",
        "User-Agent",
        "Referer",
        "Authorization",
        "traceparent",
        "Date",
        "Cache-Control",
        "Vary",
        "Set-Cookie",
        "Link",
    ]);
    let name = prop_oneof![3 => known.prop_map(String::from), 1 => "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}"];
    let name = name.prop_filter("a name with a meaning of its own", |name| !is_special(name));
    let value = prop_oneof![
        4 => "[ -~\t]{0,40}".prop_map(String::into_bytes),
        1 => vec(prop_oneof![0x20_u8..=0x7e, 0x80_u8..=0xff, Just(b'\t')], 0..30),
    ];
    (name, value)
}

fn is_special(name: &str) -> bool {
    const SPECIAL: [&str; 19] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "expect",
        "trailer",
        "exchange",
        "via",
        "forwarded",
        "cookie",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "proxy-status",
    ];
    SPECIAL.contains(&name.to_ascii_lowercase().as_str())
}

/// How a body is sent.
#[derive(Debug, Clone)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunks { chunks: Vec<(Vec<u8>, Option<String>)>, trailers: Vec<Field> },
    UntilClose(Vec<u8>),
}

/// Few bytes of any kind, or many that are easily made fewer.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let many = (0..100_000_usize).prop_map(|count| (0..count).map(|n| (n % 251) as u8).collect());
    prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => many]
}

fn body(until_close: bool) -> impl Strategy<Value = Body> {
    let extension = option::weighted(0.2, "[a-z]{1,5}(=[a-z0-9]{1,5}|=\"[ a-z;]{0,8}\")?");
    let chunk = (bytes().prop_filter("the last", |chunk| !chunk.is_empty()), extension);
    let chunks = (vec(chunk, 0..6), vec(field(), 0..4))
        .prop_map(|(chunks, trailers)| Body::Chunks { chunks, trailers });
    prop_oneof![
        Just(Body::None),
        bytes().prop_map(Body::Length),
        chunks,
        bytes().prop_map(move |bytes| if until_close {
            Body::UntilClose(bytes)
        } else {
            Body::Length(bytes)
        }),
    ]
}

fn write_fields(wire: &mut Vec<u8>, fields: &[Field]) {
    for (name, value) in fields {
        wire.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
}

fn write_body(wire: &mut Vec<u8>, body: &Body) {
    match body {
        Body::None => wire.extend(b"\r\n"),
        Body::UntilClose(bytes) => wire.extend([b"\r\n", &bytes[..]].concat()),
        Body::Length(bytes) => {
            wire.extend(format!("Content-Length: {}\r\n\r\n", bytes.len()).into_bytes());
            wire.extend(bytes);
        }
        Body::Chunks { chunks, trailers } => {
            wire.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for (chunk, extension) in chunks {
                let extension = extension.as_ref().map(|e| format!(";{e}")).unwrap_or_default();
                wire.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
                wire.extend([&chunk[..], b"\r\n"].concat());
            }
            wire.extend(b"0\r\n");
            write_fields(wire, trailers);
            wire.extend(b"\r\n");
        }
    }
}

/// A request, and its method.
fn request() -> impl Strategy<Value = (String, Made)> {
    let method = prop_oneof![
        3 => select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "REPORT"]).prop_map(String::from),
        1 => "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,16}",
    ];
    let method = method.prop_filter("a tunnel", |method| method != "CONNECT" && method != "PRI");
    let path = "(/([!$&'()*+,;=:@._~A-Za-z0-9-]|%[0-9A-Fa-f]{2}|[|{}\\\\^]|ü){0,12}){1,5}";
    let query = option::of("([!$&'()*+,;=:@/?._~A-Za-z0-9-]|%[0-9A-Fa-f]{2}|ü){0,30}");
    (method, path, query, vec(field(), 0..12), 0..12_usize, body(false)).prop_map(
        |(method, path, query, mut fields, host, body)| {
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            fields.insert(host.min(fields.len()), ("Host".into(), b"shop.example:8080".to_vec()));
            let mut wire = format!("{method} {path}{query} HTTP/1.1\r\n").into_bytes();
            write_fields(&mut wire, &fields);
            write_body(&mut wire, &body);
            (method, Made { wire, close: false })
        },
    )
}

fn response(method: String) -> impl Strategy<Value = Made> {
    let code = prop_oneof![3 => Just(200_u16), 2 => 200_u16..600, 1 => select(vec![204, 304, 205])];
    (code, "[ -~]{0,20}", vec(field(), 0..12), body(true)).prop_map(move |(code, reason, fields, body)| {
        let mut wire = format!("HTTP/1.1 {code} {reason}\r\n").into_bytes();
        write_fields(&mut wire, &fields);
        let bare = method == "HEAD" || matches!(code, 204 | 205 | 304);
        let close = !bare && matches!(body, Body::None | Body::UntilClose(_));
        match body {
            Body::Length(bytes) if method == "HEAD" || code == 304 => {
                wire.extend(format!("Content-Length: {}\r\n\r\n", bytes.len()).into_bytes());
            }
            _ if code == 205 => wire.extend(b"Content-Length: 0\r\n\r\n"),
            _ if bare => wire.extend(b"\r\n"),
            body => write_body(&mut wire, &body),
        }
        Made { wire, close }
    })
}

fn exchange() -> impl Strategy<Value = (Made, Made)> {
    request()
        .prop_flat_map(|(method, request)| response(method).prop_map(move |made| (request.clone(), made)))
}

/// Makes up so many exchanges, and finds no difference.
fn none_differs(path: Path, application: Speaks, cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let harness = runtime.block_on(Harness::start(path, application)).unwrap();
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    });
    let found = runner.run(&exchange(), |(request, response)| {
        for caller in [Speaks::Http1, Speaks::Http2] {
            let played = harness.differences(caller, &request.wire, &response.wire, response.close);
            let differences = runtime.block_on(played);
            prop_assert!(differences.is_empty(), "from {caller:?}: {differences:#?}");
        }
        Ok(())
    });
    runtime.block_on(harness.stop());
    if let Err(error) = found {
        panic!("{error}");
    }
}

#[test]
fn without_a_proxy() {
    none_differs(Path::Direct, Speaks::Http1, 256);
}

#[test]
fn through_a_proxy_to_http1() {
    none_differs(Path::Proxy, Speaks::Http1, 256);
}

#[test]
fn through_a_proxy_to_http2() {
    none_differs(Path::Proxy, Speaks::Http2, 256);
}

#[test]
fn through_sidecars_to_http1() {
    none_differs(Path::Sidecars, Speaks::Http1, 256);
}

#[test]
fn through_sidecars_to_http2() {
    none_differs(Path::Sidecars, Speaks::Http2, 256);
}
