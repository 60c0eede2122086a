//! The file: what it accepts, and how it says where it is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use outrigger_config::{File, Kind, file};
use proptest::prelude::*;

const DESIGN: &str = include_str!("files/design.yaml");

/// Everything that is rejected, as `outrigger check` prints it.
fn rejected(file: &File) -> Vec<String> {
    file.rejected.iter().map(ToString::to_string).collect()
}

fn warnings(file: &File) -> Vec<String> {
    file.warnings.iter().map(ToString::to_string).collect()
}

fn names(file: &File) -> Vec<&str> {
    file.resources.iter().map(|resource| resource.name.as_str()).collect()
}

/// A listener and a route whose one rule is `rule`, which begins in line 4 at column 16.
fn with_rule(rule: &str) -> String {
    format!(
        "listeners: [{{ name: web, address: 127.0.0.1:80 }}]\nhttpRoutes:\n  - {{ name: shop, listeners: [web],\n      rules: [ {rule} ] }}\n"
    )
}

#[test]
fn the_designs_example_is_right() {
    let file = file::parse(DESIGN).unwrap();
    assert_eq!(rejected(&file), [""; 0]);
    assert_eq!(warnings(&file), [""; 0]);
    assert_eq!(file.admin, Some("127.0.0.1:15000".parse().unwrap()));
    let kinds: Vec<Kind> = file.resources.iter().map(outrigger_config::Resource::kind).collect();
    let count = |kind| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!(Kind::ALL.map(count), [3, 1, 0, 0, 1, 6, 1]);
}

#[test]
fn what_is_wrong_in_a_rule_is_shown_where_it_stands() {
    for (rule, expected) in [
        (
            "{ timeouts: { requst: 10s } }",
            "4:30: timeouts.requst: unknown field `requst`: did you mean `request`?",
        ),
        (
            "{ timeouts: { request: 10 } }",
            "4:39: timeouts.request: expected a duration, such as 250ms or 10s, found the number `10`",
        ),
        (
            "{ timeouts: { request: 1s, backendRequest: 2s } }",
            "4:59: timeouts.backendRequest: 2s is longer than timeouts.request, 1s: make it shorter, or equal",
        ),
        (
            "{ matches: [{ path: { value: api } }] }",
            "4:36: matches[0].path: `api` is not a path: it must begin with `/`",
        ),
        (
            "{ matches: [{ path: { type: Prefix, value: /api } }] }",
            "4:44: matches[0].path.type: unknown value `Prefix`: did you mean `PathPrefix`?",
        ),
        (
            "{ matches: [{ method: get }] }",
            "4:38: matches[0].method: `get` is not a method: write it in upper case, such as GET",
        ),
        (
            "{ retry: { codes: [503, 200] } }",
            "4:40: retry.codes[1]: 200 is out of range: it must be 400 to 599",
        ),
        ("{ retry: { attempts: 101 } }", "4:37: retry.attempts: 101 is out of range: it must be 0 to 100"),
        (
            "{ backendRefs: [{ name: a, weight: 1000001 }] }",
            "4:51: backendRefs[0].weight: 1000001 is out of range: it must be 0 to 1000000",
        ),
        ("{ backendRefs: [{ weight: 1 }] }", "4:32: backendRefs[0]: missing field `name`"),
        (
            "{ filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: a, value: 1 }] } }] }",
            "4:108: filters[0].requestHeaderModifier.set[0].value: expected text, found the number `1`: put it in quotes",
        ),
        (
            "{ filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { remove: [Transfer-Encoding] } }] }",
            "4:93: filters[0].requestHeaderModifier.remove[0]: `transfer-encoding` frames the message: it cannot be changed",
        ),
        (
            "{ filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { add: [{ name: Host, value: b }] } }] }",
            "4:98: filters[0].requestHeaderModifier.add[0].name: a request has one `host`, and has it already: use set",
        ),
        (
            "{ filters: [{ type: ResponseHeaderModifier, requestHeaderModifier: {} }] }",
            "4:28: filters[0]: a filter of type ResponseHeaderModifier has the field responseHeaderModifier, and no other",
        ),
        (
            "{ timeouts: { request: 1s, request: 2s } }",
            "4:43: timeouts.request: given twice, first in line 4: keep one of them",
        ),
        ("{ name: !secret a }", "4:32: name: the tag !secret is not supported: leave it out"),
    ] {
        is_rejected(rule, expected);
    }
}

#[test]
fn what_is_wrong_in_a_filter_is_shown_where_it_stands() {
    for (rule, expected) in [
        (
            "{ filters: [{ type: URLRewrite, requestRedirect: {} }] }",
            "4:28: filters[0]: a filter of type URLRewrite has the field urlRewrite, and no other",
        ),
        (
            "{ filters: [{ type: Cors, cors: {} }] }",
            "4:36: filters[0].type: unknown value `Cors`: did you mean `CORS`?",
        ),
        (
            "{ filters: [{ type: RequestRedirect, requestRedirect: {} }], backendRefs: [{ name: a }] }",
            "4:90: backendRefs: not allowed beside the filter RequestRedirect, which answers every request",
        ),
        (
            "{ filters: [{ type: FixedResponse, fixedResponse: {} }], backendRefs: [{ name: a }] }",
            "4:86: backendRefs: not allowed beside the filter FixedResponse, which answers every request",
        ),
        (
            "{ filters: [{ type: URLRewrite, urlRewrite: {} }, { type: RequestRedirect, requestRedirect: {} }] }",
            "4:74: filters[1].type: RequestRedirect is not allowed beside URLRewrite: keep one of them",
        ),
        (
            "{ backendRefs: [{ name: a, filters: [{ type: CORS, cors: {} }, { type: CORS, cors: {} }] }] }",
            "4:87: backendRefs[0].filters[1].type: a second filter of this type: put both into one",
        ),
        (
            "{ matches: [{ path: { type: Exact, value: /a } }], filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /b } } }] }",
            "4:165: filters[0].urlRewrite.path.replacePrefixMatch: needs a rule with exactly one match, by PathPrefix: it says which prefix is replaced",
        ),
        (
            "{ matches: [{}, {}], backendRefs: [{ name: a, filters: [{ type: RequestRedirect, requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /b } } }] }] }",
            "4:170: backendRefs[0].filters[0].requestRedirect.path.replacePrefixMatch: needs a rule with exactly one match, by PathPrefix: it says which prefix is replaced",
        ),
        (
            "{ filters: [{ type: URLRewrite, urlRewrite: { hostname: '*.example' } }] }",
            "4:72: filters[0].urlRewrite.hostname: a wildcard is not a host: write one",
        ),
        (
            "{ filters: [{ type: RequestRedirect, requestRedirect: { statusCode: 304 } }] }",
            "4:84: filters[0].requestRedirect.statusCode: 304 is not a redirection: use 301, 302, 303, 307 or 308",
        ),
        (
            "{ filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: a }, percent: 1, fraction: { numerator: 1 } } }] }",
            "4:115: filters[0].requestMirror.fraction: not allowed beside percent: keep one of them",
        ),
        (
            "{ filters: [{ type: CORS, cors: { allowOrigins: ['*', 'https://a'] } }] }",
            "4:65: filters[0].cors.allowOrigins[0]: `*` stands for all: leave out either it or the others",
        ),
        (
            "{ filters: [{ type: CORS, cors: { allowOrigins: [shop.example] } }] }",
            "4:65: filters[0].cors.allowOrigins[0]: `shop.example` is not an origin: write http:// or https:// and a host, with a port if it is not the scheme's own",
        ),
        (
            "{ filters: [{ type: Fault, fault: {} }] }",
            "4:50: filters[0].fault: does nothing: give it a delay, an abort, or both",
        ),
        (
            "{ filters: [{ type: Fault, fault: { abort: { percent: 1 } } }] }",
            "4:59: filters[0].fault.abort: missing: status, or grpcStatus",
        ),
        (
            "{ filters: [{ type: FixedResponse, fixedResponse: { status: 204, body: a } }] }",
            "4:87: filters[0].fixedResponse.body: a response with status 204 has none",
        ),
    ] {
        is_rejected(rule, expected);
    }
}

/// A route with this rule is rejected, with `LINE:COLUMN: FIELD: REASON`, and the rest lives.
fn is_rejected(rule: &str, expected: &str) {
    let file = file::parse(&with_rule(rule)).unwrap();
    let (place, rest) = expected.split_once(": ").unwrap();
    assert_eq!(rejected(&file), [format!("{place}: httpRoutes[0].rules[0].{rest}")], "{rule}");
    let [rejected] = &file.rejected[..] else { unreachable!() };
    assert_eq!(rejected.key.as_ref().unwrap().to_string(), "HTTPRoute/shop");
    assert_eq!(rejected.object, "httpRoutes `shop`");
    assert_eq!(names(&file), ["web"]);
}

#[test]
fn what_is_right_lives_beside_what_is_wrong() {
    let file = file::parse(include_str!("files/wrong.yaml")).unwrap();
    let expected: Vec<&str> = include_str!("files/wrong.txt").lines().collect();
    assert_eq!(rejected(&file), expected);
    assert_eq!(names(&file), ["a", "web", "right"]);
    assert_eq!(file.admin, None);
}

#[test]
fn what_is_most_likely_not_meant_is_a_warning() {
    let file = file::parse(
        "listeners:
- { name: web, address: '127.0.0.1:0', protocol: HTTPS, tls: { certificateRefs: [{ name: c }] } }
- { name: db, address: '127.0.0.1:0', protocol: TCP }
httpRoutes:
- { name: shop, listeners: [web, gone, db], rules: [{ backendRefs: [{ name: api }] }] }
tcpRoutes:
- { name: b, listeners: [db], rules: [{ backendRefs: [{ name: wrong }] }] }
- { name: a, listeners: [db, web], rules: [{ backendRefs: [{ name: wrong }] }] }
backends:
- { name: wrong, endpoints: [{}] }
",
    )
    .unwrap();
    assert_eq!(rejected(&file), ["10:30: backends[0].endpoints[0]: missing field `address`"]);
    assert_eq!(
        warnings(&file),
        [
            "2:90: listeners[0].tls.certificateRefs[0].name: there is no certificate `c`",
            "5:34: httpRoutes[0].listeners[1]: there is no listener `gone`",
            "5:40: httpRoutes[0].listeners[2]: listener `db` speaks no HTTP: this route takes nothing from it",
            "5:77: httpRoutes[0].rules[0].backendRefs[0].name: there is no backend `api`",
            "7:26: tcpRoutes[0].listeners[0]: tcpRoutes `a` takes the connections of listener `db` already",
            "8:30: tcpRoutes[1].listeners[1]: listener `web` speaks HTTP alone: this route takes nothing from it",
        ]
    );
}

#[test]
fn what_has_no_effect_as_it_stands_is_a_warning() {
    let warned = |backend: &str| {
        let file = file::parse(&format!("backends: [{{ name: b, {backend} }}]\n")).unwrap();
        assert_eq!(rejected(&file), [""; 0], "{backend}");
        warnings(&file)
    };
    const TWO: &str = "endpoints: [{ address: '10.0.0.1:80' }, { address: '10.0.0.2:80' }]";
    for (fields, at) in [
        ("limits: { waiting: 5 }", "limits.waiting: has no effect: nothing is limited"),
        ("limits: { requests: 5, waitTimeout: 1s }", "limits.waitTimeout: has no effect"),
        ("limits: { requests: 5, waiting: 0, waitTimeout: 1s }", "limits.waitTimeout: has no effect"),
        (
            "balance: { type: Maglev, hash: [{ type: SourceAddress }], slowStart: 1s }",
            "balance.slowStart: has no effect",
        ),
        ("timeouts: { tlsHandshake: 1s }", "timeouts.tlsHandshake: has no effect: there is no TLS"),
        ("tls: { hostname: a.b }, timeouts: { tlsHandshake: 5s }", "has no effect: connectTimeout"),
        ("outlierDetection: { successRate: {} }", "`minEndpoints` is 5, and there are 2"),
        ("outlierDetection: { latency: {} }", "`minEndpoints` is 3, and there are 2"),
    ] {
        let said = warned(&format!("{TWO}, {fields}"));
        assert!(said.len() == 1 && said[0].contains(at), "{fields}: {said:?}");
    }
    let one = warned("endpoints: [{ address: '10.0.0.1:80' }], outlierDetection: {}");
    assert!(one.len() == 1 && one[0].contains("the only endpoint"), "{one:?}");
    for fields in [
        "endpoints: [{ address: 'shop.test:80' }], outlierDetection: { successRate: {} }",
        "endpoints: [{ address: 'shop.test:80' }], limits: { connections: 5, waiting: 5, waitTimeout: 1s }",
        "endpoints: [{ address: 'shop.test:80' }], limits: { adaptive: {}, waiting: 5 }",
        "endpoints: [{ address: 'shop.test:80' }], tls: { hostname: a.b }, timeouts: { tlsHandshake: 1s }",
    ] {
        assert_eq!(warned(fields), [""; 0]);
    }
}

#[test]
fn a_retry_that_never_comes_is_a_warning() {
    let warned = |kind: &str, rule: &str| {
        let text = format!(
            "listeners: [{{ name: web, address: '127.0.0.1:0' }}]\n\
             {kind}: [{{ name: shop, listeners: [web], rules: [{{ {rule} }}] }}]\n"
        );
        let file = file::parse(&text).unwrap();
        assert_eq!(rejected(&file), [""; 0], "{rule}");
        warnings(&file)
    };
    for (kind, rule, at) in [
        (
            "httpRoutes",
            "retry: { attempts: 0, codes: [503] }",
            "retry.codes: has no effect: with `attempts: 0`",
        ),
        (
            "httpRoutes",
            "timeouts: { request: 1s }, retry: { hedgeDelay: 1s }",
            "retry.hedgeDelay: has no effect: by then timeouts.request",
        ),
        (
            "httpRoutes",
            "timeouts: { request: 9s, backendRequest: 1s }, retry: { hedgeDelay: 2s }",
            "by then timeouts.backendRequest",
        ),
        ("grpcRoutes", "retry: { hedgeDelay: 1s }", "a call of gRPC is a POST"),
    ] {
        let said = warned(kind, rule);
        assert!(said.len() == 1 && said[0].contains(at), "{rule}: {said:?}");
    }
    for rule in [
        "retry: { attempts: 0 }",
        "retry: { hedgeDelay: 1s }",
        "timeouts: { request: 0s }, retry: { hedgeDelay: 1s }",
        "timeouts: { request: 2s }, retry: { hedgeDelay: 1s }",
    ] {
        assert_eq!(warned("httpRoutes", rule), [""; 0]);
    }
}

#[test]
fn json_is_read_too() {
    let json = r#"{ "listeners": [ { "name": "web",	"address": "127.0.0.1:0" } ], "backends": [ { "name": "b", "endpints": [] } ] }"#;
    let file = file::parse(json).unwrap();
    assert_eq!(names(&file), ["web"]);
    assert_eq!(
        rejected(&file),
        ["1:94: backends[0].endpints: unknown field `endpints`: did you mean `endpoints`?"]
    );
}

#[test]
fn words_that_old_yaml_took_for_booleans_are_text() {
    let file = file::parse(&with_rule("{ matches: [{ headers: [{ name: on, value: no }] }] }")).unwrap();
    assert_eq!(rejected(&file), [""; 0]);
}

#[test]
fn aliases_stand_for_what_they_name() {
    let file = file::parse(
        "backends:
- { name: a, endpoints: &all [{ address: '127.0.0.1:1' }], connectTimeout: 1s }
- { name: b, endpoints: *all }
- { name: c, endpoints: *all, connectTimeout: 0s }
",
    )
    .unwrap();
    assert_eq!(names(&file), ["a", "b"]);
    assert_eq!(
        rejected(&file),
        ["4:47: backends[2].connectTimeout: must be longer than 0s; leave it out for 5s"]
    );
}

#[test]
fn what_is_no_configuration_is_unreadable() {
    let laughs: String = (1..12).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
        let alias = format!("*a{}", n - 1);
        text + &format!("a{n}: &a{n} [{}]\n", [alias.as_str(); 10].join(", "))
    });
    for (text, expected) in [
        ("", "1:1: there is nothing in it"),
        ("# nothing\n", "1:1: there is nothing in it"),
        ("- a\n", "1:1: a configuration is an object with keys such as `listeners`"),
        (
            "listeners: []\n---\nlisteners: []\n",
            "3:1: a second document: a file has one, without `---` between",
        ),
        (&laughs, "7:20: too many values: split the file, or use fewer aliases"),
    ] {
        assert_eq!(file::parse(text).unwrap_err().to_string(), expected);
    }
    let broken = file::parse("listeners:\n  - { name: web, address: [ }\n").unwrap_err();
    assert_eq!(broken.line, 2);
    let deep = "[".repeat(200) + &"]".repeat(200);
    assert!(file::parse(&deep).is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String) {
        let _ = file::parse(&text);
    }

    /// The design's example with one piece cut out and another put in: mostly still YAML.
    #[test]
    fn any_change_to_a_file_is_read_or_refused(
        from in 0..DESIGN.len(), length in 0usize..40, piece in r#"[-a-z:{}\[\]&*!"'| \n0-9]{0,12}"#,
    ) {
        let mut text = DESIGN.as_bytes().to_vec();
        let to = (from + length).min(text.len());
        text.splice(from..to, piece.bytes());
        if let Ok(file) = file::parse(&String::from_utf8_lossy(&text)) {
            let lines = text.split(|byte| *byte == b'\n').count();
            for rejected in file.rejected.iter().chain(&file.warnings) {
                prop_assert!((1..=lines).contains(&(rejected.line as usize)) && rejected.column > 0);
            }
        }
    }
}
