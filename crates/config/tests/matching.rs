//! Which rule takes a request: the Gateway API's precedence, and what a request may look like.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::format_collect, missing_docs)]

use http::{HeaderMap, HeaderName, Method};
use outrigger_config::path::normalize;
use outrigger_config::{Found, Head, Snapshot, file};
use proptest::prelude::*;

/// Routes attached to one listener, written as the objects under `httpRoutes`, without the listener.
fn snapshot(routes: &str) -> Snapshot {
    let mut file = file::parse(&format!(
        "listeners:\n- {{ name: web, address: '127.0.0.1:0' }}\nhttpRoutes:\n{}",
        routes.trim().replace("- {", "- { listeners: [web],")
    ))
    .unwrap();
    assert_eq!(file.rejected, []);
    Snapshot::build(1, file.resources.drain(..).map(Into::into))
}

/// `METHOD URL` and header lines, as the route and rule that take it.
fn find(snapshot: &Snapshot, request: &str) -> String {
    match found(snapshot, request) {
        Some(Found { rule, .. }) => {
            format!("{}/{}", snapshot.http_rules[rule].route, snapshot.http_rules[rule].rule)
        }
        None => "nothing".to_owned(),
    }
}

fn found(snapshot: &Snapshot, request: &str) -> Option<Found> {
    let mut lines = request.lines();
    let (method, url) = lines.next().unwrap().split_once(' ').unwrap();
    let (host, target) = url.split_at(url.find(['/', '*']).unwrap());
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let headers: HeaderMap = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        });
    let method: Method = method.parse().unwrap();
    let path = normalize(path, snapshot.listeners[0].spec.http.path).unwrap();
    let head = Head { host, path: &path, query, method: &method, headers: &headers };
    snapshot.listeners[0].http.find(&head)
}

#[track_caller]
fn assert_found(snapshot: &Snapshot, expected: &[(&str, &str)]) {
    for (request, rule) in expected {
        assert_eq!(find(snapshot, request), *rule, "{request}");
    }
}

#[test]
fn the_most_specific_host_takes_it_alone() {
    let snapshot = snapshot(
        "
- { name: any, rules: [{}] }
- { name: wide, hostnames: ['*.example'], rules: [{}] }
- { name: near, hostnames: ['*.shop.example'], rules: [{}] }
- { name: exact, hostnames: [www.shop.example], rules: [{ matches: [{ path: { value: /a } }] }] }
",
    );
    assert_found(
        &snapshot,
        &[
            ("GET www.shop.example/a", "exact/0"),
            ("GET WWW.Shop.Example:8080/a", "exact/0"),
            ("GET www.shop.example./a", "exact/0"),
            ("GET www.shop.example.:80/a", "exact/0"),
            // Committed to the most specific host, although the wildcards would take it.
            ("GET www.shop.example/b", "nothing"),
            ("GET api.shop.example/", "near/0"),
            ("GET v1.api.shop.example/", "near/0"),
            ("GET shop.example/", "wide/0"),
            // A wildcard stands for one label at least.
            ("GET example/", "any/0"),
            ("GET .example/", "any/0"),
            ("GET notexample/", "any/0"),
            ("GET [::1]:80/", "any/0"),
            ("GET /", "any/0"),
        ],
    );
}

#[test]
fn exact_paths_then_expressions_then_the_longest_prefix() {
    let snapshot = snapshot(
        "
- { name: shop, rules: [
    { name: root, matches: [{ path: { value: / } }] },
    { name: api, matches: [{ path: { value: /api } }] },
    { name: slashed, matches: [{ path: { value: /slashed/ } }] },
    { name: v1, matches: [{ path: { value: /api/v1 } }] },
    { name: exact, matches: [{ path: { type: Exact, value: /api/v1/x } }, { path: { type: Exact, value: /y/ } }] },
    { name: short, matches: [{ path: { type: RegularExpression, value: '/api/.*z' } }] },
    { name: long, matches: [{ path: { type: RegularExpression, value: '/api/v[0-9]+/z' } }] }] }
",
    );
    assert_found(
        &snapshot,
        &[
            ("GET a/", "shop/root"),
            ("GET a/other", "shop/root"),
            ("GET a/apix", "shop/root"),
            ("GET a/api", "shop/api"),
            ("GET a/api/", "shop/api"),
            ("GET a/api?x=/api/v1", "shop/api"),
            ("GET a/api/v1", "shop/v1"),
            ("GET a/api/v1/", "shop/v1"),
            ("GET a/api/v1/x", "shop/exact"),
            ("GET a/api/v1/x/", "shop/v1"),
            ("GET a/y/", "shop/exact"),
            ("GET a/y", "shop/root"),
            ("GET a/slashed", "shop/slashed"),
            ("GET a/slashed/x", "shop/slashed"),
            ("GET a/api/v1/z", "shop/long"),
            ("GET a/api/v1/zz", "shop/short"),
            ("GET a/api/v1/z/x", "shop/v1"),
            ("GET a//api", "shop/root"),
            ("OPTIONS a*", "shop/root"),
        ],
    );
}

#[test]
fn methods_then_headers_then_parameters_break_ties() {
    let snapshot = snapshot(
        "
- { name: b, rules: [
    { name: plain },
    { name: query, matches: [{ queryParams: [{ name: a, value: '1' }] }] },
    { name: queries, matches: [{ queryParams: [{ name: a, value: '1' }, { name: b, value: x y }] }] },
    { name: header, matches: [{ headers: [{ name: X-Env, value: canary }] }] },
    { name: headers, matches: [{ headers: [{ name: x-env, value: canary },
                                           { name: x-id, type: RegularExpression, value: '[0-9]+' }] }] },
    { name: post, matches: [{ method: POST }] }] }
- { name: a, rules: [
    { name: late, matches: [{ path: { value: /tie } }, { path: { type: Exact, value: /tie2 } }] },
    { name: later, matches: [{ path: { value: /tie } }] }] }
- { name: c, rules: [{ name: tie, matches: [{ path: { value: /tie } }] }] }
",
    );
    assert_found(
        &snapshot,
        &[
            ("GET h/", "b/plain"),
            ("GET h/?a=1", "b/query"),
            ("GET h/?x&a=1&a=2", "b/query"),
            ("GET h/?a=2&a=1", "b/plain"),
            ("GET h/?%61=%31&b=x+y", "b/queries"),
            ("GET h/?b=x%20y&a=1", "b/queries"),
            ("GET h/?a=1\nx-env: canary", "b/header"),
            ("GET h/\nx-env: Canary", "b/plain"),
            ("GET h/\nx-env: canary\nx-id: 7", "b/headers"),
            ("GET h/\nx-env: canary\nx-id: a7", "b/header"),
            ("GET h/\nx-env: canary\nx-env: b", "b/plain"),
            ("POST h/\nx-env: canary\nx-id: 7", "b/post"),
            ("GET h/tie", "a/late"),
            ("GET h/tie2", "a/late"),
        ],
    );
}

#[test]
fn lines_of_a_header_are_one_list() {
    let snapshot =
        snapshot("- { name: a, rules: [{ matches: [{ headers: [{ name: x, value: 'a,b,c' }] }] }] }");
    assert_found(
        &snapshot,
        &[("GET h/\nx: a\nx: b,c", "a/0"), ("GET h/\nx: a,b,c", "a/0"), ("GET h/\nx: b\nx: a,c", "nothing")],
    );
    let method = Method::GET;
    let mut headers = HeaderMap::new();
    headers.insert("x", http::HeaderValue::from_bytes(b"\xff").unwrap());
    let head = Head { host: "h", path: "/", query: None, method: &method, headers: &headers };
    assert_eq!(snapshot.listeners[0].http.find(&head), None);
}

#[test]
fn a_listener_without_routes_has_an_empty_table() {
    let empty = snapshot("");
    assert!(empty.listeners[0].http.is_empty());
    assert_eq!(find(&empty, "GET h/"), "nothing");
}

/// Long and odd requests cost little: what no key is as long as is not even hashed.
#[test]
fn long_hosts_and_paths_are_walked_once() {
    let snapshot = snapshot(
        "- { name: a, hostnames: ['*.example'], rules: [{ matches: [{ path: { value: /x/y } }] }] }",
    );
    let method = Method::GET;
    let headers = HeaderMap::new();
    let (host, path) = ("a.".repeat(100_000) + "example", "/x/y".to_owned() + &"/".repeat(100_000));
    let head = Head { host: &host, path: &path, query: None, method: &method, headers: &headers };
    assert_eq!(snapshot.listeners[0].http.find(&head), Some(Found { rule: 0, matched: 0, prefix: 4 }));
}

/// A rule of the model below: hosts, then path, method and headers of its one match.
type Rule = (Vec<&'static str>, Option<(&'static str, &'static str)>, Option<&'static str>, usize);

/// What the documentation of `matching` says, word by word, by comparing the request with every rule.
fn naive(rules: &[Rule], host: &str, path: &str, method: &str, headers: usize) -> Option<usize> {
    let host_rank = |(hosts, ..): &Rule| {
        let suits = |pattern: &&str| match pattern.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => *pattern == host,
        };
        let rank = |pattern: &str| (!pattern.starts_with('*'), pattern.len());
        if hosts.is_empty() {
            Some((false, 0))
        } else {
            hosts.iter().copied().filter(|h| suits(h)).map(rank).max()
        }
    };
    let path_rank = |(_, wanted, ..): &Rule| match wanted.unwrap_or(("PathPrefix", "/")) {
        ("Exact", value) => (value == path).then_some((2, value.len())),
        ("RegularExpression", value) => {
            (path.starts_with(value.trim_end_matches(".*"))).then_some((1, value.len()))
        }
        (_, prefix) => {
            let prefix = prefix.trim_end_matches('/');
            let below =
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            below.then_some((0, prefix.len()))
        }
    };
    let committed = rules.iter().filter_map(host_rank).max()?;
    let candidates = rules.iter().enumerate().filter(|(_, rule)| host_rank(rule) == Some(committed));
    candidates
        .filter(|(_, rule)| rule.2.is_none_or(|wanted| wanted == method) && rule.3 <= headers)
        .filter_map(|(index, rule)| Some(((path_rank(rule)?, rule.2.is_some(), rule.3), index)))
        .max_by(|(a, m), (b, n)| a.cmp(b).then(n.cmp(m)))
        .map(|(_, index)| index)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let hosts = prop::sample::subsequence(vec!["a.b", "c.a.b", "*.b", "*.a.b", "*.c.a.b"], 0..3);
    let path = prop::option::of(prop_oneof![
        prop::sample::select(vec!["/", "/x", "/x/y", "/xy", "/x/y/z"]).prop_map(|path| ("PathPrefix", path)),
        prop::sample::select(vec!["/", "/x", "/x/", "/x/y"]).prop_map(|path| ("Exact", path)),
        prop::sample::select(vec!["/x.*", "/x/y.*"]).prop_map(|path| ("RegularExpression", path)),
    ]);
    (hosts, path, prop::option::of(prop::sample::select(vec!["GET", "PUT"])), 0usize..3)
}

proptest! {
    #[test]
    fn it_is_found_as_if_every_rule_was_compared(
        rules in prop::collection::vec(any_rule(), 0..12),
        host in prop::sample::select(vec!["b", "a.b", "c.a.b", "d.c.a.b", "x"]),
        path in prop::sample::select(vec!["/", "/x", "/x/", "/x/y", "/x/yy", "/x/y/z/", "/xy", "/z"]),
        method in prop::sample::select(vec!["GET", "PUT"]),
        headers in 0usize..3,
    ) {
        let routes: String = rules.iter().enumerate().map(|(n, (hosts, path, method, headers))| {
            let path = path.map(|(kind, value)| serde_json::json!({ "type": kind, "value": value }));
            let headers: Vec<_> = (0..*headers).map(|n| serde_json::json!({ "name": format!("h{n}"), "value": "" })).collect();
            let mut one = serde_json::json!({ "path": path, "method": method, "headers": headers });
            one.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            format!("- {{ name: r{n:02}, hostnames: {}, rules: [{{ matches: [{one}] }}] }}\n", serde_json::json!(hosts))
        }).collect();
        let lines: String = (0..headers).map(|n| format!("\nh{n}: ")).collect();
        let expected = naive(&rules, host, path, method, headers)
            .map_or_else(|| "nothing".to_owned(), |n| format!("r{n:02}/0"));
        prop_assert_eq!(find(&snapshot(&routes), &format!("{method} {host}{path}{lines}")), expected);
    }
}

#[test]
fn http_route_precedence_by_age_then_name() {
    let snapshot = snapshot(
        "
- { name: a, rules: [{}] }
- { name: b, creationTimestamp: '2026-01-02T00:00:00Z', rules: [{}, { matches: [{ method: GET }] }] }
- { name: d, creationTimestamp: '2026-01-01T00:00:00Z', rules: [{}] }
- { name: c, creationTimestamp: '2026-01-01T01:00:00+01:00', rules: [{ matches: [{ path: { value: /x } }] }, {}] }
",
    );
    // The younger one with a method is more specific; of the two of the same age the first by name; with no time last.
    assert_found(&snapshot, &[("GET a/", "b/1"), ("POST a/", "c/1"), ("POST a/x", "c/0")]);
}

#[test]
fn a_path_is_found_in_all_its_spellings() {
    let snapshot = snapshot(
        "
- { name: a, rules: [
    { name: tilde, matches: [{ path: { value: /%7euser/ } }] },
    { name: space, matches: [{ path: { type: Exact, value: /a%c3%a9%20 } }] },
    { name: expression, matches: [{ path: { type: RegularExpression, value: '/n[0-9]~' } }] }] }
",
    );
    assert_found(
        &snapshot,
        &[
            ("GET h/~user", "a/tilde"),
            ("GET h/%7Euser/x", "a/tilde"),
            ("GET h/x/../%7eus%65r", "a/tilde"),
            ("GET h/~user/../x", "nothing"),
            ("GET h/~user%2F..", "nothing"),
            ("GET h/a%C3%A9%20", "a/space"),
            ("GET h/aé ", "a/space"),
            ("GET h/./n%31%7e", "a/expression"),
        ],
    );
}

#[test]
fn what_took_a_request_is_told() {
    let snapshot = snapshot(
        "
- { name: a, rules: [
    { matches: [{ path: { type: Exact, value: /x } }, { path: { value: /api/v1/ } }, { path: { value: / }, method: PUT }] },
    { matches: [{ path: { type: RegularExpression, value: '/y.*' } }] },
    {}] }
",
    );
    for (request, expected) in [
        ("GET h/x", (0, 0, 0)),
        ("GET h/api/v1/y", (0, 1, 7)),
        ("GET h/api/v1", (0, 1, 7)),
        ("PUT h/z", (0, 2, 0)),
        ("GET h/yz", (1, 0, 0)),
        ("GET h/z", (2, 0, 0)),
    ] {
        let found = found(&snapshot, request).map(|found| (found.rule, found.matched, found.prefix));
        assert_eq!(found, Some(expected), "{request}");
    }
}
