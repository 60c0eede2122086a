//! What is sent through the proxy, one request at a time, and what answers it.

use std::{convert::Infallible, net::SocketAddr, path::Path};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    client, server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::callgrind::{Proxy, Run, Threads};
use crate::subject::certificates::{Certificates, spiffe_id};

/// The bytes of a request's content, where it has any, and of each answer's.
const CONTENT: usize = 1024;

/// How a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP/1.1 through one proxy.
    Http1,
    /// gRPC through one proxy.
    Grpc,
    /// HTTP/1.1 through two sidecars with mutual TLS between them; the caller's is looked at.
    Caller,
    /// The same; the callee's is looked at.
    Callee,
}

/// The proxies, once they run: they start after the application, which waits for them to sleep.
type Watched = watch::Sender<Option<Threads>>;

/// Sends the run's requests, and returns the proxy that is looked at.
pub(super) async fn send(run: &Run<'_>, dir: &Path) -> Result<Proxy> {
    let way = run.case.way;
    let watched = Watched::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.context("the application cannot listen")?;
    let application = listener.local_addr()?;
    let serving = tokio::spawn(serve(listener, way, watched.subscribe()));

    let policies = run.case.policies;
    let (counted, other, address) = match way {
        Way::Http1 | Way::Grpc => {
            let (proxy, address) = run.start(dir, "proxy", &edge(application, way, policies), true)?;
            (proxy, None, address)
        }
        Way::Caller | Way::Callee => {
            let certificates = Certificates::create(dir)?;
            let callee = inbound(application, &identity(&certificates, "callee")?);
            let (callee, address) = run.start(dir, "callee", &callee, way == Way::Callee)?;
            let caller = outbound(address, &identity(&certificates, "caller")?);
            let (caller, address) = run.start(dir, "caller", &caller, way == Way::Caller)?;
            if way == Way::Caller { (caller, Some(callee), address) } else { (callee, Some(caller), address) }
        }
    };
    let proxies = match &other {
        Some(other) => counted.threads().and(&other.threads()),
        None => counted.threads(),
    };
    watched.send_replace(Some(proxies.clone()));
    let sent = match way {
        Way::Grpc => send_http2(address, run.requests, proxies).await,
        _ => send_http1(address, run.requests, proxies).await,
    };
    serving.abort();
    drop(other);
    sent.with_context(|| format!("a request failed: {}", counted.complaint()))?;
    Ok(counted)
}

async fn send_http1(address: SocketAddr, requests: u32, proxies: Threads) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut send, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for _ in 0..requests {
        proxies.settle().await;
        let request = Request::get("/api/v1/items/17?page=2")
            .header("host", "shop.example")
            .header("user-agent", "bench/1.0")
            .header("accept", "application/json")
            .body(Full::<Bytes>::default())?;
        whole(send.send_request(request).await?).await?;
    }
    Ok(())
}

async fn send_http2(address: SocketAddr, requests: u32, proxies: Threads) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut send, connection) =
        client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for _ in 0..requests {
        proxies.settle().await;
        let request = Request::post("http://shop.example/shop.Items/Get")
            .header("user-agent", "bench/1.0")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(grpc()))?;
        let trailers = whole(send.send_request(request).await?).await?;
        ensure!(
            trailers.is_some_and(|trailers| trailers.contains_key("grpc-status")),
            "there is no grpc-status"
        );
    }
    Ok(())
}

/// Reads an answer to its end, and returns its trailers.
async fn whole(answer: Response<Incoming>) -> Result<Option<HeaderMap>> {
    let status = answer.status();
    ensure!(status == StatusCode::OK, "the answer is {status}");
    let body = answer.into_body().collect().await?;
    Ok(body.trailers().cloned())
}

/// A message of gRPC: not compressed, its length, and as many bytes.
fn grpc() -> Bytes {
    let mut message = vec![0];
    message.extend_from_slice(&(CONTENT as u32).to_be_bytes());
    message.resize(message.len() + CONTENT, b'x');
    message.into()
}

/// The application: answers once the proxy sleeps.
async fn serve(listener: TcpListener, way: Way, watched: watch::Receiver<Option<Threads>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let watched = watched.clone();
        let answer = service_fn(move |request| answer(request, way, watched.clone()));
        // How a connection ends is seen by the caller.
        if way == Way::Grpc {
            let serving = server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), answer));
        } else {
            tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    way: Way,
    mut watched: watch::Receiver<Option<Threads>>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let _ = request.into_body().collect().await;
    let proxies = watched.wait_for(Option::is_some).await.ok().and_then(|proxies| proxies.clone());
    if let Some(proxies) = proxies {
        proxies.settle().await;
    }
    let (content, media_type, trailers) = if way == Way::Grpc {
        let ok =
            HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        (grpc(), "application/grpc", Some(Ok(ok)))
    } else {
        (Bytes::from(vec![b'x'; CONTENT]), "application/json", None)
    };
    let body = Full::new(content).with_trailers(std::future::ready(trailers));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

fn edge(application: SocketAddr, way: Way, policies: bool) -> String {
    let (protocol, kind) = match way {
        Way::Grpc => ("H2C", "grpcRoutes"),
        _ => ("HTTP", "httpRoutes"),
    };
    let (rule, backend) = if policies { (RULE, BACKEND) } else { ("", "") };
    format!(
        "admin: {{ address: 127.0.0.1:0 }}
listeners: [{{ name: bench, address: 127.0.0.1:0, protocol: HTTP }}]
{kind}:
  - name: bench
    listeners: [bench]
    rules:
      - backendRefs: [{{ name: app }}]
{rule}backends:
  - name: app
    protocol: {protocol}
    connectTimeout: 1m
    endpoints: [{{ address: '{application}' }}]
{backend}"
    )
}

/// What a rule may have.
const RULE: &str = "        matches:
          - path: { type: PathPrefix, value: /api }
            headers: [{ name: user-agent, value: bench/1.0 }]
            queryParams: [{ name: page, value: '2' }]
        filters:
          - type: RequestHeaderModifier
            requestHeaderModifier: { set: [{ name: x-shop, value: '1' }], remove: [x-debug] }
          - type: ResponseHeaderModifier
            responseHeaderModifier: { add: [{ name: cache-control, value: no-store }] }
        timeouts: { request: 2m, backendRequest: 1m }
        retry: { attempts: 2, codes: [502, 503, 504], backoff: 25ms }
";

/// What a backend may have.
const BACKEND: &str = "    balance: { type: PeakEwma, slowStart: 30s, locality: PreferZone }
    outlierDetection: { successRate: { minRequests: 100 }, latency: { factorPercent: 300 } }
    retryConstraint: { budget: { percent: 20, interval: 10s }, minRetryRate: { count: 10, interval: 1s } }
    limits: { connections: 500, requests: 500, retries: 50 }
";

fn inbound(application: SocketAddr, identity: &str) -> String {
    sidecar("direction: Inbound, mtls: { mode: Strict }", identity, &format!("address: '{application}'"))
}

fn outbound(callee: SocketAddr, identity: &str) -> String {
    let to = format!("address: '{callee}', identity: '{}'", spiffe_id("callee"));
    sidecar("direction: Outbound, protocol: HTTP", identity, &to)
}

fn sidecar(listener: &str, identity: &str, endpoint: &str) -> String {
    format!(
        "admin: {{ address: 127.0.0.1:0 }}
{identity}listeners: [{{ name: bench, address: 127.0.0.1:0, {listener} }}]
httpRoutes: [{{ name: bench, listeners: [bench], rules: [{{ backendRefs: [{{ name: app }}] }}] }}]
backends: [{{ name: app, connectTimeout: 1m, endpoints: [{{ {endpoint} }}] }}]
"
    )
}

/// Makes the files of an identity, and returns the configuration's line for them.
fn identity(certificates: &Certificates<'_>, name: &str) -> Result<String> {
    let files = certificates.identity(name)?;
    let [chain, key, trust] = [&files.chain, &files.key, &certificates.trust].map(|path| path.display());
    Ok(format!("identity: {{ chain: '{chain}', key: '{key}', trust: '{trust}' }}\n"))
}
