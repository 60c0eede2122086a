//! A control API whose part is played by the test: it signs by itself, and hands each stream to the test.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_certs::{Authority, control, mesh};
use outrigger_config::{Name, SpiffeId};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::lines::{Lines, encode};
use crate::message::{Claims, FromControl, FromNode, SIGN_PATH, STREAM_PATH, SignRequest, SignResponse};

/// What lasts while the API itself is killed and started again.
pub(super) struct Realm {
    authority: Authority,
    /// How long certificates live.
    pub(super) lifetime: Mutex<Duration>,
    /// How many signing requests are to be refused.
    pub(super) refuse: Mutex<u32>,
    /// How each certificate was asked for: `token` or `certificate`.
    pub(super) signed: Mutex<Vec<&'static str>>,
}

pub(super) fn id() -> SpiffeId {
    "spiffe://outrigger.test/node/a".parse().unwrap()
}

impl Realm {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            authority: Authority::create("outrigger.test").unwrap(),
            lifetime: Mutex::new(Duration::from_hours(24)),
            refuse: Mutex::new(0),
            signed: Mutex::default(),
        })
    }

    pub(super) fn token(&self) -> String {
        let ca =
            self.authority.fingerprint().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let claims = Claims { sub: "a".parse().unwrap(), id: id(), ca, iat: 0, exp: 0, jti: "1".into() };
        let payload = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap());
        format!("e30.{payload}.c2ln")
    }

    fn sign(&self, how: &'static str, request: &SignRequest) -> Result<SignResponse, String> {
        let mut refuse = self.refuse.lock().unwrap();
        if *refuse > 0 {
            *refuse -= 1;
            return Err("the token has expired".into());
        }
        self.signed.lock().unwrap().push(how);
        let lifetime = *self.lifetime.lock().unwrap();
        let csr = request.csr.as_bytes();
        let issued = self.authority.sign(csr, &id(), &[], lifetime, SystemTime::now()).unwrap();
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        Ok(SignResponse {
            chain: issued.chain_pem,
            bundle: self.authority.cert_pem(),
            id: id(),
            not_before: seconds(issued.not_before),
            not_after: seconds(issued.not_after),
        })
    }
}

/// A running control API. Dropping it cuts every connection.
pub(super) struct Api {
    pub(super) address: SocketAddr,
    sessions: mpsc::UnboundedReceiver<Session>,
    _tasks: JoinSet<()>,
}

impl Api {
    /// Starts on a port of the system's choice, or again on the one it had.
    pub(super) async fn start(realm: &Arc<Realm>, address: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind(address.unwrap_or(([127, 0, 0, 1], 0).into())).await.unwrap();
        let address = listener.local_addr().unwrap();
        let names = ["127.0.0.1".to_owned()];
        let day = Duration::from_hours(24);
        let (issued, key) = realm.authority.server_identity(&names, day, SystemTime::now()).unwrap();
        let bundle = realm.authority.cert_pem();
        let tls = control::server_config(issued.chain_pem.as_bytes(), &key, bundle.as_bytes()).unwrap();
        let (arrive, sessions) = mpsc::unbounded_channel();
        let (realm, mut tasks) = (realm.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, realm, arrive) =
                    (TlsAcceptor::from(tls.clone()), realm.clone(), arrive.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let known = mesh::peer_identity(stream.get_ref().1.peer_certificates()).is_some();
                    let service =
                        service_fn(move |request| answer(realm.clone(), arrive.clone(), known, request));
                    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service);
                    drop(connection.await);
                });
            }
        });
        Self { address, sessions, _tasks: tasks }
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The next stream that a node opens.
    pub(super) async fn session(&mut self) -> Session {
        within(self.sessions.recv()).await.unwrap()
    }
}

/// What must happen within a generous time.
pub(super) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    realm: Arc<Realm>,
    arrive: mpsc::UnboundedSender<Session>,
    known: bool,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let plain = |status: StatusCode, text: String| {
        Response::builder().status(status).body(Full::new(Bytes::from(text)).boxed()).unwrap()
    };
    if request.uri().path() == STREAM_PATH && known {
        let (outbox, body) = Channel::new(64);
        drop(arrive.send(Session { inbox: request.into_body(), lines: Lines::default(), outbox }));
        return Ok(Response::new(body.boxed()));
    }
    assert_eq!(request.uri().path(), SIGN_PATH);
    let bearer = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let how = match bearer {
        Some(token) => {
            assert_eq!(token, format!("Bearer {}", realm.token()));
            "token"
        }
        None if known => "certificate",
        None => return Ok(plain(StatusCode::FORBIDDEN, String::new())),
    };
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Ok(match realm.sign(how, &serde_json::from_slice(&body).unwrap()) {
        Ok(response) => plain(StatusCode::OK, serde_json::to_string(&response).unwrap()),
        Err(error) => plain(StatusCode::FORBIDDEN, format!(r#"{{"error":"{error}"}}"#)),
    })
}

/// A stream, as the control API has it.
pub(super) struct Session {
    inbox: Incoming,
    lines: Lines,
    outbox: Sender<Bytes, Infallible>,
}

impl Session {
    /// The next line, heartbeats included.
    pub(super) async fn hear_all(&mut self) -> FromNode {
        loop {
            if let Some(message) = self.lines.take().unwrap() {
                return message;
            }
            let frame = within(self.inbox.frame()).await.expect("the node is there").unwrap();
            self.lines.push(&frame.into_data().unwrap());
        }
    }

    /// The next line that is not a heartbeat.
    pub(super) async fn hear(&mut self) -> FromNode {
        loop {
            match self.hear_all().await {
                FromNode::Heartbeat {} => {}
                message => return message,
            }
        }
    }

    pub(super) async fn say(&mut self, message: &FromControl) {
        self.outbox.send_data(encode(message).unwrap()).await.unwrap();
    }

    /// A line that is none.
    pub(super) async fn garbage(&mut self) {
        self.outbox.send_data(Bytes::from_static(b"{\"type\":\"poem\"}\n")).await.unwrap();
    }

    pub(super) async fn welcome(&mut self, store: &str) {
        self.say(&FromControl::Welcome { store: store.into(), revision: 0 }).await;
    }

    pub(super) async fn put(&mut self, revision: u64, kind: &str, name: &str, spec: serde_json::Value) {
        let (kind, name): (String, Name) = (kind.into(), name.parse().unwrap());
        self.say(&FromControl::Put { revision, kind, name, spec }).await;
    }

    /// A commit, and the node's answer to it.
    pub(super) async fn commit(&mut self, revision: u64) -> Vec<crate::Refusal> {
        self.say(&FromControl::Commit { revision }).await;
        match self.hear().await {
            FromNode::Applied { revision: applied, refused } if applied == revision => refused,
            other => panic!("expected revision {revision} to be applied, heard {other:?}"),
        }
    }
}
