//! The timing against a scripted lookup and paused time; the rest against a name server on loopback.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::{Addresses, Answer, Doubted, Resolver, follow};

const PATIENCE: Duration = Duration::from_secs(20);

fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|&name| Arc::from(name)).collect()
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn answer(last: u8, seconds: u64) -> Answer {
    Answer { addresses: vec![v4(last)], valid: Duration::from_secs(seconds) }
}

/// Names of which nobody says that they fail.
fn nobody() -> mpsc::Receiver<Doubted> {
    mpsc::channel(1).1
}

/// Waits until exactly these addresses are published.
async fn until(addresses: &mut watch::Receiver<Addresses>, expected: &[(&str, &[IpAddr])]) {
    let expected: BTreeMap<Arc<str>, Vec<IpAddr>> =
        expected.iter().map(|&(name, list)| (Arc::from(name), list.to_vec())).collect();
    let seen = timeout(PATIENCE, addresses.wait_for(|now| **now == expected)).await.is_ok();
    assert!(seen, "wanted {expected:?}, have {:?}", addresses.borrow());
}

/// Follows one name through the outcomes, `None` being a failure: the pauses between the lookups, and what is published at the end.
async fn play(script: Vec<Option<Answer>>) -> (Vec<f64>, Vec<IpAddr>) {
    let (asked, mut asks) = mpsc::unbounded_channel();
    let script = Mutex::new(VecDeque::from(script));
    let lookup = move |_| {
        let (outcome, asked) = (script.lock().unwrap().pop_front(), asked.clone());
        async move {
            asked.send((Instant::now(), outcome.is_none())).ok();
            match outcome {
                Some(outcome) => outcome.ok_or_else(|| "scripted".to_owned()),
                None => std::future::pending().await,
            }
        }
    };
    let (_keep, wanted) = watch::channel(names(&["name"]));
    let (publish, addresses) = watch::channel(Addresses::default());
    tokio::spawn(follow(lookup, wanted, nobody(), publish));
    let (mut last, _) = asks.recv().await.unwrap();
    let mut pauses = Vec::new();
    loop {
        let (now, ended) = asks.recv().await.unwrap();
        pauses.push((now - last).as_secs_f64());
        last = now;
        if ended {
            let published = addresses.borrow()["name"].clone();
            return (pauses, published);
        }
    }
}

fn about(pauses: &[f64], expected: &[f64]) {
    assert_eq!(pauses.len(), expected.len(), "{pauses:?}");
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!((*expected..=expected * 1.1 + 0.01).contains(pause), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_when_its_time_is_over_within_bounds() {
    let (pauses, published) =
        play([(1, 10), (2, 0), (3, 86400), (4, 60)].map(|(a, s)| Some(answer(a, s))).into()).await;
    about(&pauses, &[10.0, 1.0, 300.0, 60.0]);
    assert_eq!(published, [v4(4)]);
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_keep_the_last_addresses() {
    let mut script = vec![Some(answer(1, 5))];
    script.resize(8, None);
    let (pauses, published) = play(script).await;
    about(&pauses, &[5.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    assert_eq!(published, [v4(1)]);

    let (pauses, published) = play(vec![None, None, Some(answer(2, 5)), None]).await;
    about(&pauses, &[1.0, 2.0, 5.0, 1.0]);
    assert_eq!(published, [v4(2)], "a success ends the back-off");
}

#[tokio::test(start_paused = true)]
async fn one_name_does_not_wait_for_another_and_all_can_come_and_go() {
    let lookup = |name: Arc<str>| async move {
        match &*name {
            "slow" => std::future::pending().await,
            "none" => Err("scripted".to_owned()),
            _ => Ok(answer(1, 300)),
        }
    };
    let (want, wanted) = watch::channel(names(&["slow", "none", "good"]));
    let (publish, mut addresses) = watch::channel(Addresses::default());
    let following = tokio::spawn(follow(lookup, wanted, nobody(), publish));
    until(&mut addresses, &[("good", &[v4(1)]), ("none", &[])]).await;

    want.send(names(&["slow", "other"])).unwrap();
    until(&mut addresses, &[("other", &[v4(1)])]).await;
    want.send(names(&["good"])).unwrap();
    until(&mut addresses, &[("good", &[v4(1)])]).await;

    drop(want);
    timeout(PATIENCE, following).await.expect("ends with its last wish").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_name_whose_address_fails_is_looked_up_at_once_but_not_without_pause() {
    let (asked, mut asks) = mpsc::unbounded_channel();
    let lookup = move |_| {
        let asked = asked.clone();
        async move {
            asked.send(Instant::now()).ok();
            Ok(answer(1, 300))
        }
    };
    let (_keep, wanted) = watch::channel(names(&["name"]));
    let (doubt, doubted) = mpsc::channel::<Doubted>(1);
    let (publish, mut addresses) = watch::channel(Addresses::default());
    tokio::spawn(follow(lookup, wanted, doubted, publish));
    until(&mut addresses, &[("name", &[v4(1)])]).await;
    asks.recv().await.unwrap();

    tokio::time::sleep(Duration::from_secs(10)).await;
    let now = Instant::now();
    doubt.send(names(&["name", "stranger"]).into_iter().collect()).await.unwrap();
    let pause = asks.recv().await.unwrap() - now;
    assert!(pause < Duration::from_millis(10), "{pause:?}");
    for _ in 0..3 {
        doubt.send(names(&["name"]).into_iter().collect()).await.unwrap();
    }
    let pause = asks.recv().await.unwrap() - now;
    assert!(pause >= Duration::from_millis(100) && pause < Duration::from_millis(120), "{pause:?}");
    assert!(timeout(Duration::from_secs(299), asks.recv()).await.is_err(), "then by its time to live again");
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_panics_is_a_failed_lookup() {
    let first = Mutex::new(true);
    let lookup = move |_| {
        let panics = std::mem::take(&mut *first.lock().unwrap());
        async move {
            assert!(!panics, "a panic that this test wants");
            Ok(answer(1, 300))
        }
    };
    let (_keep, wanted) = watch::channel(names(&["name"]));
    let (publish, mut addresses) = watch::channel(Addresses::default());
    tokio::spawn(follow(lookup, wanted, nobody(), publish));
    until(&mut addresses, &[("name", &[])]).await;
    until(&mut addresses, &[("name", &[v4(1)])]).await;
}

/// What the name server says; `None` is a server failure.
type Zone = Arc<Mutex<Option<Vec<IpAddr>>>>;

/// A name server with one answer for every name, valid for one second; each query is reported.
async fn name_server(zone: Zone) -> (u16, mpsc::UnboundedReceiver<String>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let (asked, asks) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let reply = reply(&query, zone.lock().unwrap().as_deref());
            socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
            asked.send(query.queries[0].name().to_string()).ok();
        }
    });
    (port, asks)
}

fn reply(query: &Message, zone: Option<&[IpAddr]>) -> Message {
    let question = query.queries[0].clone();
    let mut reply = query.clone().into_response();
    let Some(zone) = zone else {
        reply.metadata.response_code = ResponseCode::ServFail;
        return reply;
    };
    for &address in zone {
        if address.is_ipv4() == (question.query_type() == RecordType::A) {
            reply.add_answer(Record::from_rdata(question.name().clone(), 1, RData::from(address)));
        }
    }
    reply
}

fn files(directory: &Path, port: u16) -> Resolver {
    Resolver::from_files(directory.join("resolv.conf"), directory.join("hosts"), port)
}

#[tokio::test]
async fn an_answer_that_changes_is_followed_and_kept_while_the_server_fails() {
    let zone: Zone = Arc::new(Mutex::new(Some(vec![v4(2), v4(1), Ipv6Addr::LOCALHOST.into()])));
    let (port, mut asks) = name_server(Arc::clone(&zone)).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    let (_keep, wanted) = watch::channel(names(&["api.example.org", "10.9.9.9", "::1"]));
    let mut addresses = files(directory.path(), port).start(wanted, nobody());
    let expect = |list: &[IpAddr]| -> Vec<(&'static str, Vec<IpAddr>)> {
        let literal = |text: &str| vec![text.parse().unwrap()];
        vec![("10.9.9.9", literal("10.9.9.9")), ("::1", literal("::1")), ("api.example.org", list.to_vec())]
    };
    let mut check = async |list: &[IpAddr]| {
        let expected = expect(list);
        let expected: Vec<_> = expected.iter().map(|(name, list)| (*name, list.as_slice())).collect();
        until(&mut addresses, &expected).await;
    };
    check(&[v4(1), v4(2), Ipv6Addr::LOCALHOST.into()]).await;

    let changed = Instant::now();
    *zone.lock().unwrap() = Some(vec![v4(3)]);
    check(&[v4(3)]).await;
    assert!(changed.elapsed() < Duration::from_secs(5), "followed after {:?}", changed.elapsed());

    *zone.lock().unwrap() = None;
    while asks.try_recv().is_ok() {}
    for _ in 0..4 {
        timeout(PATIENCE, asks.recv()).await.expect("asked on while it fails").unwrap();
    }
    check(&[v4(3)]).await;
    *zone.lock().unwrap() = Some(vec![v4(4)]);
    check(&[v4(4)]).await;
}

#[tokio::test]
async fn the_search_list_applies_and_a_changed_resolv_conf_is_read() {
    let (port, mut asks) = name_server(Arc::new(Mutex::new(Some(vec![v4(1)])))).await;
    let directory = tempfile::tempdir().unwrap();
    let (want, wanted) = watch::channel(names(&["api"]));
    // Nothing says who to ask: resolv.conf(5) has 127.0.0.1, which is where the server listens.
    let mut addresses = files(directory.path(), port).start(wanted, nobody());
    until(&mut addresses, &[("api", &[v4(1)])]).await;

    let conf = "nameserver 127.0.0.1\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n";
    std::fs::write(directory.path().join("resolv.conf"), conf).unwrap();
    want.send(names(&["web"])).unwrap();
    until(&mut addresses, &[("web", &[v4(1)])]).await;
    let mut asked = Vec::new();
    while let Ok(name) = asks.try_recv() {
        asked.push(name);
    }
    assert!(asked.contains(&"web.shop.svc.cluster.local.".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn the_hosts_file_and_localhost_need_no_name_server() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("hosts"), "10.0.0.7 db db.shop # the database\nfd00::7 DB\n")
        .unwrap();
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let (_keep, wanted) = watch::channel(names(&["db", "localhost", "shop.localhost", "absent"]));
    let mut addresses = files(directory.path(), closed).start(wanted, nobody());
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let db = [v4(7), "fd00::7".parse().unwrap()];
    until(
        &mut addresses,
        &[("db", &db), ("localhost", &loopback), ("shop.localhost", &loopback), ("absent", &[])],
    )
    .await;
}
