//! What a message's head costs: read and written by the HTTP/1 server, and changed on its way:
//! `cargo bench -p outrigger-http`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::header::{CONTENT_TYPE, DATE, HeaderName, SERVER};
use http::{HeaderMap, HeaderValue, Response, Uri, Version};
use http_body_util::Full;
use outrigger_http::Error;
use outrigger_http::filter::{strip_passed_on, to_http1};
use outrigger_http::forwarded::{self, From, Via, Written};
use outrigger_http::message::{Asked, Handler, Reply};
use outrigger_http::serve::{self, Drain, Settings};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a library sends for its program.
const SMALL: &str = "GET /api/v1/items/17?page=2 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: client/1.0\r\nAccept: */*\r\n\r\n";

/// What a browser sends.
const LARGE: &str = "GET /api/v1/items/17?page=2 HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive\r\nsec-ch-ua-platform: \"Linux\"\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\nsec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: https://shop.example/items\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=necessary\r\nX-Request-Id: 7b0f6f2e-6a4d-4c8e-9a57-2f4a0d6c1b3e\r\n\r\n";

/// A connection on which one request comes with each look at it, and where nobody reads what is written.
struct Script {
    request: &'static [u8],
    left: u64,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            buf.put_slice(self.request);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buffers.iter().map(|buffer| buffer.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Answers at once.
struct Ok200;

impl Handler for Ok200 {
    type Body = Full<Bytes>;

    fn answer(&self, _: Asked) -> impl Future<Output = Reply<Self::Body>> + use<> {
        let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(SERVER, HeaderValue::from_static("app/1.0"));
        headers.insert(DATE, HeaderValue::from_static("Fri, 20 Nov 2026 12:00:00 GMT"));
        std::future::ready(Reply::new(response))
    }

    fn refuse(&self, error: Error) -> Reply<Self::Body> {
        panic!("{error}")
    }
}

/// From a request's bytes to its head, and from a response's head to its bytes, with all that a connection does between.
fn exchange(c: &mut Criterion) {
    let mut group = c.benchmark_group("HTTP/1: request read, response written");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (name, request) in [("4 fields", SMALL), ("15 fields", LARGE)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let connection = Script { request: request.as_bytes(), left: iterations };
                let (settings, drain) = (Arc::new(Settings::default()), Rc::new(Drain::default()));
                let began = Instant::now();
                let served = serve::connection(connection, serve::Version::Http1, Ok200, settings, drain);
                runtime.block_on(served).unwrap();
                began.elapsed()
            });
        });
    }
    group.finish();
}

/// The header of a request above.
fn headers(request: &str) -> HeaderMap {
    let fields = request.lines().skip(1).filter_map(|line| line.split_once(": "));
    fields
        .map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        })
        .collect()
}

fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("header of 15 fields");
    let headers = headers(LARGE);
    group.bench_function("hop-by-hop fields taken off", |bencher| {
        bencher.iter_batched_ref(
            || headers.clone(),
            |headers| strip_passed_on(headers, false),
            BatchSize::SmallInput,
        );
    });
    let address = forwarded::address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    for (name, written) in [
        ("x-forwarded-* written", Written { x_forwarded: true, forwarded: false }),
        ("forwarded written", Written { x_forwarded: false, forwarded: true }),
    ] {
        let from = From { address: &address, ipv6: false, secure: true, trusted: false };
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || headers.clone(),
                |headers| forwarded::write(headers, written, &from),
                BatchSize::SmallInput,
            );
        });
    }
    let via = Via::new("outrigger").unwrap();
    group.bench_function("via written", |bencher| {
        bencher.iter_batched_ref(
            || headers.clone(),
            |headers| via.write(headers, Version::HTTP_11),
            BatchSize::SmallInput,
        );
    });
    let target = Uri::from_static("http://shop.example/api/v1/items/17?page=2");
    group.bench_function("from HTTP/2 to HTTP/1.1", |bencher| {
        bencher.iter_batched_ref(
            || (target.clone(), headers.clone()),
            |(uri, headers)| to_http1(uri, &mut { Version::HTTP_2 }, headers),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    // 0.6 s each: enough to see a tenth.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    targets = exchange, change
}
criterion_main!(benches);
