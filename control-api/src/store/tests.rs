//! Writes are all or none, in order, and on disk when they are answered.

use outrigger_config::Kind;
use serde_json::json;

use super::*;

fn backend(name: &str, port: u16) -> Arc<Resource> {
    let spec = json!({ "endpoints": [{ "address": format!("127.0.0.1:{port}") }] });
    Arc::new(Resource::parse(Kind::Backend, name, spec).unwrap())
}

fn key(name: &str) -> Key {
    Key { kind: Kind::Backend, name: name.parse().unwrap() }
}

fn put(name: &str, port: u16) -> Change {
    Change::Put(backend(name, port), Condition::Any)
}

#[tokio::test]
async fn several_changes_are_made_under_one_revision_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store.redb")).unwrap();
    let outcomes = store.write(vec![put("a", 1), put("b", 2)]).await.unwrap();
    assert_eq!(outcomes.iter().map(|outcome| outcome.revision).collect::<Vec<_>>(), [1, 1]);

    let refused = store.write(vec![put("a", 9), Change::Delete(key("c"), Condition::Any)]).await;
    assert_eq!(refused, Err(WriteError::Missing(key("c"))));
    let world = store.world();
    assert_eq!((world.revision, world.objects()[&key("a")].revision), (1, 1));

    let mixed = store.write(vec![put("a", 1), put("b", 3)]).await.unwrap();
    assert_eq!(mixed[0], Outcome { key: key("a"), revision: 1, done: Done::Unchanged });
    assert_eq!(mixed[1], Outcome { key: key("b"), revision: 2, done: Done::Changed });
    store.close().await;
}

#[tokio::test]
async fn conditions_see_the_writes_before_them_in_the_same_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store.redb")).unwrap();
    // All of these are waiting at once, so that most of them go to disk together.
    let only_one = |port| store.write(vec![Change::Put(backend("a", port), Condition::Absent)]);
    let (one, two, three) = tokio::join!(only_one(1), only_one(2), only_one(3));
    let made = [one, two, three].into_iter().flatten().count();
    assert_eq!((made, store.world().revision), (1, 1));
    let stale = store.write(vec![Change::Put(backend("a", 9), Condition::Revision(7))]).await;
    assert_eq!(stale, Err(WriteError::Stale { key: key("a"), current: Some(1) }));
    store.close().await;
}

#[tokio::test]
async fn everything_is_there_after_the_store_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(OpenError::InUse(_))));
    store.write(vec![put("a", 1), put("b", 1)]).await.unwrap();
    store.write(vec![Change::Delete(key("a"), Condition::Any)]).await.unwrap();
    let (node, id) = ("web-1".parse().unwrap(), "spiffe://outrigger.local/node/web-1".parse().unwrap());
    store.bind(Name::clone(&node), SpiffeId::clone(&id)).await.unwrap();
    let before = store.world();
    assert!(before.is_bound(&node, &id));
    store.close().await;
    assert_eq!(store.write(vec![put("c", 1)]).await, Err(WriteError::Closed));
    assert!(!store.is_open());

    let again = Store::open(&path).unwrap();
    let after = again.world();
    assert_eq!((&after.store, after.revision), (&before.store, 2));
    assert_eq!(after.objects().keys().collect::<Vec<_>>(), [&key("b")]);
    assert_eq!(after.objects()[&key("b")].revision, 1);
    assert!(after.is_bound(&node, &id));
    again.close().await;
}

#[test]
fn what_is_no_store_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    std::fs::write(&path, vec![7u8; 8192]).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains("store.redb") && error.contains("cannot be used"), "{error}");
    assert!(Store::open(folder.path()).unwrap_err().to_string().contains("directory"));
}

/// Of two routes that match as well, the older takes the request (Gateway API, `HTTPRouteRule.matches`).
#[tokio::test]
async fn a_route_keeps_the_time_at_which_it_first_came() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    let route = |listener: &str, made: Option<&str>| {
        let spec = json!({ "listeners": [listener], "creationTimestamp": made, "rules": [{}] });
        Change::Put(Arc::new(Resource::parse(Kind::HttpRoute, "shop", spec).unwrap()), Condition::Any)
    };
    let key = Key { kind: Kind::HttpRoute, name: "shop".parse().unwrap() };
    let made = |store: &Store| store.world().objects()[&key].resource.creation_timestamp();

    store.write(vec![route("web", None)]).await.unwrap();
    let first = made(&store);
    assert!(first.is_some());
    let same = store.write(vec![route("web", None)]).await.unwrap();
    assert_eq!(same[0].done, Done::Unchanged);
    store.close().await;

    let store = Store::open(&path).unwrap();
    let changed = store.write(vec![route("other", None)]).await.unwrap();
    assert_eq!((changed[0].done, made(&store)), (Done::Changed, first));
    store.write(vec![route("other", Some("2020-01-01T00:00:00Z"))]).await.unwrap();
    store.write(vec![route("web", None)]).await.unwrap();
    assert_eq!(made(&store).unwrap().to_string(), "2020-01-01T00:00:00Z");
    store.close().await;
}
