//! The parts of each scenario: loads, subjects, lengths. The lengths are such that all that has a target takes some
//! twelve minutes, and two with `--quick`.

use std::time::Duration;

use super::{AGAIN, Config, Contender, Contestant, Memory, Name, Part, Timing, Turns, Wanted, Work};
use crate::{
    load::{Arrivals, Connect, Load, Tls, Traffic},
    subject::{Hops, Kind, Setup},
};

/// Requests in a second at which latency and memory are measured.
pub const RATE: f64 = 1000.0;
/// Requests in a second where a proxy shares a core with the load.
const SHARED_RATE: f64 = 10_000.0;
/// Connections of most loads.
const CONNECTIONS: u32 = 32;
/// HTTP/2 shares a connection: as many requests under way as elsewhere, on fewer connections.
const STREAMS: u32 = 8;
/// Rates of [`Name::Curve`].
const RATES: [f64; 8] = [1e3, 5e3, 1e4, 1.5e4, 2e4, 3e4, 4e4, 6e4];
const QUICK_RATES: [f64; 4] = [1e3, 1e4, 2e4, 4e4];
const SEED: u64 = 1;

/// The parts of `name`, in the order in which they are done.
pub fn of(name: Name, wanted: &Wanted) -> Vec<Part> {
    let parts = match name {
        Name::Plain => plain(wanted),
        Name::Http2 => vec![http2(wanted)],
        Name::Grpc => vec![grpc(wanted)],
        Name::Mesh => vec![mesh(wanted)],
        Name::Latency => vec![latency(wanted)],
        Name::Curve => vec![curve(wanted)],
        Name::Memory => memory(wanted),
        Name::Start => vec![start(wanted)],
        Name::Config => vec![config(wanted)],
        Name::Workers => vec![workers(wanted)],
        Name::Features => vec![features(wanted)],
        Name::Protocols => protocols(wanted),
        Name::Faults => {
            let time = wanted.duration.unwrap_or(pick(wanted, 5.0, 1.5));
            vec![part(name, "", "Requests that fail while things change under load", Work::Faults { time })]
        }
        Name::Custom => vec![custom(wanted)],
    };
    parts.into_iter().map(|part| adjust(part, wanted)).collect()
}

fn part(scenario: Name, suffix: &str, title: &str, work: Work) -> Part {
    Part { scenario, name: format!("{scenario}{suffix}"), title: title.into(), work }
}

fn turns(loads: Vec<Load>, contenders: Vec<Contender>, timing: Timing) -> Work {
    Work::Turns(Turns { loads, contenders, timing })
}

/// What was asked for on the command line comes last.
fn adjust(mut part: Part, wanted: &Wanted) -> Part {
    let change = |load: &mut Load| *load = wanted.load.apply(load.clone());
    match &mut part.work {
        Work::Turns(turns) => {
            turns.loads.iter_mut().for_each(change);
            // A sweep over rates is none where they are all the same.
            turns.loads.dedup();
            let load = turns.loads.first();
            for (contender, load) in turns.contenders.iter_mut().zip(std::iter::repeat(load)) {
                if let Some(load) = load {
                    contender.setup.traffic = load.traffic;
                    contender.setup.tls = load.tls != Tls::Off;
                }
            }
            turns.timing.sample = wanted.duration.unwrap_or(turns.timing.sample);
            turns.timing.repetitions = wanted.repetitions.unwrap_or(turns.timing.repetitions);
        }
        Work::Config(config) => {
            change(&mut config.load);
            config.times = wanted.repetitions.unwrap_or(config.times);
        }
        Work::Start { times, .. } => *times = wanted.repetitions.unwrap_or(*times),
        Work::Memory(_) | Work::Faults { .. } => {}
    }
    part
}

fn pick(wanted: &Wanted, seconds: f64, quick: f64) -> Duration {
    Duration::from_secs_f64(if wanted.quick { quick } else { seconds })
}

/// Of what is compared by CPU per request. Six repetitions are the fewest that give an interval of 95%, three those that
/// give one at all ([`stats`](crate::result::stats)).
fn saturated_timing(wanted: &Wanted) -> Timing {
    timing(wanted, (0.2, 0.8), (0.1, 0.35))
}

fn timing(wanted: &Wanted, seconds: (f64, f64), quick: (f64, f64)) -> Timing {
    Timing {
        warm_up: pick(wanted, seconds.0, quick.0),
        sample: pick(wanted, seconds.1, quick.1),
        back: !wanted.quick,
        repetitions: if wanted.quick { 3 } else { 6 },
    }
}

fn saturated(traffic: Traffic, request_bytes: usize, response_bytes: usize) -> Load {
    let shared = matches!(traffic, Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream);
    Load {
        traffic,
        arrivals: Arrivals::Saturated,
        connections: if shared { CONNECTIONS / STREAMS } else { CONNECTIONS },
        streams: if shared { STREAMS } else { 1 },
        request_bytes,
        response_bytes,
        connect: Connect::Keep,
        tls: Tls::Off,
        seed: SEED,
    }
}

pub(super) fn at_rate(rate: f64) -> Load {
    Load { arrivals: Arrivals::Poisson { rate }, ..saturated(Traffic::Http1, 0, 64) }
}

fn plain(wanted: &Wanted) -> Vec<Part> {
    [("", 64, "64 B"), ("-1k", 1024, "1 KiB")]
        .map(|(suffix, bytes, size)| {
            let load = saturated(Traffic::Http1, 0, bytes);
            let mut who = vec![forwarder(wanted)];
            who.extend([outrigger(wanted), again(outrigger(wanted))]);
            who.extend(peers(wanted, Hops::One));
            let title = format!(
                "HTTP/1.1, {CONNECTIONS} connections that are kept, GET with responses of {size}, saturated: CPU per request"
            );
            part(Name::Plain, suffix, &title, turns(vec![load], who, saturated_timing(wanted)))
        })
        .into()
}

fn http2(wanted: &Wanted) -> Part {
    let load = saturated(Traffic::Http2, 0, 64);
    let mut who = vec![forwarder(wanted), outrigger(wanted), again(outrigger(wanted))];
    who.extend(peers(wanted, Hops::One));
    let title = "HTTP/2 on both sides, 4 connections with 8 streams each, responses of 64 B, saturated: CPU per request";
    part(Name::Http2, "", title, turns(vec![load], who, saturated_timing(wanted)))
}

fn grpc(wanted: &Wanted) -> Part {
    let load = saturated(Traffic::Grpc, 64, 64);
    let mut who = vec![forwarder(wanted), outrigger(wanted), again(outrigger(wanted))];
    who.extend(peers(wanted, Hops::One));
    let title = "Unary gRPC, 4 connections with 8 streams each, messages of 64 B both ways, saturated: CPU per request";
    part(Name::Grpc, "", title, turns(vec![load], who, saturated_timing(wanted)))
}

fn mesh(wanted: &Wanted) -> Part {
    let load = saturated(Traffic::Http1, 0, 64);
    let mut who = vec![sidecars(wanted), again(sidecars(wanted))];
    who.extend(peers(wanted, Hops::Two));
    let title = "Two proxies with mutual TLS between them, HTTP/1.1 outside, 32 connections, responses of 64 B, \
        saturated: CPU per request of both together";
    part(Name::Mesh, "", title, turns(vec![load], who, saturated_timing(wanted)))
}

fn latency(wanted: &Wanted) -> Part {
    let mut who = vec![direct(wanted), again(direct(wanted)), forwarder(wanted)];
    who.extend([outrigger(wanted), sidecars(wanted)]);
    who.extend(peers(wanted, Hops::One));
    let timing = timing(wanted, (0.2, 1.2), (0.1, 0.6));
    let title =
        "HTTP/1.1 at 1,000 requests a second (Poisson), 32 connections, responses of 64 B: added latency";
    part(Name::Latency, "", title, turns(vec![at_rate(RATE)], who, timing))
}

fn curve(wanted: &Wanted) -> Part {
    let rates = if wanted.quick { &QUICK_RATES[..] } else { &RATES };
    let mut who = vec![direct(wanted), forwarder(wanted), outrigger(wanted), sidecars(wanted)];
    who.extend(peers(wanted, Hops::One));
    let timing = Timing {
        back: false,
        repetitions: if wanted.quick { 1 } else { 2 },
        ..timing(wanted, (0.2, 0.8), (0.1, 0.3))
    };
    let loads = rates.iter().map(|rate| at_rate(*rate)).collect();
    let title = "HTTP/1.1 at growing rates (Poisson), each subject until it no longer keeps up: latency";
    part(Name::Curve, "", title, turns(loads, who, timing))
}

fn memory(wanted: &Wanted) -> Vec<Part> {
    let with_peers = || [vec![outrigger(wanted)], peers(wanted, Hops::One)].concat();
    let times = if wanted.quick { 1 } else { 3 };
    let held = |connections, contenders| Work::Memory(Memory { contenders, connections, times });
    let load = Load { connections: 1000, ..at_rate(RATE) };
    let timing = Timing { repetitions: 1, back: false, ..timing(wanted, (2.0, 8.0), (1.0, 1.5)) };
    let many = [1, 100, 10_000].map(|routes| {
        let mut contender = outrigger(wanted);
        contender.name = counted(routes, "route");
        contender.setup.routes = routes;
        contender
    });
    vec![
        part(Name::Memory, "-idle", "Resident memory before the first connection", held(0, with_peers())),
        part(
            Name::Memory,
            "-1000",
            "1,000 connections that are kept, at 1,000 requests a second: resident memory",
            turns(vec![load], with_peers(), timing),
        ),
        part(
            Name::Memory,
            "-10000",
            "10,000 HTTP/1.1 connections that are idle: resident memory of each",
            held(10_000, with_peers()),
        ),
        part(Name::Memory, "-routes", "Resident memory with many routes", held(0, many.into())),
    ]
}

fn start(wanted: &Wanted) -> Part {
    let contenders = [vec![outrigger(wanted)], peers(wanted, Hops::One)].concat();
    let times = if wanted.quick { 5 } else { 20 };
    part(
        Name::Start,
        "",
        "From start of the process to its first answer, from a file",
        Work::Start { contenders, times },
    )
}

fn config(wanted: &Wanted) -> Part {
    let load = at_rate(RATE);
    let config = Config {
        routes: 10_000,
        load,
        times: if wanted.quick { 3 } else { 10 },
        window: pick(wanted, 2.0, 1.0),
    };
    let title = "10,000 routes and 10,000 endpoints go live under 1,000 requests a second";
    part(Name::Config, "", title, Work::Config(config))
}

fn workers(wanted: &Wanted) -> Part {
    let mut two = outrigger(wanted);
    two.name = "2 workers".into();
    two.setup.workers = 2;
    let mut one = outrigger(wanted);
    one.name = "1 worker".into();
    let who = vec![one.clone(), again(one), two];
    // With fewer cores the second worker shares one with the load, which at saturation would take its time.
    let (load, how) = if wanted.cores > 2 {
        (saturated(Traffic::Http1, 0, 64), "saturated")
    } else {
        (at_rate(SHARED_RATE), "at 10,000 requests a second, as one of them shares a core with the load")
    };
    let title = format!("HTTP/1.1, 32 connections, responses of 64 B: two workers beside one, {how}");
    part(Name::Workers, "", &title, turns(vec![load], who, saturated_timing(wanted)))
}

fn features(wanted: &Wanted) -> Part {
    let with = |name: &str, change: fn(&mut Setup)| {
        let mut contender = outrigger(wanted);
        contender.name = name.into();
        change(&mut contender.setup);
        contender
    };
    let who = vec![
        outrigger(wanted),
        again(outrigger(wanted)),
        with("access log", |setup| setup.access_log = true),
        with("tracing", |setup| setup.tracing = true),
        with("100 routes", |setup| setup.routes = 100),
        with("10,000 routes", |setup| setup.routes = 10_000),
    ];
    let title =
        "HTTP/1.1, 32 connections, responses of 64 B, saturated: CPU per request with more switched on";
    let load = saturated(Traffic::Http1, 0, 64);
    part(Name::Features, "", title, turns(vec![load], who, saturated_timing(wanted)))
}

fn protocols(wanted: &Wanted) -> Vec<Part> {
    let few = |load| Load { connections: 8, ..load };
    let each = |tls| Load { connect: Connect::Each, tls, ..saturated(Traffic::Http1, 0, 64) };
    let parts = [
        (
            "-grpc-stream",
            "gRPC streams, messages of 64 B and their echo",
            saturated(Traffic::GrpcStream, 64, 64),
        ),
        ("-websocket", "WebSocket, messages of 64 B and their echo", saturated(Traffic::WebSocket, 64, 64)),
        ("-tcp", "TCP, messages of 64 B and their echo", saturated(Traffic::Tcp, 64, 64)),
        ("-tcp-bulk", "TCP in bulk: CPU per MiB", few(saturated(Traffic::TcpBulk, 0, 1 << 20))),
        ("-empty", "HTTP/1.1, no content", saturated(Traffic::Http1, 0, 0)),
        ("-64k", "HTTP/1.1, 64 KiB both ways", few(saturated(Traffic::Http1, 64 << 10, 64 << 10))),
        ("-1m", "HTTP/1.1, 1 MiB both ways", few(saturated(Traffic::Http1, 1 << 20, 1 << 20))),
        ("-connect", "HTTP/1.1, a new connection for each request", each(Tls::Off)),
        ("-tls-full", "HTTPS, a new connection for each request, handshakes in full", each(Tls::Full)),
        ("-tls-resumed", "HTTPS, a new connection for each request, sessions resumed", each(Tls::Resumed)),
    ];
    parts
        .map(|(suffix, title, load)| {
            let mut who = Vec::new();
            if load.tls == Tls::Off {
                who.push(forwarder(wanted));
            }
            who.extend([outrigger(wanted), again(outrigger(wanted))]);
            who.extend(peers(wanted, Hops::One));
            part(Name::Protocols, suffix, title, turns(vec![load], who, saturated_timing(wanted)))
        })
        .into()
}

fn custom(wanted: &Wanted) -> Part {
    let default = [Contestant::Direct, Contestant::Outrigger, Contestant::Sidecars];
    let named = match (&wanted.subjects[..], wanted.through) {
        ([], None) => &default,
        ([], Some(_)) if wanted.foreign => &default[..1],
        (named, _) => named,
    };
    let mut who: Vec<_> = named
        .iter()
        .map(|contestant| match contestant {
            Contestant::Direct => direct(wanted),
            Contestant::Forwarder => forwarder(wanted),
            Contestant::Outrigger => outrigger(wanted),
            Contestant::Sidecars => sidecars(wanted),
        })
        .collect();
    if let Some(address) = wanted.through {
        let kind = Kind::Peer("through".into());
        who.push(Contender { at: Some(address), ..contender(wanted, "through", kind, Hops::One) });
    }
    who.extend(peers(wanted, Hops::One));
    let timing = Timing { repetitions: 3, ..timing(wanted, (0.3, 1.0), (0.15, 0.7)) };
    part(Name::Custom, "", "What the options describe", turns(vec![at_rate(RATE)], who, timing))
}

fn contender(wanted: &Wanted, name: &str, kind: Kind, hops: Hops) -> Contender {
    let setup = Setup {
        hops,
        traffic: Traffic::Http1,
        tls: false,
        workers: wanted.workers,
        routes: 1,
        access_log: false,
        tracing: false,
    };
    Contender { name: name.into(), kind, setup, at: None }
}

fn direct(wanted: &Wanted) -> Contender {
    contender(wanted, "direct", Kind::Direct, Hops::One)
}

fn forwarder(wanted: &Wanted) -> Contender {
    contender(wanted, "forwarder", Kind::Forwarder, Hops::One)
}

pub(super) fn outrigger(wanted: &Wanted) -> Contender {
    contender(wanted, "outrigger", Kind::Outrigger, Hops::One)
}

fn sidecars(wanted: &Wanted) -> Contender {
    contender(wanted, "sidecars", Kind::Outrigger, Hops::Two)
}

fn again(mut of: Contender) -> Contender {
    of.name += AGAIN;
    of
}

fn peers(wanted: &Wanted, hops: Hops) -> Vec<Contender> {
    let name = |peer: &String| if hops == Hops::Two { format!("{peer} pair") } else { peer.clone() };
    let peer = |peer: &String| contender(wanted, &name(peer), Kind::Peer(peer.clone()), hops);
    wanted.peers.iter().map(peer).collect()
}

fn counted(count: u32, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        1000.. => format!("{},{:03} {what}s", count / 1000, count % 1000),
        _ => format!("{count} {what}s"),
    }
}
