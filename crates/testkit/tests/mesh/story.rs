use outrigger_config::Kind;
use outrigger_testkit::mesh::Mesh;
use serde_json::json;

#[tokio::test]
async fn a_request_goes_from_sidecar_to_sidecar() {
    let mesh = Mesh::start().await.unwrap();
    let api = mesh.app("api").start().await.unwrap();
    let web = mesh.sidecar("web").start().await.unwrap();
    mesh.put(Kind::Backend, "api", json!({ "endpoints": [api.sidecar.endpoint()] })).await.unwrap();
    let route =
        json!({ "listeners": [web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
    let revision = mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
    mesh.settled(revision).await.unwrap();
    let mut caller = web.caller();
    let started = std::time::Instant::now();
    for _ in 0..1000 {
        let answer = caller.get("api", "/x").await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.app(), "api");
    }
    println!("1000 requests: {:?}", started.elapsed());
}
