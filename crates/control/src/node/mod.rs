//! The node's end of the control protocol.
//!
//! Three things go on side by side until the caller drops [`run`]: the certifier keeps a valid certificate, the
//! follower keeps a stream open and applies what comes, and the saver writes what was applied to disk. A node that
//! starts while the control API is away runs from what it last applied; nothing it has ever expires for lack of news.

mod backoff;
mod certifier;
mod follower;
mod held;
mod state;
#[cfg(test)]
mod tests;
mod token;
mod wire;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::Identity;
use outrigger_config::{Name, Resource};
use tokio::sync::{Notify, watch};

use self::certifier::Certifier;
use self::follower::Follower;
use self::held::Held;
use self::state::State;
use self::token::Token;
use self::wire::Origin;
use crate::message::{DEAD_AFTER, HEARTBEAT, Refusal};

/// How a node reaches its control API, and who it is there.
#[derive(Debug, Clone)]
pub struct Options {
    /// `https://HOST:PORT`; port 15012 where it is left out.
    pub url: String,
    /// A file with the token that the first certificate is signed for. It is read again at each use.
    pub token_file: Option<PathBuf>,
    /// The node's name.
    pub node: Name,
    /// A folder for the sealed state. Made, with mode 0700, where it is not there.
    pub state_dir: PathBuf,
    /// The version of the node's binary, for the control API's list of nodes.
    pub version: String,
}

/// What takes the configuration and the identity of a node.
pub trait Sink: Send + 'static {
    /// A new identity: before anything else where there is one on disk, and after each renewal.
    fn identity(&mut self, identity: Arc<Identity>);

    /// One whole configuration, live when this returns; answers with the objects that it could not take. `rejected` is
    /// the number of objects that never got here, because they are not valid or of a kind that is not known; the last
    /// good version of each, if there is one, is among `resources`. Not called again where nothing has changed.
    fn apply(
        &mut self,
        revision: u64,
        resources: Vec<Arc<Resource>>,
        rejected: usize,
    ) -> impl Future<Output = Vec<Refusal>> + Send;

    /// Told when somebody has reason to doubt what was applied: a stream that is down is then made anew without
    /// waiting for its time. Asked for once.
    fn doubts(&self) -> Arc<Notify> {
        Arc::default()
    }

    /// The stream to the control API is up, or is no more.
    fn connected(&mut self, up: bool) {
        let _ = up;
    }
}

/// What can never get better by trying again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control API's URL is wrong.
    #[error("`{url}` is not the URL of a control API: {reason}; write https://HOST:15012")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The node has no certificate and no token to get one for.
    #[error(
        "this node has no certificate yet: give it a token file, made by `outrigger-control token --node {node}`"
    )]
    NoToken {
        /// The node's name.
        node: Name,
    },
    /// The node has no certificate, and its token cannot be used.
    #[error("the token in {}: {reason}; make one by `outrigger-control token`", .path.display())]
    Token {
        /// The token's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The sealed state cannot be kept.
    #[error("the state cannot be kept in {}: {source}; name another folder", .path.display())]
    StateDir {
        /// The folder or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// How often a heartbeat is sent, and how long a silence is borne.
#[derive(Debug, Clone, Copy)]
struct Pulse {
    heartbeat: Duration,
    dead_after: Duration,
}

/// Keeps a node in step with its control API for as long as it is polled.
pub async fn run<S: Sink>(options: Options, sink: S) -> Result<Infallible, Error> {
    let pulse = Pulse { heartbeat: HEARTBEAT, dead_after: DEAD_AFTER };
    // Boxed, for it is large, and there is one.
    Box::pin(run_with(options, sink, pulse)).await
}

async fn run_with<S: Sink>(options: Options, mut sink: S, pulse: Pulse) -> Result<Infallible, Error> {
    let origin = Arc::new(Origin::parse(&options.url)?);
    let (state, saved) = State::open(&options.state_dir, &options.node)?;
    let identity = saved.identity;
    let certifier =
        Certifier { origin: origin.clone(), node: options.node.clone(), token: options.token_file };
    match &identity {
        Some(identity) => sink.identity(identity.clone()),
        None => drop(certifier.first_token()?),
    }
    let held = Held::new(saved.store, saved.revision, saved.objects);
    let (publish, identities) = watch::channel(identity.clone());
    let (save, saves) = watch::channel(None);
    let follower = Follower {
        origin,
        node: options.node,
        version: options.version,
        pulse,
        doubts: sink.doubts(),
        sink,
        held,
        identities,
        identity: identity.clone(),
        save,
        outcome: None,
        up: None,
    };
    let never = tokio::select! {
        never = certifier.run(identity, publish) => never,
        never = follower.run() => never,
        never = state.keep(saves) => never,
    };
    Ok(never)
}

impl Certifier {
    /// The token that a node without a certificate needs.
    fn first_token(&self) -> Result<Token, Error> {
        let path = self.token.clone().ok_or_else(|| Error::NoToken { node: self.node.clone() })?;
        Token::read(&path).map_err(|reason| Error::Token { path, reason })
    }
}
