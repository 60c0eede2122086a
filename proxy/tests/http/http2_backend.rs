//! Connections of HTTP/2 to backends: when another is made, and what GOAWAY does to requests.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use outrigger_testkit::app::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::http2::{caller, get, post};
use crate::support::{Running, listen, soon, with_rule};

/// What a backend does and saw.
#[derive(Default)]
struct Backend {
    /// After how many streams it says in good order that it takes no more; 0: never.
    leaves_after: usize,
    /// How many streams it takes at a time; 0: any number.
    streams: u32,
    /// How long it takes to answer.
    work: Duration,
    connections: AtomicUsize,
    goaways: AtomicUsize,
    /// The most streams that were open on one connection.
    most: AtomicUsize,
    /// The paths of all requests.
    seen: Mutex<Vec<String>>,
}

impl Backend {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            self.connections.fetch_add(1, SeqCst);
            tokio::spawn(self.clone().connection(stream));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let mut builder = h2::server::Builder::new();
        if self.streams > 0 {
            builder.max_concurrent_streams(self.streams);
        }
        let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
        let (mut accepted, open) = (0, Arc::new(AtomicUsize::new(0)));
        while let Some(Ok((request, respond))) = connection.accept().await {
            accepted += 1;
            if accepted == self.leaves_after {
                self.goaways.fetch_add(1, SeqCst);
                connection.graceful_shutdown();
            }
            self.most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
            let (backend, open) = (self.clone(), open.clone());
            tokio::spawn(async move {
                // An error is a caller that left.
                let _ = backend.answer(request, respond, &open).await;
            });
        }
    }

    async fn answer(
        &self,
        request: Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
        open: &AtomicUsize,
    ) -> Result<(), h2::Error> {
        self.seen.lock().unwrap().push(request.uri().path().to_owned());
        let mut body = request.into_body();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        tokio::time::sleep(self.work).await;
        let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(response, false)?;
        stream.send_data(Bytes::from_static(b"\0\0\0\0\0"), false)?;
        // The caller may begin another as soon as it has heard of this one's end.
        open.fetch_sub(1, SeqCst);
        stream.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), 0.into())]))
    }
}

/// Whether a request is answered as it should be.
async fn succeeds(response: Response<hyper::body::Incoming>) -> bool {
    let status = response.status();
    let Ok(body) = soon(response.collect()).await else { return false };
    let grpc = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
    status == 200 && grpc == Some(HeaderValue::from_static("0"))
}

fn grpc(path: &str) -> Request<crate::http2::Body> {
    let mut request = post(path, vec![Frame::data(Bytes::from_static(b"\0\0\0\0\0"))]);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_when_a_backend_says_goaway_every_fifty_streams() {
    const CALLERS: usize = 16;
    const REQUESTS: usize = 120;
    let (listener, address) = listen().await;
    let backend =
        Arc::new(Backend { leaves_after: 50, work: Duration::from_millis(1), ..Backend::default() });
    tokio::spawn(backend.clone().serve(listener));
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let http2 = caller(&proxy).await;
    let mut callers = JoinSet::new();
    for nth in 0..CALLERS {
        let mut http2 = http2.clone();
        callers.spawn(async move {
            let mut failed = Vec::new();
            for round in 0..REQUESTS {
                let path = format!("/{nth}/{round}");
                let request = match (nth + round) % 3 {
                    0 => get(&path),
                    1 => post(&path, vec![Frame::data(Bytes::from_static(b"hi"))]),
                    _ => grpc(&path),
                };
                let what = format!("{} {path}", request.method());
                let answered = match soon(http2.send_request(request)).await {
                    Ok(response) => succeeds(response).await,
                    Err(_) => false,
                };
                failed.extend((!answered).then_some(what));
            }
            failed
        });
    }
    let mut failed = Vec::new();
    while let Some(ended) = callers.join_next().await {
        failed.extend(ended.unwrap());
    }
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
    let mut seen = std::mem::take(&mut *backend.seen.lock().unwrap());
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), all), (CALLERS * REQUESTS, CALLERS * REQUESTS), "each came once");
    let goaways = backend.goaways.load(SeqCst);
    println!("{all} requests, {goaways} GOAWAYs, {} connections", backend.connections.load(SeqCst));
    assert!(goaways >= 30, "{goaways}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_connection_is_made_when_the_backend_takes_no_more_streams_on_one() {
    let (listener, address) = listen().await;
    let backend = Arc::new(Backend { streams: 4, work: Duration::from_millis(100), ..Backend::default() });
    tokio::spawn(backend.clone().serve(listener));
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let http2 = caller(&proxy).await;
    for round in 0..3 {
        let mut under_way = JoinSet::new();
        for number in 0..40 {
            let path = format!("/{round}/{number}");
            let request = if number % 2 == 0 { get(&path) } else { grpc(&path) };
            let mut http2 = http2.clone();
            under_way.spawn(async move { succeeds(soon(http2.send_request(request)).await.unwrap()).await });
        }
        while let Some(ended) = under_way.join_next().await {
            assert!(ended.unwrap());
        }
    }
    assert!(backend.most.load(SeqCst) <= 4, "{}", backend.most.load(SeqCst));
    let connections = backend.connections.load(SeqCst);
    assert!((10..=12).contains(&connections), "{connections}");
    assert_eq!(backend.seen.lock().unwrap().len(), 120);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_other_connection_may_be_made_requests_wait_for_room_or_are_refused() {
    for waiting in [0, 40] {
        let (listener, address) = listen().await;
        let backend = Arc::new(Backend { streams: 4, work: Duration::from_millis(20), ..Backend::default() });
        tokio::spawn(backend.clone().serve(listener));
        let limits = format!("limits: {{ connections: 2, waiting: {waiting}, waitTimeout: 20s }}");
        let proxy = Running::start(&with_rule("", &format!("protocol: H2C, {limits}"), &[address])).await;
        let http2 = caller(&proxy).await;
        // It says what it takes.
        assert_eq!(http2.clone().send_request(get("/first")).await.unwrap().status(), 200);
        let mut under_way = JoinSet::new();
        for number in 0..40 {
            let request = post(&format!("/{number}"), vec![Frame::data(Bytes::from_static(b"hi"))]);
            under_way.spawn(http2.clone().send_request(request));
        }
        let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
        while let Some(ended) = soon(under_way.join_next()).await {
            *statuses.entry(ended.unwrap().unwrap().status().as_u16()).or_default() += 1;
        }
        let answered = statuses.get(&200).copied().unwrap_or(0);
        assert!(if waiting == 0 { answered >= 8 } else { answered == 40 }, "{statuses:?}");
        assert_eq!(answered + statuses.get(&503).copied().unwrap_or(0), 40, "{statuses:?}");
        assert!(backend.connections.load(SeqCst) <= 2);
        assert_eq!(backend.seen.lock().unwrap().len(), answered + 1, "what was refused was not sent");
    }
}

/// What a backend sees that reads frames by hand.
enum Saw {
    /// A request, on which connection and stream.
    Request(usize, u32),
    /// That its settings are taken.
    Agreed(usize),
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, section 6.5.2).
fn at_a_time(streams: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 3][..], &streams.to_be_bytes()].concat())
}

/// A connection whose frames are read by hand. What is sent to `write` goes out on it.
async fn by_hand(
    nth: usize,
    stream: TcpStream,
    saw: mpsc::UnboundedSender<Saw>,
    mut write: mpsc::UnboundedReceiver<Vec<u8>>,
) {
    let (mut reading, mut writing) = stream.into_split();
    let read = async move {
        reading.read_exact(&mut [0; 24]).await?;
        loop {
            let mut head = [0; 9];
            reading.read_exact(&mut head).await?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            reading.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let _ = match (head[3], head[4]) {
                (HEADERS, _) => saw.send(Saw::Request(nth, stream)),
                (SETTINGS, ACK) => saw.send(Saw::Agreed(nth)),
                (PING, 0) => panic!("a ping of a backend that is not silent"),
                _ => Ok(()),
            };
        }
        #[allow(unreachable_code, reason = "says what the errors are")]
        std::io::Result::Ok(())
    };
    let write = async move {
        while let Some(bytes) = write.recv().await {
            if writing.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    let _ = tokio::join!(read, write);
}

#[tokio::test]
async fn a_limit_of_streams_that_is_lowered_is_kept_to_at_once() {
    let (listener, address) = listen().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let http2 = caller(&proxy).await;
    let (saw, mut seen) = mpsc::unbounded_channel();
    let (connect, mut connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for nth in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (write, from) = mpsc::unbounded_channel();
            let first = if nth == 0 { 10 } else { 1 };
            write.send(at_a_time(first)).unwrap();
            connect.send(write).unwrap();
            tokio::spawn(by_hand(nth, stream, saw.clone(), from));
        }
    });
    let mut under_way = JoinSet::new();
    let ask = |under_way: &mut JoinSet<u16>| {
        let mut http2 = http2.clone();
        under_way.spawn(async move { soon(http2.send_request(get("/"))).await.unwrap().status().as_u16() });
    };
    let answer = |stream| frame(HEADERS, 5, stream, &[0x88]);

    ask(&mut under_way);
    let first = soon(connections.recv()).await.unwrap();
    let mut streams = Vec::new();
    let mut agreed = 0;
    while streams.is_empty() || agreed < 1 {
        match soon(seen.recv()).await.unwrap() {
            Saw::Request(nth, stream) => streams.push((nth, stream)),
            Saw::Agreed(_) => agreed += 1,
        }
    }
    // Ten at a time: the second joins the first.
    ask(&mut under_way);
    while streams.len() < 2 {
        if let Saw::Request(nth, stream) = soon(seen.recv()).await.unwrap() {
            streams.push((nth, stream));
        }
    }
    assert!(streams.iter().all(|(nth, _)| *nth == 0));
    // From now on one, though two are there: the third and the fourth go elsewhere, one by one.
    first.send(at_a_time(1)).unwrap();
    while agreed < 2 {
        if let Saw::Agreed(0) = soon(seen.recv()).await.unwrap() {
            agreed += 1;
        }
    }
    ask(&mut under_way);
    ask(&mut under_way);
    let (second, third) = (soon(connections.recv()).await.unwrap(), soon(connections.recv()).await.unwrap());
    while streams.len() < 4 {
        if let Saw::Request(nth, stream) = soon(seen.recv()).await.unwrap() {
            streams.push((nth, stream));
        }
    }
    let on = |nth| streams.iter().filter(|(on, _)| *on == nth).count();
    assert_eq!((on(0), on(1), on(2)), (2, 1, 1), "{streams:?}");
    for (nth, stream) in streams {
        [&first, &second, &third][nth].send(answer(stream)).unwrap();
    }
    while let Some(status) = soon(under_way.join_next()).await {
        assert_eq!(status.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_connection_that_said_goaway_is_not_used_again_and_what_is_under_way_ends() {
    let (listener, address) = listen().await;
    let backend =
        Arc::new(Backend { leaves_after: 1, work: Duration::from_millis(200), ..Backend::default() });
    tokio::spawn(backend.clone().serve(listener));
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let mut http2 = caller(&proxy).await;
    let first = tokio::spawn(http2.send_request(get("/1")));
    assert!(crate::support::poll(|| backend.goaways.load(SeqCst) == 1).await);
    let second = http2.send_request(grpc("/2")).await.unwrap();
    assert!(succeeds(second).await);
    assert!(succeeds(first.await.unwrap().unwrap()).await);
    assert_eq!(backend.connections.load(SeqCst), 2);
    // Both close once they are done.
    proxy.metric_is("outrigger_backend_connections_open", &["backend=\"app\""], 0.0).await;
}

#[tokio::test]
async fn a_request_after_an_idle_connection_has_closed_is_sent_on_another() {
    let app = App::builder().start().await;
    let address = app.address();
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let mut http2 = caller(&proxy).await;
    let (status, _) = crate::http2::read(http2.send_request(get("/")).await.unwrap()).await;
    assert_eq!(status, 200);
    app.kill().await;
    let _again = App::builder().address(address).start().await;
    let request = post("/echo", vec![Frame::data(Bytes::from_static(b"hi"))]);
    let response = http2.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
}
