//! What a node and the control API say to each other.
//!
//! Signing is one request and one answer, JSON each ([`SIGN_PATH`]). The stream ([`STREAM_PATH`]) is one HTTP/2
//! request whose body and whose response's body stay open and carry JSON lines, one message each, at most
//! [`MAX_LINE`] bytes with the line end, so that `curl -N` can read along.
//!
//! The order on a stream: the node says [`FromNode::Hello`]; the control API says [`FromControl::Welcome`], then any
//! number of puts and deletes, then a [`FromControl::Commit`], which the node makes live as one change and answers
//! with [`FromNode::Applied`]; from then on, each change the same way. Each side sends a heartbeat every
//! [`HEARTBEAT`], and takes the other for dead after [`DEAD_AFTER`] without a line.

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_config::{Name, SpiffeId};
use serde::{Deserialize, Serialize};

/// Where the stream is opened, by POST.
pub const STREAM_PATH: &str = "/v1/stream";
/// Where certificates are signed, by POST.
pub const SIGN_PATH: &str = "/v1/sign";
/// How often each side sends a heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a side may be silent before the other takes it for dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);
/// The most bytes of one line, its end included: 4 MiB.
pub const MAX_LINE: usize = 4 << 20;

/// A line from a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FromNode {
    /// The first line: who it is and what it has.
    Hello {
        /// Its name.
        node: Name,
        /// The version of its binary.
        version: String,
        /// The store that it last followed, as [`FromControl::Welcome`] named it.
        store: Option<String>,
        /// The revision it last applied; 0 before the first.
        revision: u64,
        /// The objects it has, by `KIND/NAME` (`HTTPRoute/shop`), with the revision of each.
        have: BTreeMap<String, u64>,
    },
    /// The answer to a commit: what is live now.
    Applied {
        /// The revision of the commit.
        revision: u64,
        /// The objects that could not be taken; the last good version of each, if any, stays live.
        refused: Vec<Refusal>,
    },
    /// It is alive.
    Heartbeat {},
}

/// A line from the control API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FromControl {
    /// The first line: who answers.
    Welcome {
        /// The store's id. Revisions of different stores cannot be compared.
        store: String,
        /// The store's revision.
        revision: u64,
    },
    /// An object that is new or has changed. Takes effect at the next commit.
    Put {
        /// The object's revision.
        revision: u64,
        /// Its kind, as text, so that a kind this version does not know spoils one object and not the stream.
        kind: String,
        /// Its name.
        name: Name,
        /// What it says.
        spec: serde_json::Value,
    },
    /// An object that is no more, or no longer concerns the node. Takes effect at the next commit.
    Delete {
        /// The store's revision that took it away.
        revision: u64,
        /// Its kind, as text.
        kind: String,
        /// Its name.
        name: Name,
    },
    /// Everything since the last commit takes effect as one change.
    Commit {
        /// The store's revision that the node has then.
        revision: u64,
    },
    /// It is alive.
    Heartbeat {},
}

/// An object that a node could not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Its kind, as text.
    pub kind: String,
    /// Its name.
    pub name: Name,
    /// The field that is wrong, from the object's spec.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A request for a certificate, with a token as bearer or the node's current certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignRequest {
    /// The node that asks.
    pub node: Name,
    /// The certificate signing request, PEM (RFC 2986). Nothing but its public key counts.
    pub csr: String,
}

/// The certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignResponse {
    /// The chain, PEM, leaf first.
    pub chain: String,
    /// The trust bundle, PEM: the roots that the identities of the mesh are checked against.
    pub bundle: String,
    /// The identity that the certificate carries.
    pub id: SpiffeId,
    /// When it begins to be valid, in seconds since 1970.
    pub not_before: u64,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
}

/// What a token says (its JWT payload, RFC 7519). A node reads `ca` without verifying the signature, which it cannot:
/// it is how the node recognises the control API before it has a trust bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The node that may ask.
    pub sub: Name,
    /// The identity that it gets.
    pub id: SpiffeId,
    /// The SHA-256 of the root certificate's DER, in lower-case hexadecimal.
    pub ca: String,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// What tells it from every other token.
    pub jti: String,
}
