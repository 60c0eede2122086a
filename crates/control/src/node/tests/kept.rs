//! What is kept on disk: a restart while the control API is away, and files that were meddled with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::api::{Api, Realm, id};
use super::{Node, STEADY, backend, dir, pair};
use crate::message::FromNode;
use crate::node::state::State;

/// Where nothing answers.
const NOWHERE: &str = "https://127.0.0.1:1";

fn file(dir: &TempDir, name: &str) -> PathBuf {
    dir.path().join("state").join(name)
}

/// Runs a node that ends when it has applied one backend at revision 1.
async fn kept(realm: &Arc<Realm>) -> TempDir {
    let dir = dir();
    let (_api, mut node, mut session) = pair(realm, &dir, STEADY).await;
    session.hear().await;
    session.welcome("s1").await;
    session.put(1, "Backend", "web", backend(1)).await;
    session.commit(1).await;
    assert!(node.connected().await);
    node.applied().await;
    node.end().await;
    dir
}

#[tokio::test]
async fn a_node_starts_from_what_it_last_applied() {
    let realm = Realm::new();
    let dir = kept(&realm).await;
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.path().join("state")), 0o700);
    assert_eq!(mode(file(&dir, "state.sealed")), 0o600);
    assert_eq!(mode(file(&dir, "seal.key")), 0o600);
    let sealed = fs::read(file(&dir, "state.sealed")).unwrap();
    let shown = String::from_utf8_lossy(&sealed);
    assert!(!shown.contains("PRIVATE") && !shown.contains("127.0.0.1"));

    let mut node = Node::start(NOWHERE, &dir, None, STEADY);
    assert_eq!(node.identity().await.id(), &id());
    assert_eq!(node.applied().await, "1: Backend/web:1 (0)");
    drop(node);

    let mut api = Api::start(&realm, None).await;
    let mut node = Node::start(&api.url(), &dir, None, STEADY);
    node.identity().await;
    node.applied().await;
    let mut session = api.session().await;
    let FromNode::Hello { store, revision, have, .. } = session.hear().await else {
        panic!("the first line is a hello")
    };
    assert_eq!((store.as_deref(), revision, have.get("Backend/web")), (Some("s1"), 1, Some(&1)));
    session.welcome("s1").await;
    assert!(node.connected().await);
    assert_eq!(session.commit(1).await, []);
    session.put(2, "Backend", "web", backend(2)).await;
    assert_eq!(session.commit(2).await, []);
    assert_eq!(node.applied().await, "2: Backend/web:2 (0)", "what it had was not applied twice");
}

#[tokio::test]
async fn a_file_that_was_meddled_with_is_put_aside() {
    let realm = Realm::new();
    for meddle in [
        (|file: &mut Vec<u8>| *file.last_mut().unwrap() ^= 1) as fn(&mut Vec<u8>),
        |file| file[20] ^= 1,
        |file| file.truncate(25),
        |file| file.clear(),
        |file| file[0] ^= 1,
    ] {
        let dir = kept(&realm).await;
        let path = file(&dir, "state.sealed");
        let mut sealed = fs::read(&path).unwrap();
        meddle(&mut sealed);
        fs::write(&path, sealed).unwrap();
        let error = Node::start(NOWHERE, &dir, None, STEADY).error().await;
        assert!(error.contains("has no certificate yet"), "{error}");
        assert!(!path.exists() && file(&dir, "state.sealed.broken").exists());

        let api = Api::start(&realm, None).await;
        let mut node = Node::start(&api.url(), &dir, Some(&realm.token()), STEADY);
        assert_eq!(node.identity().await.id(), &id(), "it starts afresh");
    }
}

#[tokio::test]
async fn a_file_of_another_key_or_node_is_put_aside() {
    let realm = Realm::new();
    let dir = kept(&realm).await;
    fs::remove_file(file(&dir, "seal.key")).unwrap();
    let error = Node::start(NOWHERE, &dir, None, STEADY).error().await;
    assert!(error.contains("has no certificate yet"), "{error}");
    assert!(file(&dir, "state.sealed.broken").exists());

    let dir = kept(&realm).await;
    let (_, saved) = State::open(&dir.path().join("state"), &"b".parse().unwrap()).unwrap();
    assert!(saved.identity.is_none() && saved.objects.is_empty());
    assert!(file(&dir, "state.sealed.broken").exists());
}

/// A token that leads elsewhere is a wish to be somebody else, or a new control API.
#[tokio::test]
async fn a_token_for_another_root_is_used_at_once() {
    let dir = kept(&Realm::new()).await;
    let realm = Realm::new();
    let mut api = Api::start(&realm, None).await;
    let mut node = Node::start(&api.url(), &dir, Some(&realm.token()), STEADY);
    let old = node.identity().await;
    node.applied().await;
    let new = node.identity().await;
    assert_ne!(old.bundle_pem(), new.bundle_pem());
    assert!(matches!(api.session().await.hear().await, FromNode::Hello { revision: 1, .. }));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_ends_it() {
    let dir = dir();
    fs::write(dir.path().join("state"), "a file").unwrap();
    let error = Node::start(NOWHERE, &dir, Some("e30.e30.e30"), STEADY).error().await;
    assert!(
        error.contains("the state cannot be kept in") && error.contains("name another folder"),
        "{error}"
    );
}
