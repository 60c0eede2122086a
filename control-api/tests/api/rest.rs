//! REST: every answer it can give.

use crate::support::{get, mesh, put, rest};
use http::Method;
use serde_json::{Value, json};

fn backend(port: u16) -> Value {
    json!({ "spec": { "endpoints": [{ "address": format!("127.0.0.1:{port}") }] } })
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let mesh = mesh().await;
    let to = mesh.control.rest();

    let created = put(to, "/v1/backends/api", &backend(3000)).await;
    assert_eq!((created.status, &created.body["result"]), (201, &json!("created")));
    assert_eq!(created.headers["etag"], "\"1\"");

    let read = get(to, "/v1/backend/api").await;
    assert_eq!(read.status, 200);
    assert_eq!(read.headers["etag"], "\"1\"");
    let spec = &backend(3000)["spec"];
    assert_eq!(read.body, json!({ "kind": "Backend", "name": "api", "revision": 1, "spec": spec }));

    let changed = put(to, "/v1/BACKENDS/api", &backend(3001)).await;
    assert_eq!((changed.status, &changed.body["revision"]), (200, &json!(2)));
    // What was read can be written back, and says nothing new.
    let unchanged = put(to, "/v1/backends/api", &get(to, "/v1/backends/api").await.body).await;
    assert_eq!((unchanged.status, &unchanged.body["result"]), (200, &json!("unchanged")));
    assert_eq!(unchanged.body["revision"], json!(2));

    let list = get(to, "/v1/backends").await;
    assert_eq!(list.body["revision"], json!(2));
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(get(to, "/v1/resources").await.body, list.body);

    let deleted = rest(to, Method::DELETE, "/v1/backends/api", &[], "").await;
    assert_eq!((deleted.status, &deleted.body["revision"]), (200, &json!(3)));
    assert_eq!(get(to, "/v1/backends/api").await.status, 404);
    assert_eq!(rest(to, Method::DELETE, "/v1/backends/api", &[], "").await.status, 404);
    mesh.control.shutdown().await;
}

#[tokio::test]
async fn a_stale_write_gets_409_with_the_current_revision() {
    let mesh = mesh().await;
    let to = mesh.control.rest();
    let write = async |method, header: (&str, &str), port| {
        rest(to, method, "/v1/backends/api", &[header], backend(port).to_string()).await
    };

    let missing = write(Method::PUT, ("if-match", "\"1\""), 1).await;
    assert_eq!((missing.status, missing.body.get("revision")), (409, None));
    assert_eq!(write(Method::PUT, ("if-match", "*"), 1).await.status, 409);
    assert_eq!(write(Method::PUT, ("if-none-match", "*"), 1).await.status, 201);
    let there = write(Method::PUT, ("if-none-match", "*"), 2).await;
    assert_eq!((there.status, &there.body["revision"]), (409, &json!(1)));
    assert_eq!(write(Method::PUT, ("if-match", "\"1\""), 2).await.status, 200);
    let stale = write(Method::PUT, ("if-match", "\"1\""), 3).await;
    assert_eq!((stale.status, &stale.body["revision"]), (409, &json!(2)));
    assert_eq!(write(Method::DELETE, ("if-match", "\"1\""), 0).await.status, 409);
    assert_eq!(write(Method::PUT, ("if-match", "yesterday"), 3).await.status, 400);
    assert_eq!(write(Method::DELETE, ("if-match", "\"2\""), 0).await.status, 200);
}

#[tokio::test]
async fn what_is_invalid_gets_422_and_names_the_field() {
    let mesh = mesh().await;
    let to = mesh.control.rest();
    let route = json!({ "spec": {
        "listeners": ["web"],
        "rules": [{ "backendRefs": [{ "name": "api" }], "timeouts": { "request": "soon" } }],
    } });
    let answer = put(to, "/v1/httpRoutes/shop", &route).await;
    assert_eq!((answer.status, &answer.body["field"]), (422, &json!("rules[0].timeouts.request")));
    assert!(answer.body["reason"].as_str().unwrap().contains("soon"), "{}", answer.body);
    assert!(answer.body["error"].as_str().unwrap().contains("HTTPRoute/shop"), "{}", answer.body);

    let spec = &backend(3000)["spec"];
    for (body, field) in [
        (json!({ "kind": "Listener", "spec": spec }), "kind"),
        (json!({ "kind": "Cluster", "spec": spec }), "kind"),
        (json!({ "name": "other", "spec": spec }), "name"),
        (json!({ "kind": "Backend" }), "spec"),
        (json!({ "spec": spec, "status": {} }), "status"),
        (json!([spec]), "spec"),
    ] {
        let answer = put(to, "/v1/backends/api", &body).await;
        assert_eq!((answer.status, &answer.body["field"]), (422, &json!(field)), "{body}");
    }
    assert_eq!(put(to, "/v1/backends/API_1", &backend(1)).await.status, 422);
    assert_eq!(get(to, "/v1/resources").await.body["items"], json!([]));
}

#[tokio::test]
async fn what_is_not_json_gets_400_with_its_place() {
    let mesh = mesh().await;
    let body = "{\n  \"spec\": {,\n}";
    let answer = rest(mesh.control.rest(), Method::PUT, "/v1/backends/api", &[], body).await;
    assert_eq!((answer.status, &answer.body["line"], &answer.body["column"]), (400, &json!(2), &json!(12)));
}

#[tokio::test]
async fn paths_methods_sizes_and_origins_that_are_not_for_us_are_turned_down() {
    let mesh = mesh().await;
    let to = mesh.control.rest();
    let unknown = get(to, "/v1/clusters").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body["error"].as_str().unwrap().contains("httpRoutes"), "{}", unknown.body);
    assert_eq!(get(to, "/v2").await.status, 404);
    let method = rest(to, Method::PATCH, "/v1/backends/api", &[], "").await;
    assert_eq!(method.status, 405);
    assert!(method.body["error"].is_string());
    let large = rest(to, Method::PUT, "/v1/backends/api", &[], vec![b' '; (4 << 20) + 1]).await;
    assert_eq!(large.status, 413);
    assert!(large.body["error"].is_string());
    let host = rest(to, Method::GET, "/v1/resources", &[("host", "evil.example")], "").await;
    assert_eq!(host.status, 403);
    let origin = rest(to, Method::GET, "/v1/resources", &[("origin", "https://evil.example")], "").await;
    assert_eq!(origin.status, 403);
    assert!(origin.body["error"].is_string());
    for path in ["/healthz/live", "/healthz/ready"] {
        assert_eq!(get(to, path).await.status, 200);
    }
}

#[tokio::test]
async fn a_list_is_applied_as_one_change_or_not_at_all() {
    let mesh = mesh().await;
    let to = mesh.control.rest();
    let item = |name: &str, spec: Value| json!({ "kind": "Backend", "name": name, "spec": spec });
    let good = backend(3000)["spec"].clone();
    let apply = async |items: Value| rest(to, Method::POST, "/v1/apply", &[], items.to_string()).await;

    let bad = apply(json!([item("a", good.clone()), item("b", json!({ "balanse": {} })), 7])).await;
    assert_eq!(bad.status, 422);
    assert_eq!(bad.body["invalid"].as_array().unwrap().len(), 2);
    assert_eq!(bad.body["invalid"][0]["object"], json!("Backend/b"));
    assert_eq!(apply(json!([item("a", good.clone()), item("a", good.clone())])).await.status, 422);
    assert_eq!(apply(json!({})).await.status, 422);
    assert_eq!(get(to, "/v1/resources").await.body["revision"], json!(0));

    let both = apply(json!([item("a", good.clone()), item("b", good.clone())])).await;
    assert_eq!((both.status, &both.body["revision"]), (200, &json!(1)));
    let revisions: Vec<_> = both.body["items"].as_array().unwrap().iter().map(|i| &i["revision"]).collect();
    assert_eq!(revisions, [1, 1]);
}

#[tokio::test]
async fn a_token_is_made_for_a_node_of_the_mesh_alone() {
    let mesh = mesh().await;
    let to = mesh.control.rest();
    let ask = async |body: Value| rest(to, Method::POST, "/v1/tokens", &[], body.to_string()).await;
    let made = ask(json!({ "node": "web-1", "ttl": "10m" })).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.body["token"].as_str().unwrap().split('.').count(), 3);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 590..now + 610).contains(&made.body["expires"].as_u64().unwrap()));
    for wrong in [
        json!({ "node": "Web 1" }),
        json!({ "node": "web-1", "id": "spiffe://elsewhere/node/web-1" }),
        json!({ "node": "web-1", "ttl": "0s" }),
        json!({ "node": "web-1", "tll": "1h" }),
    ] {
        assert_eq!(ask(wrong.clone()).await.status, 422, "{wrong}");
    }
}
