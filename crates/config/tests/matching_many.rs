//! Many rules that differ in one thing only: the right one is found, as if each had been compared, and the cost does
//! not grow with their number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::format_collect, missing_docs)]

use std::time::Instant;

use http::{HeaderMap, HeaderName, Method};
use outrigger_config::{Found, Head, Snapshot, file};
use proptest::prelude::*;

/// One route for each match, all at one listener.
fn snapshot(matches: &[String]) -> Snapshot {
    let routes: String = matches
        .iter()
        .enumerate()
        .map(|(n, one)| {
            format!("- {{ name: r{n:05}, listeners: [web], rules: [{{ matches: [{{ {one} }}] }}] }}\n")
        })
        .collect();
    let yaml = format!("listeners:\n- {{ name: web, address: '127.0.0.1:0' }}\nhttpRoutes:\n{routes}");
    let file = file::parse(&yaml).unwrap();
    assert_eq!(file.rejected, []);
    Snapshot::build(1, file.resources.into_iter().map(Into::into))
}

/// A request: method, path, query, and one value each of the headers `h0`, `h1` …
type Request = (Method, String, Option<String>, Vec<(HeaderName, String)>);

fn find(snapshot: &Snapshot, (method, path, query, fields): &Request) -> Option<usize> {
    let headers: HeaderMap =
        fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
    let head = Head { host: "a", path, query: query.as_deref(), method, headers: &headers };
    snapshot.listeners[0].http.find(&head).map(|Found { rule, .. }| rule)
}

/// A match: path, method, headers and parameters, each with whether its value is an expression.
#[derive(Debug, Clone)]
struct Match {
    path: (&'static str, &'static str),
    method: Option<&'static str>,
    headers: Vec<(usize, bool, &'static str)>,
    query: Vec<(usize, bool, &'static str)>,
}

impl Match {
    fn yaml(&self) -> String {
        let values = |list: &[(usize, bool, &str)], prefix: &str| -> String {
            list.iter()
                .map(|(n, expression, value)| {
                    let kind = if *expression { "RegularExpression" } else { "Exact" };
                    format!("{{ name: {prefix}{n}, type: {kind}, value: '{value}' }},")
                })
                .collect()
        };
        let method = self.method.map(|method| format!("method: {method},")).unwrap_or_default();
        format!(
            "path: {{ type: {}, value: '{}' }}, {method} headers: [{}], queryParams: [{}]",
            self.path.0,
            self.path.1,
            values(&self.headers, "h"),
            values(&self.query, "q")
        )
    }

    /// Its rank for a request, if it matches.
    fn rank(&self, (method, path, query, fields): &Request) -> Option<((u8, usize), bool, usize, usize)> {
        let is = |expression: bool, wanted: &str, value: &str| {
            if expression {
                regex::Regex::new(&format!("^(?:{wanted})$")).unwrap().is_match(value)
            } else {
                wanted == value
            }
        };
        let path_rank = match self.path {
            ("Exact", wanted) => (wanted == path).then_some((2, wanted.len())),
            ("RegularExpression", wanted) => is(true, wanted, path).then_some((1, wanted.len())),
            (_, "/") => Some((0, 0)),
            (_, wanted) => {
                let rest = path.strip_prefix(wanted)?;
                (rest.is_empty() || rest.starts_with('/')).then_some((0, wanted.len()))
            }
        }?;
        let pairs: Vec<(String, String)> =
            form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()).into_owned().collect();
        let query = |(n, expression, wanted): &(usize, bool, &str)| {
            pairs
                .iter()
                .find(|(name, _)| *name == format!("q{n}"))
                .is_some_and(|(_, value)| is(*expression, wanted, value))
        };
        let header = |(n, expression, wanted): &(usize, bool, &str)| {
            let value = fields.iter().find(|(name, _)| name.as_str() == format!("h{n}"));
            value.is_some_and(|(_, value)| is(*expression, wanted, value))
        };
        let all = self.method.is_none_or(|wanted| *method == wanted)
            && self.headers.iter().all(header)
            && self.query.iter().all(query);
        all.then_some((path_rank, self.method.is_some(), self.headers.len(), self.query.len()))
    }
}

fn any_match() -> impl Strategy<Value = Match> {
    let path = prop::sample::select(vec![
        ("PathPrefix", "/"),
        ("PathPrefix", "/"),
        ("PathPrefix", "/x"),
        ("Exact", "/x"),
        ("RegularExpression", "/x.?"),
        ("RegularExpression", "/[xyz]+"),
        ("RegularExpression", "/xy|/xz.*"),
        ("RegularExpression", ".*"),
    ]);
    let value = || {
        prop::sample::select(vec![
            (false, "a"),
            (false, "b"),
            (false, "c"),
            (false, ""),
            (true, "[ab]"),
            (true, "b.*"),
            (true, "(?i)A"),
        ])
    };
    let values = || {
        prop::collection::btree_map(0usize..3, value(), 0..3)
            .prop_map(|map| map.into_iter().map(|(n, (kind, value))| (n, kind, value)).collect())
    };
    let method = prop::option::of(prop::sample::select(vec!["GET", "PUT"]));
    (path, method, values(), values()).prop_map(|(path, method, headers, query)| Match {
        path,
        method,
        headers,
        query,
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    let value = || prop::sample::select(vec!["a", "b", "bb", "c", "A", ""]);
    let headers = prop::collection::btree_map(0usize..6, value(), 0..4);
    let query = prop::option::of(prop::collection::vec((0usize..3, value()), 0..3));
    let path = prop::sample::select(vec!["/", "/x", "/xy", "/xzx", "/z", "/x/y"]);
    (prop::sample::select(vec![Method::GET, Method::PUT]), path, query, headers).prop_map(
        |(method, path, query, headers)| {
            let query =
                query.map(|q| q.iter().map(|(n, v)| format!("q{n}={v}")).collect::<Vec<_>>().join("&"));
            let headers = headers.into_iter().map(|(n, v)| (format!("h{n}").parse().unwrap(), v.to_owned()));
            (method, path.to_owned(), query, headers.collect())
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_is_found_as_if_every_match_was_compared(
        matches in prop::collection::vec(any_match(), 0..60),
        requests in prop::collection::vec(any_request(), 1..12),
    ) {
        let yaml: Vec<String> = matches.iter().map(Match::yaml).collect();
        let snapshot = snapshot(&yaml);
        for request in requests {
            // Of expressions of one length, the one that came first stands before the other with all its matches.
            let first = |one: &Match| {
                let at = matches.iter().position(|other| other.path == one.path);
                if one.path.0 == "RegularExpression" { std::cmp::Reverse(at) } else { std::cmp::Reverse(None) }
            };
            let expected = matches
                .iter()
                .enumerate()
                .filter_map(|(n, one)| {
                    let (path, method, headers, query) = one.rank(&request)?;
                    Some(((path, first(one), method, headers, query), n))
                })
                .max_by(|(a, m), (b, n)| a.cmp(b).then(n.cmp(m)));
            prop_assert_eq!(find(&snapshot, &request), expected.map(|(_, n)| n), "{:?}", request);
        }
    }
}

/// How long a request takes, at the least, of those that the routes take.
fn least(count: usize, route: fn(usize) -> String, request: &dyn Fn(usize) -> Request) -> f64 {
    let matches: Vec<String> = (0..count).map(route).collect();
    let snapshot = snapshot(&matches);
    let requests: Vec<Request> = (0..200).map(|n| n * 7919 % count).map(request).collect();
    let heads: Vec<(HeaderMap, &Request)> = requests
        .iter()
        .map(|request| {
            (request.3.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect(), request)
        })
        .collect();
    let round = || {
        let started = Instant::now();
        for (headers, (method, path, query, _)) in &heads {
            let head = Head { host: "a", path, query: query.as_deref(), method, headers };
            assert!(snapshot.listeners[0].http.find(std::hint::black_box(&head)).is_some());
        }
        started.elapsed().as_secs_f64()
    };
    (0..20).map(|_| round()).fold(f64::MAX, f64::min)
}

/// What routes differ in, the n-th of them, and a request that it takes.
type Shape<'a> = (&'a str, fn(usize) -> String, &'a dyn Fn(usize) -> Request);

/// 100 times as many routes: if they were compared one by one, it would take about 100 times as long.
#[test]
fn many_routes_cost_about_as_much_as_few() {
    let header = |n: usize| vec![("x-tenant".parse().unwrap(), format!("t{n}"))];
    let get = |path: &str| (Method::GET, path.to_owned(), None, Vec::new());
    let shapes: [Shape<'_>; 5] = [
        ("path", |n| format!("path: {{ value: /service-{n} }}"), &|n| get(&format!("/service-{n}/x"))),
        ("method", |n| format!("method: M{n}"), &|n| {
            (Method::from_bytes(format!("M{n}").as_bytes()).unwrap(), "/".to_owned(), None, Vec::new())
        }),
        ("header", |n| format!("headers: [{{ name: x-tenant, value: t{n} }}]"), &|n| {
            (Method::GET, "/".to_owned(), None, header(n))
        }),
        ("query", |n| format!("queryParams: [{{ name: t, value: t{n} }}]"), &|n| {
            (Method::GET, "/".to_owned(), Some(format!("a=1&t=t{n}")), Vec::new())
        }),
        (
            "expression",
            |n| format!("path: {{ type: RegularExpression, value: '/service-{n}/[0-9]+' }}"),
            &|n| get(&format!("/service-{n}/17")),
        ),
    ];
    for (name, route, request) in shapes {
        let (few, many) = (least(10, route, request), least(1000, route, request));
        assert!(many < 30.0 * few, "by {name}: {many} s with 1000 routes, {few} s with 10");
    }
}
