//! What takes a request, and why the rules near it do not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use http::HeaderMap;
use outrigger_config::explain::{Asked, Explanation, Unexplained, explain};
use outrigger_config::{Kind, Snapshot, file};

const FILE: &str = "
listeners:
  - { name: web, address: '127.0.0.1:8080', protocol: HTTP, http: { path: { encodedSlash: Refuse } } }
  - { name: other, address: '127.0.0.1:8081', protocol: HTTP }
  - { name: db, address: '127.0.0.1:5432', protocol: TCP }
  - { name: tls, address: '127.0.0.1:8443', protocol: TLS, tls: { mode: Passthrough } }
  - { name: out, address: '127.0.0.1:15001', direction: Outbound }
tlsRoutes:
  - { name: vault, listeners: [tls, out], hostnames: [vault.test], rules: [{ backendRefs: [{ name: api, weight: 3 }, { name: gone }] }] }
tcpRoutes: [{ name: bytes, listeners: [db], rules: [{ name: all, backendRefs: [{ name: api }] }] }]
httpRoutes:
  - name: shop
    listeners: [web]
    hostnames: [shop.localhost]
    rules:
      - name: canary
        matches: [{ path: { value: /api }, headers: [{ name: x-env, value: canary }] }]
        backendRefs: [{ name: api-canary }]
      - name: api
        matches: [{ path: { type: Exact, value: /never } }, { path: { value: /api } }]
        filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { remove: [x-a] } }]
        backendRefs: [{ name: api, weight: 9 }, { name: api-canary, weight: 1 }]
        timeouts: { request: 10s }
        retry: { attempts: 2, codes: [503] }
      - name: post
        matches: [{ path: { value: /api }, method: POST }]
      - name: search
        matches: [{ path: { value: /api }, queryParams: [{ name: q, type: RegularExpression, value: '[a-z]+' }] }]
      - { name: rest }
  - { name: wild, listeners: [web], hostnames: ['*.localhost'], rules: [{ matches: [{ path: { value: /api } }] }, {}] }
  - { name: far, listeners: [web], hostnames: [example.org], rules: [{}] }
  - { name: younger, listeners: [web], hostnames: [shop.localhost], rules: [{ matches: [{ path: { value: /api } }] }] }
  - { name: elsewhere, listeners: [other], hostnames: [only.localhost], rules: [{}] }
grpcRoutes:
  - name: greeter
    listeners: [web]
    hostnames: [grpc.localhost]
    rules:
      - { name: hello, matches: [{ method: { service: demo.Greeter, method: Hello } }] }
      - { name: any, matches: [{ method: { method: Bye } }] }
backends:
  - { name: api, endpoints: [{ address: '127.0.0.1:3000' }] }
";

fn asked(request: &str) -> Asked {
    let mut lines = request.lines();
    let (method, url) = lines.next().unwrap().split_once(' ').unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers: HeaderMap =
        headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Asked { method: method.parse().unwrap(), url: url.parse().unwrap(), headers, listener: None }
}

fn explained(request: &str) -> Explanation {
    let file = file::parse(FILE).unwrap();
    assert_eq!(file.rejected, []);
    let snapshot = Snapshot::build(1, file.resources.into_iter().map(Into::into));
    explain(&snapshot, &asked(request)).unwrap()
}

/// `ROUTE/RULE: why not`, in order.
fn near(explanation: &Explanation) -> Vec<String> {
    explanation.near.iter().map(|near| format!("{}/{}: {}", near.route, near.rule, near.because)).collect()
}

#[test]
fn the_rule_that_takes_it_and_what_it_does() {
    let explanation = explained("GET http://Shop.localhost:8080/x/../api/%7e?q=1\nx-env: prod");
    assert_eq!(explanation.listener.as_str(), "web");
    assert_eq!((&*explanation.host, &*explanation.path), ("shop.localhost", "/api/~"));
    let taken = explanation.taken.as_ref().unwrap();
    assert_eq!((taken.route.as_str(), &*taken.rule, &*taken.by), ("shop", "api", "path `/api` or below it"));
    let parts: Vec<_> = taken.backends.iter().map(|p| (p.backend.as_str(), p.percent, p.known)).collect();
    assert_eq!(parts, [("api", 90.0, true), ("api-canary", 10.0, false)]);
    assert_eq!(taken.filters, ["RequestHeaderModifier"]);
    assert_eq!(taken.timeouts.request.unwrap().to_string(), "10s");
    assert_eq!(taken.retry.as_ref().unwrap().attempts, 2);
    assert_eq!(
        near(&explanation),
        [
            "shop/rest: matches too, but its path is less specific",
            "younger/0: matches too, but its route comes later by name",
            "shop/search: query parameter q: wanted like `[a-z]+`, got `1`",
            "shop/canary: header x-env: wanted exactly `canary`, got `prod`",
            "shop/post: method: wanted POST, got GET",
            "wild/0: host: routes of a more specific one than `*.localhost` come first",
        ]
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(serde_json::from_value::<Explanation>(json).unwrap(), explanation);
}

#[test]
fn what_is_missing_is_said() {
    let explanation = explained("GET http://shop.localhost:8080/api");
    assert!(
        near(&explanation).contains(&"shop/canary: header x-env: wanted exactly `canary`, got none".into())
    );
    assert!(
        near(&explanation).contains(&"shop/search: query parameter q: wanted like `[a-z]+`, got none".into())
    );
    let explanation = explained("GET http://shop.localhost:8080/ap");
    let paths = near(&explanation);
    assert!(paths.contains(&"younger/0: path: wanted `/api` or below it, got `/ap`".into()), "{paths:?}");
}

#[test]
fn nothing_takes_it() {
    let explanation = explained("GET http://exemple.org:8080/");
    assert_eq!(explanation.taken, None);
    assert_eq!(near(&explanation), ["far/0: host: wanted `example.org`, got `exemple.org`"]);
    let explanation = explained("GET http://a.test:8080/api/x");
    assert_eq!(explanation.taken, None);
    assert!(near(&explanation).contains(&"wild/0: host: wanted `*.localhost`, got `a.test`".into()));
    assert_eq!(explained("GET http://shop.localhost:8080/a%2fb").refused.unwrap(), {
        "the path has an encoded slash (%2F), which this listener refuses"
    });
}

#[test]
fn the_listener_is_the_one_of_the_port_or_one_that_takes_it() {
    assert_eq!(explained("GET http://only.localhost/").listener.as_str(), "other");
    assert_eq!(explained("GET http://only.localhost:8080/").listener.as_str(), "web");
    assert_eq!(explained("GET http://nobody.test/").listener.as_str(), "other");
    // The header counts, as it does for the proxy.
    assert_eq!(explained("GET http://127.0.0.1/\nhost: shop.localhost").listener.as_str(), "web");
    let empty = Snapshot::default();
    assert_eq!(explain(&empty, &asked("GET http://a/")), Err(Unexplained::NoListener));
    let named = Asked { listener: Some("web".into()), ..asked("GET http://a/") };
    assert_eq!(explain(&empty, &named), Err(Unexplained::NoSuchListener("web".into())));
}

#[test]
fn calls_of_grpc_are_told_by_what_they_are() {
    let call = "POST http://grpc.localhost:8080/demo.Greeter/Hello\ncontent-type: application/grpc";
    let explanation = explained(call);
    let taken = explanation.taken.as_ref().unwrap();
    assert_eq!((taken.kind, &*taken.rule), (Kind::GrpcRoute, "hello"));
    assert_eq!(taken.by, "path exactly `/demo.Greeter/Hello`, a call of gRPC");
    let because = "greeter/any: call: wanted a call of gRPC of the method `Bye`, got `/demo.Greeter/Hello`, \
                   content-type application/grpc";
    assert_eq!(near(&explanation), [because]);
    let plain = explained("POST http://grpc.localhost:8080/demo.Greeter/Hello");
    assert_eq!(plain.taken, None);
    assert!(near(&plain)[0].ends_with("got `/demo.Greeter/Hello`, content-type none"), "{:?}", plain.near);
}

#[test]
fn where_a_listener_does_not_look_for_http_the_connection_is_explained() {
    let told = |request: &str| {
        let explanation = explained(request);
        let taken = explanation.taken.as_ref().map(|taken| {
            let parts: Vec<_> =
                taken.backends.iter().map(|p| (p.backend.as_str(), p.percent, p.known)).collect();
            format!("{} {}/{} by {} {parts:?}", taken.kind, taken.route, taken.rule, taken.by)
        });
        assert!(explanation.opaque && explanation.near.is_empty(), "{explanation:?}");
        (explanation.listener.to_string(), taken, explanation.passes)
    };
    let vault =
        "TLSRoute vault/0 by the server name `vault.test` [(\"api\", 75.0, true), (\"gone\", 25.0, false)]";
    let bytes = "TCPRoute bytes/all by any connection [(\"api\", 100.0, true)]";
    assert_eq!(told("GET http://a.test:5432/x"), ("db".into(), Some(bytes.into()), false));
    assert_eq!(told("GET https://Vault.test:8443/x"), ("tls".into(), Some(vault.into()), false));
    assert_eq!(told("GET https://a.test:8443/x\nhost: vault.test"), ("tls".into(), None, false));
    assert_eq!(told("GET https://vault.test:15001/"), ("out".into(), Some(vault.into()), false));
    assert_eq!(told("GET https://a.test:15001/"), ("out".into(), None, true));
}

#[test]
fn captured_traffic_that_nothing_takes_goes_where_it_was_addressed() {
    let explanation = explained("GET http://a.test:15001/");
    assert_eq!((explanation.listener.as_str(), explanation.taken), ("out", None));
    assert!(explanation.passes && !explanation.opaque);
    assert!(!explained("GET http://a.test:8080/").passes);
}
