//! One node's stream: it says what it has, gets what it lacks, and then every change that concerns it.
//!
//! A node that reads slowly holds up nobody else, and little is queued for it: what it lacks is worked out only when
//! what came before was taken, so that changes meanwhile become one commit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, Version};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Either};
use hyper::body::Incoming;
use outrigger_config::{Key, Kind, Name};
use outrigger_control::lines::{Lines, encode};
use outrigger_control::message::{DEAD_AFTER, FromControl, FromNode, HEARTBEAT, Refusal};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Body, Peer, Refused};
use crate::node::Seat;
use crate::world::{Step, World};
use crate::{Running, Shared};

/// How many bytes are put together before they are handed on.
const CHUNK: usize = 32 << 10;

/// Why a stream ended.
#[derive(Debug)]
enum End {
    /// The node closed it, or the connection broke.
    Gone,
    /// The node said nothing for [`DEAD_AFTER`].
    Silent,
    /// The node opened another.
    Replaced,
    /// The node sent what cannot be understood.
    Nonsense(String),
    /// The control API stops.
    Stopped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the node has gone"),
            Self::Silent => write!(f, "the node said nothing for {} s", DEAD_AFTER.as_secs()),
            Self::Replaced => f.write_str("the node opened another stream"),
            Self::Nonsense(what) => write!(f, "the node sent {what}"),
            Self::Stopped => f.write_str("the control API stops"),
        }
    }
}

/// What a node says first.
struct Hello {
    node: Name,
    version: String,
    store: Option<String>,
    revision: u64,
    have: BTreeMap<String, u64>,
}

/// Opens a stream for a node that has shown its certificate, once it has said who it is.
pub(super) async fn open(
    request: Request<Incoming>,
    peer: Peer,
    shared: Arc<Shared>,
    running: Running,
) -> Result<Response<Body>, Refused> {
    let Some(identity) = peer.identity.clone() else {
        return Err(Refused::forbidden(&peer, "stream", "no certificate was shown"));
    };
    if request.version() != Version::HTTP_2 {
        return Err(Refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "the stream needs HTTP/2".into()));
    }
    let mut heard = Heard { body: request.into_body(), lines: Lines::default() };
    let hello = match heard.next().await {
        Ok(FromNode::Hello { node, version, store, revision, have }) => {
            Hello { node, version, store, revision, have }
        }
        Ok(_) => return Err(Refused(StatusCode::BAD_REQUEST, "the first line must be a hello".into())),
        Err(end) => return Err(Refused(StatusCode::BAD_REQUEST, end.to_string())),
    };
    if !shared.store.world().is_bound(&hello.node, &identity) {
        let why = format!("{identity} does not belong to the node {}", hello.node);
        return Err(Refused::forbidden(&peer, "stream", why));
    }
    let (say, body) = Channel::new(1);
    let known = hello.store.as_deref() == Some(&*shared.store.world().store);
    let revision = if known { hello.revision } else { 0 };
    let seat = shared.nodes.join(&hello.node, identity, peer.address, hello.version.clone(), revision);
    tracing::info!(node = %hello.node, peer = %peer.address, version = hello.version, "node connected");
    tokio::spawn(run(Session { shared, seat, hello, heard, say }, running));
    Ok(Response::new(Either::Right(body)))
}

/// A stream that is open.
struct Session {
    shared: Arc<Shared>,
    seat: Seat,
    hello: Hello,
    heard: Heard,
    say: Sender<Bytes>,
}

async fn run(session: Session, mut running: Running) {
    let Session { shared, seat: Seat { stream, replaced }, hello, mut heard, mut say } = session;
    let node = hello.node.clone();
    let end = tokio::select! {
        end = listen(&shared, &node, stream, &mut heard) => end,
        end = speak(&shared, hello, &mut say) => end,
        _ = replaced => End::Replaced,
        () = running.stopped() => End::Stopped,
    };
    shared.nodes.leave(&node, stream);
    // As text it is escaped: it can quote what the node sent.
    let reason = end.to_string();
    match end {
        End::Gone | End::Stopped => tracing::info!(%node, reason, "node disconnected"),
        End::Silent | End::Replaced | End::Nonsense(_) => tracing::warn!(%node, reason, "node disconnected"),
    }
}

/// Hears what the node says until it says no more.
async fn listen(shared: &Shared, node: &Name, stream: u64, heard: &mut Heard) -> End {
    loop {
        match heard.next().await {
            Ok(FromNode::Applied { revision, refused }) => {
                for Refusal { kind, name, field, reason } in
                    shared.nodes.applied(node, stream, revision, refused)
                {
                    tracing::warn!(%node, object = format!("{kind}/{name}"), field, reason, "object refused");
                }
            }
            Ok(FromNode::Heartbeat {}) => {}
            Ok(FromNode::Hello { .. }) => return End::Nonsense("a second hello".into()),
            Err(end) => return end,
        }
    }
}

/// Tells the node what it lacks, now and at each commit of the store.
async fn speak(shared: &Shared, hello: Hello, say: &mut Sender<Bytes>) -> End {
    let mut news = shared.store.watch();
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let first = news.borrow().clone();
    let mut held = held(&hello, &first);
    let welcome = FromControl::Welcome { store: first.store.to_string(), revision: first.revision };
    if send(say, &welcome).await.is_none() {
        return End::Gone;
    }
    let mut since = None;
    loop {
        let world = news.borrow_and_update().clone();
        if since != Some(world.revision) {
            let steps = world.catch_up(&hello.node, &mut held, since);
            if send_change(say, &world, steps).await.is_none() {
                return End::Gone;
            }
            since = Some(world.revision);
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return End::Stopped },
            _ = heartbeat.tick() => {
                if send(say, &FromControl::Heartbeat {}).await.is_none() {
                    return End::Gone;
                }
            }
        }
    }
}

/// What the node has, with the revisions, if those are this store's. Of another store's objects nothing is known but
/// that the node has them, and no object is ever at revision 0. A node that is ahead has seen what was lost since,
/// when the store was put back from a copy: its revisions may mean other objects now.
fn held(hello: &Hello, world: &World) -> BTreeMap<Key, u64> {
    let comparable = hello.store.as_deref() == Some(&*world.store) && hello.revision <= world.revision;
    let keys = hello.have.iter().filter_map(|(key, revision)| {
        let (kind, name) = key.split_once('/')?;
        let key = Key { kind: Kind::find(kind)?, name: name.parse().ok()? };
        Some((key, if comparable { *revision } else { 0 }))
    });
    keys.collect()
}

/// Sends a change with its commit. `None` if the node has gone.
async fn send_change(say: &mut Sender<Bytes>, world: &World, steps: Vec<Step>) -> Option<()> {
    let mut chunk = BytesMut::new();
    for step in steps {
        match step {
            Step::Put(object) => chunk.extend_from_slice(&object.line),
            Step::Delete(Key { kind, name }) => {
                let (revision, kind) = (world.revision, kind.to_string());
                chunk.extend_from_slice(&encode(&FromControl::Delete { revision, kind, name }).ok()?);
            }
        }
        if chunk.len() >= CHUNK {
            say.send_data(chunk.split().freeze()).await.ok()?;
        }
    }
    chunk.extend_from_slice(&encode(&FromControl::Commit { revision: world.revision }).ok()?);
    say.send_data(chunk.freeze()).await.ok()
}

async fn send(say: &mut Sender<Bytes>, message: &FromControl) -> Option<()> {
    say.send_data(encode(message).ok()?).await.ok()
}

/// What the node says, message by message.
struct Heard {
    body: Incoming,
    lines: Lines,
}

impl Heard {
    async fn next(&mut self) -> Result<FromNode, End> {
        loop {
            match self.lines.take() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => return Err(End::Nonsense(error.to_string())),
            }
            match timeout(DEAD_AFTER, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.lines.push(&bytes);
                    }
                }
                Ok(Some(Err(_)) | None) => return Err(End::Gone),
                Err(_) => return Err(End::Silent),
            }
        }
    }
}
