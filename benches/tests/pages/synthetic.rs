//! A run that never was: its numbers come from a seed, and its page says so.

use std::{path::Path, time::Duration};

use outrigger_benches::{
    load::{Arrivals, Connect, Load, Measured, Tls, Traffic},
    result::{
        Figure, Host, Pinned, Run, SCHEMA, Sample, Scenario, Series, Skipped, Spent, Target,
        stats::{self, Estimate},
    },
    subject::{Hops, Kind, Setup},
};

const REPETITIONS: u32 = 6;
pub(crate) const NASTY: &str = "<script>alert(\"1\")</script> | `a` & *b*\nsecond line";

/// Numbers from a seed, with the shapes that such numbers have.
struct Source {
    random: fastrand::Rng,
}

impl Source {
    /// Around 1, rarely by more than a few percent.
    fn noise(&mut self) -> f64 {
        let sum: f64 = (0..12).map(|_| self.random.f64()).sum();
        1.0 + 0.012 * (sum - 6.0)
    }

    /// `count` latencies around `micros`, with a tail.
    fn measured(&mut self, count: u64, rate: f64, micros: f64) -> Measured {
        let mut measured = Measured::empty();
        for _ in 0..count {
            let tail = (-self.random.f64().max(1e-9).ln() / 2.5).exp();
            let stall = if self.random.f64() < 0.002 { 12.0 } else { 1.0 };
            measured.latency.record((micros * 1e3 * (0.6 + 0.4 * tail) * stall) as u64).unwrap();
            measured.lag.record(self.random.u64(200..3_000)).unwrap();
        }
        measured.time = Duration::from_secs_f64(count as f64 / rate);
        measured.elapsed = measured.time;
        (measured.due, measured.answered, measured.in_time) = (count, count, count);
        measured
    }
}

pub(crate) fn load(arrivals: Arrivals) -> Load {
    Load {
        traffic: Traffic::Http1,
        arrivals,
        connections: 32,
        streams: 1,
        request_bytes: 64,
        response_bytes: 1024,
        connect: Connect::Keep,
        tls: Tls::Off,
        seed: 1,
    }
}

fn series(name: &str, kind: Kind) -> Series {
    let setup = Setup {
        hops: Hops::One,
        traffic: Traffic::Http1,
        tls: false,
        workers: 1,
        routes: 1,
        access_log: false,
        tracing: false,
    };
    let mut series = Series::new(name, kind.clone(), (kind != Kind::Direct).then_some(setup));
    if let Kind::Peer(peer) = kind {
        series.result.version = format!("{peer}/0.0 (synthetic)");
        series.result.configuration =
            vec![(format!("{peer}.conf"), format!("listen 127.0.0.1:45678; # ``` {NASTY}"))];
    }
    series
}

fn spent(cpu: f64, syscalls: Option<f64>) -> Spent {
    Spent {
        cpu,
        user: cpu * 0.22,
        system: cpu * 0.78,
        voluntary_switches: 0.041,
        involuntary_switches: 0.002,
        syscalls,
    }
}

fn peer(name: &str) -> Kind {
    Kind::Peer(name.into())
}

/// CPU per request, as fast as answers come. `factor` makes all of Outrigger's dearer.
fn plain(source: &mut Source, factor: f64) -> Vec<Series> {
    let load = load(Arrivals::Saturated);
    let subjects = [
        ("forwarder", Kind::Forwarder, 10.4, 3.1),
        ("outrigger", Kind::Outrigger, 12.1 * factor, 8.6),
        ("outrigger (again)", Kind::Outrigger, 12.1 * factor, 8.7),
        ("nginx", peer("nginx"), 12.8, 12.2),
        ("haproxy", peer("haproxy"), 13.0, 20.4),
        ("a proxy that somebody named <at length>", peer("x"), 31.0, 88.0),
    ];
    let mut all = Vec::new();
    for (name, kind, cpu, mib) in subjects {
        let mut series = series(name, kind);
        for repetition in 0..REPETITIONS {
            for turn in 0..2 {
                let cpu = cpu * source.noise() * (1.0 + 0.01 * f64::from(repetition));
                let measured = source.measured(400, 1e6 / cpu, cpu * 32.0);
                let at = f64::from(repetition * 20 + turn * 10);
                let resident = Some((mib * 1024.0) as u64);
                let spent = spent(cpu, Some(4.2));
                let sample = Sample::new(repetition, at, &load, &measured, Some(spent), resident);
                series.push(sample, Some(&measured));
            }
        }
        all.push(series);
    }
    // One that failed, with words that no page may take for its own.
    let mut failed = source.measured(10, 10.0, 1e6);
    (failed.errors, failed.first_error) = (3, Some(NASTY.into()));
    all[3].push(Sample::new(REPETITIONS, 150.0, &load, &failed, None, None), Some(&failed));
    all
}

/// Latency at 1,000 requests in a second.
fn latency(source: &mut Source) -> Vec<Series> {
    let load = load(Arrivals::Poisson { rate: 1000.0 });
    let subjects = [
        ("direct", Kind::Direct, 58.0),
        ("direct (again)", Kind::Direct, 58.0),
        ("forwarder", Kind::Forwarder, 79.0),
        ("outrigger", Kind::Outrigger, 86.0),
        ("outrigger, two hops", Kind::Outrigger, 131.0),
        ("nginx", peer("nginx"), 88.0),
    ];
    let mut all = Vec::new();
    for (name, kind, micros) in subjects {
        let cpu = (kind != Kind::Direct).then(|| spent(micros / 3.0, None));
        let mut series = series(name, kind);
        for repetition in 0..REPETITIONS {
            let micros = micros * source.noise();
            let measured = source.measured(3_000, 1000.0, micros);
            let sample = Sample::new(repetition, f64::from(200 + repetition), &load, &measured, cpu, None);
            series.push(sample, Some(&measured));
        }
        all.push(series);
    }
    all
}

/// Latency at more and more requests in a second, until there is no more.
fn curve(source: &mut Source) -> Vec<Series> {
    let mut all = Vec::new();
    for (name, kind, knee) in [
        ("direct", Kind::Direct, 70_000.0),
        ("outrigger", Kind::Outrigger, 46_000.0),
        ("nginx", peer("nginx"), 43_000.0),
    ] {
        let mut series = series(name, kind);
        for rate in [5_000.0, 10_000.0, 20_000.0, 30_000.0, 40_000.0, 50_000.0, 60_000.0] {
            let load = load(Arrivals::Poisson { rate });
            let busy: f64 = rate / knee;
            for repetition in 0..2 {
                let micros = if busy < 1.0 { 60.0 / (1.0 - 0.92 * busy) } else { 90_000.0 };
                let micros = micros * source.noise();
                let mut measured = source.measured(2_000, rate, micros);
                measured.in_time =
                    if busy < 1.0 { measured.due } else { (measured.due as f64 / busy) as u64 };
                series.push(Sample::new(repetition, 300.0, &load, &measured, None, None), Some(&measured));
            }
        }
        all.push(series);
    }
    all
}

fn memory() -> Vec<Series> {
    let subjects = [("outrigger", Kind::Outrigger, 9_100), ("nginx", peer("nginx"), 12_400)];
    let of = |(name, kind, kib): (&str, Kind, u64)| {
        let mut series = series(name, kind);
        for repetition in 0..3 {
            let resident = Some(kib + u64::from(repetition) * 12);
            series.push(Sample::idle(repetition, 400.0, 1.0, resident), None);
        }
        series
    };
    subjects.map(of).into()
}

fn figures(plain: &[Series], latency: &[Series], memory: &[Series]) -> Vec<Figure> {
    let of = |series: &[Series], name: &str| series.iter().find(|it| it.result.name == name).unwrap().clone();
    let cpu = |to: &str| {
        let (of, to) = (of(plain, "outrigger"), of(plain, to));
        stats::ratio(&of.result, &to.result, |sample| Some(sample.spent?.cpu))
    };
    let added = |name: &str, quantile| stats::added(&of(latency, name), &of(latency, "direct"), quantile);
    let resident = |sample: &Sample| Some(sample.resident_kib? as f64 / 1024.0);
    let noise = cpu("outrigger (again)");
    let basis = "synthetic";
    let mut figures = Vec::new();
    for (to, most) in [("nginx", 1.0), ("haproxy", 1.0), ("forwarder", 1.25)] {
        let title = format!("CPU per request, plain HTTP/1.1: Outrigger / {to}");
        let target = Some(Target::AtMost(most));
        figures.push(Figure::new(format!("plain.cpu.{to}"), title, "×", cpu(to), noise, target, basis));
    }
    for (hops, name, p50, p99) in
        [("one", "outrigger", 30.0, 150.0), ("two", "outrigger, two hops", 80.0, 300.0)]
    {
        for (quantile, most) in [(0.5, p50), (0.99, p99)] {
            let percentile = quantile * 100.0;
            figures.push(Figure::new(
                format!("latency.{hops}.p{percentile}"),
                format!("added latency at 1,000/s, {hops}, p{percentile}"),
                "µs",
                added(name, quantile),
                added("direct (again)", quantile),
                Some(Target::AtMost(most)),
                basis,
            ));
        }
    }
    let idle = stats::level(&of(memory, "outrigger").result, resident);
    let most = Some(Target::AtMost(10.0));
    figures.push(Figure::new("memory.idle", "memory, idle", "MiB", idle, None, most, basis));
    let throughput = Estimate { value: 1.72, interval: Some((1.69, 1.83)), repetitions: 6 };
    figures.push(Figure::new(
        "workers.throughput",
        "throughput of 2 workers / 1",
        "×",
        Some(throughput),
        None,
        Some(Target::AtLeast(1.8)),
        basis,
    ));
    let errors = Estimate { value: 2.0, interval: None, repetitions: 1 };
    let none = Some(Target::AtMost(0.0));
    figures.push(Figure::new(
        "faults.drain",
        "requests that failed, drain",
        "errors",
        Some(errors),
        None,
        none,
        basis,
    ));
    let half = Some(Target::AtMost(0.5));
    let why = "envoy is not installed: name its binary, --against envoy=/path";
    figures.push(Figure::unknown(
        "http2.cpu.envoy",
        "CPU per request, HTTP/2: Outrigger / envoy",
        "×",
        half,
        why,
    ));
    let info = stats::level(&of(plain, "nginx").result, |sample| Some(sample.spent?.cpu));
    figures.push(Figure::new("plain.cpu", "CPU per request, nginx", "µs", info, None, None, basis));
    figures
}

/// Writes such a run into `dir`; `factor` times as dear as another one.
pub(crate) fn write(dir: &Path, seed: u64, factor: f64) -> Run {
    let mut source = Source { random: fastrand::Rng::with_seed(seed) };
    let (plain, latency, curve) = (plain(&mut source, factor), latency(&mut source), curve(&mut source));
    let memory = memory();
    let figures = figures(&plain, &latency, &memory);
    let scenario = |name: &str, title: &str, load: Option<Load>, all: Vec<Series>| {
        let subjects = all.into_iter().map(|mut series| {
            series.save(dir, name).unwrap();
            series.result
        });
        Scenario { name: name.into(), title: title.into(), load, subjects: subjects.collect() }
    };
    let rate = |rate| Some(load(Arrivals::Poisson { rate }));
    let scenarios = vec![
        scenario("plain", "CPU per request of plain HTTP/1.1", Some(load(Arrivals::Saturated)), plain),
        scenario("latency", "added latency at a rate that nobody notices", rate(1000.0), latency),
        scenario("curve", "latency against load", rate(5_000.0), curve),
        scenario("memory", "memory without callers", None, memory),
    ];
    let skipped = Skipped { what: "envoy".into(), why: "not installed".into() };
    let run = Run {
        schema: SCHEMA,
        began: "1970-01-01T00:00:00Z".into(),
        seconds: 421.7,
        interrupted: false,
        command: ["outrigger-bench", "run", "--against", "nginx,haproxy,envoy"].map(String::from).into(),
        host: host(),
        scenarios,
        figures,
        skipped: vec![skipped],
    };
    run.write(dir).unwrap();
    run
}

fn host() -> Host {
    Host {
        version: "0.0.0".into(),
        commit: Some("0000000".into()),
        optimised: true,
        kernel: Some("0.0-synthetic".into()),
        processor: Some("no processor (synthetic: none of this was measured)".into()),
        cores: 2,
        pinned: Some(Pinned { proxies: vec![0], load: vec![1] }),
        governor: None,
        hypervisor: Some("none".into()),
        mitigations: vec![
            ("spectre_v2".into(), "Mitigation: synthetic".into()),
            ("mds".into(), "Not affected".into()),
        ],
        memory_mib: 8192,
    }
}
