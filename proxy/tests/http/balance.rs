//! Which endpoint takes a request: by a hash, by zone, by priority, and in panic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use outrigger_testkit::app::App;

use crate::support::{Message, PATIENCE, Running, nowhere, poll, with_rule};

async fn apps(count: usize) -> Vec<App> {
    let mut apps = Vec::new();
    for at in 0..count {
        apps.push(App::builder().name(&format!("app-{at}")).start().await);
    }
    apps
}

fn addresses(apps: &[App]) -> Vec<SocketAddr> {
    apps.iter().map(App::address).collect()
}

/// A request with this path and these fields.
async fn ask(proxy: &Running, path: &str, fields: &str) -> Message {
    proxy.ask(&format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")).await
}

fn who(answer: &Message) -> String {
    answer.header("x-app").unwrap()
}

/// A file with these endpoints, each with more fields, and with this in the backend.
fn config(endpoints: &[(SocketAddr, &str)], backend: &str) -> String {
    let endpoints: Vec<_> =
        endpoints.iter().map(|(at, more)| format!("{{ address: '{at}'{more} }}")).collect();
    let whole = with_rule("", backend, &[]);
    whole.replace("endpoints: []", &format!("endpoints: [{}]", endpoints.join(", ")))
}

#[tokio::test]
async fn a_hash_sends_the_same_key_to_the_same_endpoint() {
    let apps = apps(5).await;
    let user = |at: usize| format!("X-User: u{at}\r\n");
    let cookie = |at: usize| format!("Cookie: a=1; user=u{at}\r\n");
    let query = |at: usize| format!("/status/200?a=1&user=u%{:02x}", b'0' + at as u8);
    for kind in ["RingHash", "Maglev"] {
        let balance = format!(
            "balance: {{ type: {kind}, hash: [{{ type: Header, name: x-user }}, {{ type: Cookie, name: user }}, \
             {{ type: QueryParam, name: user }}] }}"
        );
        let file = with_rule("", &balance, &addresses(&apps));
        let proxy = Running::start(&file).await;
        // Another proxy, as on another node, with its endpoints in another order.
        let mut turned = addresses(&apps);
        turned.reverse();
        let other = Running::start(&with_rule("", &balance, &turned)).await;
        let mut met = BTreeSet::new();
        for at in 0..10 {
            let first = who(&ask(&proxy, "/status/200", &user(at)).await);
            for _ in 0..2 {
                assert_eq!(who(&ask(&proxy, "/status/200", &user(at)).await), first, "{kind}");
                assert_eq!(who(&ask(&other, "/status/200", &user(at)).await), first, "{kind}");
                assert_eq!(who(&ask(&proxy, "/status/200", &cookie(at)).await), first, "{kind}");
                assert_eq!(who(&ask(&proxy, &query(at), "").await), first, "{kind}");
            }
            met.insert(first);
        }
        assert!(met.len() > 2, "{kind}: {met:?}");
        // The first key that a request has decides, and one that has none goes anywhere.
        let both = format!("{}{}", user(1), cookie(2));
        assert_eq!(
            who(&ask(&proxy, "/status/200", &both).await),
            who(&ask(&proxy, "/status/200", &user(1)).await)
        );
        let mut anywhere = BTreeSet::new();
        for _ in 0..60 {
            anywhere.insert(who(&ask(&proxy, "/status/200", "").await));
        }
        assert!(anywhere.len() > 2, "{kind}: {anywhere:?}");
    }
}

#[tokio::test]
async fn a_hash_of_the_source_address_keeps_a_caller_with_one_endpoint() {
    let apps = apps(5).await;
    let balance = "balance: { type: Maglev, hash: [{ type: SourceAddress }] }";
    let proxy = Running::start(&with_rule("", balance, &addresses(&apps))).await;
    let first = who(&ask(&proxy, "/status/200", "").await);
    for _ in 0..20 {
        assert_eq!(who(&ask(&proxy, "/status/200", "").await), first);
    }
}

#[tokio::test]
async fn a_key_whose_endpoint_is_gone_goes_to_the_next_and_the_others_stay() {
    for kind in ["RingHash", "Maglev"] {
        let apps = apps(5).await;
        let balance = format!("balance: {{ type: {kind}, hash: [{{ type: Header, name: x-user }}] }}");
        let proxy = Running::start(&with_rule("", &balance, &addresses(&apps))).await;
        let mut before = BTreeMap::new();
        for at in 0..40 {
            before.insert(at, who(&ask(&proxy, "/status/200", &format!("X-User: {at}\r\n")).await));
        }
        apps[0].kill().await;
        let mut taken = BTreeSet::new();
        for (at, app) in &before {
            let now = ask(&proxy, "/status/200", &format!("X-User: {at}\r\n")).await;
            assert_eq!(now.status(), 200);
            if app == "app-0" {
                taken.insert(who(&now));
            } else {
                assert_eq!(who(&now), *app, "{kind}");
            }
        }
        assert!(taken.len() > 1, "{kind}: not all to one neighbour, but to {taken:?}");
    }
}

#[tokio::test]
async fn the_zone_of_this_node_comes_first() {
    let apps = apps(4).await;
    let zones = [", zone: here", ", zone: here", ", zone: here", ", zone: there"];
    let endpoints: Vec<_> = apps.iter().map(App::address).zip(zones).collect();
    for (zone, balance, far) in [
        (Some("here"), "", 0..=0),
        (Some("there"), "", 15..=60),
        (None, "", 15..=60),
        (Some("here"), "balance: { locality: Any }", 15..=60),
    ] {
        let file = config(&endpoints, balance);
        let zone = zone.map(|zone: &str| zone.parse().unwrap());
        let proxy = Running::start_with(&file, |options| options.zone.clone_from(&zone)).await;
        let before = apps[3].requests();
        for _ in 0..100 {
            assert_eq!(ask(&proxy, "/status/200", "").await.status(), 200);
        }
        let got = apps[3].requests() - before;
        assert!(far.contains(&got), "in {zone:?}, {balance}: {got} of 100 to the far one");
    }
}

/// How many of so many requests this application gets.
async fn share(proxy: &Running, app: &App, requests: u64) -> u64 {
    let before = app.requests();
    for _ in 0..requests {
        assert_eq!(ask(proxy, "/status/200", "").await.status(), 200);
    }
    app.requests() - before
}

#[tokio::test]
async fn a_new_endpoint_comes_to_its_share_slowly_where_that_is_wanted() {
    let apps = apps(2).await;
    let all = addresses(&apps);
    for (start, first) in [("slowStart: 3s", 0..=60), ("panicThreshold: 50", 80..=120)] {
        let balance = format!("balance: {{ type: RoundRobin, {start} }}");
        let begun = Instant::now();
        let proxy = Running::start(&with_rule("", &balance, &all[..1])).await;
        while begun.elapsed() < std::time::Duration::from_secs(3) {
            assert_eq!(share(&proxy, &apps[1], 10).await, 0);
        }
        let (file, before) = (with_rule("", &balance, &all), proxy.proxy.revision());
        std::fs::write(&proxy.file, file.replace("127.0.0.1:0", &proxy.at("web").to_string())).unwrap();
        assert!(poll(|| proxy.proxy.revision() > before).await);
        let got = share(&proxy, &apps[1], 200).await;
        assert!(first.contains(&got), "{start}: {got} of the first 200");
        let until = Instant::now() + PATIENCE;
        while share(&proxy, &apps[1], 100).await < 45 {
            assert!(Instant::now() < until, "{start}: it never has its share");
        }
    }
}

#[tokio::test]
async fn a_higher_priority_takes_over_when_the_lower_is_not_well() {
    let apps = apps(2).await;
    let dead = nowhere().await;
    let endpoints = [(dead, ""), (apps[0].address(), ", priority: 1"), (apps[1].address(), ", priority: 2")];
    let proxy = Running::start(&config(&endpoints, "")).await;
    for _ in 0..50 {
        let answer = ask(&proxy, "/status/200", "").await;
        assert_eq!((answer.status(), answer.header("proxy-status")), (200, None));
    }
    assert_eq!(apps[1].requests(), 0, "the second is enough");
    assert_eq!(apps[0].requests(), 50);
}

#[tokio::test]
async fn panic_uses_all_endpoints_and_says_so() {
    let apps = apps(3).await;
    let addresses = addresses(&apps);
    // Two have failed once, and are ejected for it.
    let backend = "balance: { type: RoundRobin, panicThreshold: PERCENT }, \
                   outlierDetection: { consecutiveFailures: 1, maxEjectionPercent: 100 }";
    for (percent, panic) in [("50", true), ("0", false)] {
        let file = with_rule("", &backend.replace("PERCENT", percent), &addresses);
        let proxy = Running::start(&file).await;
        let mut failed = BTreeSet::new();
        while failed.len() < 2 {
            let answer = ask(&proxy, "/status/503", "").await;
            assert_eq!(answer.status(), 503);
            failed.insert(who(&answer));
        }
        let panics = |answer: &Message| {
            let told = answer.header("proxy-status");
            told.is_some_and(|told| told.starts_with("outrigger; details=\"panic"))
        };
        // In the first milliseconds nobody knows.
        let mut first = ask(&proxy, "/status/200", "").await;
        let patience = Instant::now() + PATIENCE;
        while panic && !panics(&first) && Instant::now() < patience {
            first = ask(&proxy, "/status/200", "").await;
        }
        let mut answers = vec![first];
        for _ in 0..29 {
            answers.push(ask(&proxy, "/status/200", "").await);
        }
        let met: BTreeSet<_> = answers.iter().map(who).collect();
        let told = answers.iter().filter(|answer| panics(answer)).count();
        let counted = proxy.metric("outrigger_backend_panic_requests_total", &["backend=\"app\""]);
        if panic {
            assert_eq!((met.len(), told), (3, 30));
            assert!(counted >= 30.0, "{counted}");
        } else {
            assert_eq!((met.len(), told, counted), (1, 0, 0.0));
        }
    }
}
