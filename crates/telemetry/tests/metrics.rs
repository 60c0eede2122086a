//! The metrics, as whoever scrapes them reads them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use outrigger_telemetry::{ConnectResult, MAX_SERIES, Metrics, RequestEnd, RequestLabels, TcpLabels};

const SHOP: RequestLabels<'_> =
    RequestLabels { direction: "edge", listener: "web", route: "shop", rule: "0", backend: "api" };
const LABELS: &str = r#"backend="api",direction="edge",listener="web",route="shop",rule="0""#;

/// The value of a series: its name with its labels in alphabetical order.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.encode();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (sorted(name) == sorted(series)).then(|| value.parse().unwrap())
    })
}

/// A series with its labels in order. No label of these tests has a comma in it.
fn sorted(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else { return series.to_owned() };
    let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

fn ended(status: u16, reason: Option<&'static str>, millis: u64) -> RequestEnd {
    RequestEnd {
        status,
        reason,
        duration: Duration::from_millis(millis),
        request_bytes: 10,
        response_bytes: 1_000,
        retries: u32::from(status >= 500),
    }
}

#[test]
fn requests_of_all_workers_are_summed() {
    let metrics = Metrics::new(2);
    let series = metrics.request_series(&SHOP);
    let workers: Vec<_> = (0..2)
        .map(|index| {
            let metrics = metrics.clone();
            std::thread::spawn(move || {
                let worker = metrics.worker(index);
                for millis in 0..100 {
                    worker.request_started(series);
                    worker.request_finished(series, &ended(200, None, millis));
                }
                worker.request_started(series);
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let read = |name: &str, more: &str| value(&metrics, &format!("{name}{{{LABELS}{more}}}"));
    assert_eq!(read("outrigger_requests_total", r#",code="200""#), Some(200.0));
    assert_eq!(read("outrigger_requests_in_flight", ""), Some(2.0));
    assert_eq!(read("outrigger_request_bytes_total", ""), Some(2_000.0));
    assert_eq!(read("outrigger_response_bytes_total", ""), Some(200_000.0));
    assert_eq!(read("outrigger_retries_total", ""), Some(0.0));
    for (bound, count) in [("0.0005", 2.0), ("0.005", 12.0), ("0.05", 102.0), ("0.1", 200.0), ("+Inf", 200.0)]
    {
        let bucket = read("outrigger_request_duration_seconds_bucket", &format!(r#",le="{bound}""#));
        assert_eq!(bucket, Some(count), "up to {bound} s");
    }
    assert_eq!(read("outrigger_request_duration_seconds_count", ""), Some(200.0));
    assert_eq!(read("outrigger_request_duration_seconds_sum", ""), Some(9.9));
}

#[test]
fn every_status_is_counted_and_answers_of_the_proxy_have_their_reason() {
    let metrics = Metrics::new(1);
    let series = metrics.request_series(&SHOP);
    let worker = metrics.worker(0);
    for (status, reason, times) in [
        (0, None, 1),
        (200, None, 5),
        (404, Some("destination_not_found"), 2),
        (503, None, 3),
        (503, Some("connection_refused"), 4),
        (503, Some("connection_timeout"), 1),
        (999, None, 1),
        (u16::MAX, None, 1),
    ] {
        for _ in 0..times {
            worker.request_started(series);
            worker.request_finished(series, &ended(status, reason, 1));
        }
    }
    let read = |more: &str| value(&metrics, &format!("outrigger_requests_total{{{LABELS},{more}}}"));
    assert_eq!(read(r#"code="0""#), Some(1.0));
    assert_eq!(read(r#"code="200""#), Some(5.0));
    assert_eq!(read(r#"code="404",reason="destination_not_found""#), Some(2.0));
    assert_eq!(read(r#"code="503""#), Some(3.0));
    assert_eq!(read(r#"code="503",reason="connection_refused""#), Some(4.0));
    assert_eq!(read(r#"code="503",reason="connection_timeout""#), Some(1.0));
    assert_eq!(read(r#"code="999""#), Some(2.0));
    let refused = r#"outrigger_responses_by_proxy_total{reason="connection_refused"}"#;
    assert_eq!(value(&metrics, refused), Some(4.0));
    assert_eq!(value(&metrics, &format!("outrigger_retries_total{{{LABELS}}}")), Some(10.0));
}

#[test]
fn more_reasons_than_there_is_room_for_still_count() {
    let metrics = Metrics::new(1);
    let series = metrics.request_series(&SHOP);
    let worker = metrics.worker(0);
    for status in 500..600 {
        worker.request_started(series);
        worker.request_finished(series, &ended(status, Some("http_response_incomplete"), 1));
    }
    let text = metrics.encode();
    assert_eq!(text.lines().filter(|line| line.starts_with("outrigger_requests_total{")).count(), 100);
}

#[test]
fn the_same_labels_are_the_same_series_and_labels_are_escaped() {
    let metrics = Metrics::new(1);
    let series = metrics.request_series(&SHOP);
    assert_eq!(series, metrics.clone().request_series(&SHOP));
    let odd = metrics.request_series(&RequestLabels { listener: "a\"\n\\", ..SHOP });
    assert_ne!(series, odd);
    metrics.worker(0).request_started(odd);
    assert!(metrics.encode().contains(r#"listener="a\"\n\\""#), "{}", metrics.encode());
}

#[test]
fn series_are_bounded() {
    let metrics = Metrics::new(1);
    let bind = |route: usize| {
        let route = route.to_string();
        metrics.request_series(&RequestLabels { route: &route, ..SHOP })
    };
    let worker = metrics.worker(0);
    for route in 0..MAX_SERIES + 10 {
        worker.request_started(bind(route));
    }
    assert_eq!(bind(MAX_SERIES), bind(MAX_SERIES + 1));
    let other = r#"{backend="other",direction="other",listener="other",route="other",rule="other"}"#;
    assert_eq!(value(&metrics, &format!("outrigger_requests_in_flight{other}")), Some(10.0));
    assert_eq!(value(&metrics, "outrigger_metrics_series_overflow_total"), Some(12.0));
    let text = metrics.encode();
    let lines = text.lines().filter(|line| line.starts_with("outrigger_requests_in_flight{"));
    assert_eq!(lines.count(), MAX_SERIES + 1);
}

#[test]
fn connections_are_counted_while_open_and_after() {
    let metrics = Metrics::new(1);
    let worker = metrics.worker(0);
    let accepted = metrics.connection_series("inbound", "mesh");
    (0..3).for_each(|_| worker.connection_opened(accepted));
    worker.connection_closed(accepted);
    let labels = r#"{direction="inbound",listener="mesh"}"#;
    assert_eq!(value(&metrics, &format!("outrigger_connections_total{labels}")), Some(3.0));
    assert_eq!(value(&metrics, &format!("outrigger_connections_open{labels}")), Some(2.0));

    let backend = metrics.backend_series("api");
    (0..4).for_each(|_| worker.backend_connected(backend, ConnectResult::Ok));
    worker.backend_connected(backend, ConnectResult::Identity);
    worker.backend_closed(backend);
    let attempts =
        |result| format!(r#"outrigger_backend_connections_total{{backend="api",result="{result}"}}"#);
    assert_eq!(value(&metrics, &attempts("ok")), Some(4.0));
    assert_eq!(value(&metrics, &attempts("identity")), Some(1.0));
    assert_eq!(value(&metrics, r#"outrigger_backend_connections_open{backend="api"}"#), Some(3.0));

    let tcp =
        metrics.tcp_series(&TcpLabels { direction: "edge", listener: "db", route: "db", backend: "pg" });
    (0..2).for_each(|_| worker.tcp_opened(tcp));
    worker.tcp_bytes(tcp, 100, 1);
    worker.tcp_finished(tcp, 11, 22, Duration::from_secs(3), true);
    let labels = r#"backend="pg",direction="edge",listener="db",route="db""#;
    let read = |name: &str, more: &str| value(&metrics, &format!("outrigger_tcp_{name}{{{labels}{more}}}"));
    assert_eq!(read("connections_total", ""), Some(2.0));
    assert_eq!(read("connections_open", ""), Some(1.0));
    assert_eq!(read("connections_failed_total", ""), Some(1.0));
    assert_eq!(read("bytes_total", r#",way="sent""#), Some(111.0));
    assert_eq!(read("bytes_total", r#",way="received""#), Some(23.0));
    assert_eq!(read("connection_duration_seconds_bucket", r#",le="1""#), Some(0.0));
    assert_eq!(read("connection_duration_seconds_bucket", r#",le="5""#), Some(1.0));
}

#[test]
fn no_two_live_workers_share_cells() {
    let metrics = Metrics::new(1);
    let series = metrics.request_series(&SHOP);
    // All for index 0, all at once: were cells shared, adding without locks would lose counts.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let worker = metrics.worker(0);
                (0..50_000).for_each(|_| worker.clone().request_started(series));
            });
        }
    });
    let in_flight = format!("outrigger_requests_in_flight{{{LABELS}}}");
    assert_eq!(value(&metrics, &in_flight), Some(200_000.0));
    let worker = metrics.worker(0);
    (0..200_000).for_each(|_| worker.request_finished(series, &ended(200, None, 1)));
    assert_eq!(value(&metrics, &in_flight), Some(0.0));
}

#[test]
fn reading_while_workers_count_never_goes_backwards() {
    let metrics = Metrics::new(1);
    let series = metrics.request_series(&SHOP);
    let total = format!(r#"outrigger_requests_total{{{LABELS},code="200"}}"#);
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let worker = metrics.worker(0);
            for _ in 0..200_000 {
                worker.request_started(series);
                worker.request_finished(series, &ended(200, None, 1));
            }
        });
        let mut last = 0.0;
        while !counting.is_finished() {
            let now = value(&metrics, &total).unwrap_or_default();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    });
    assert_eq!(value(&metrics, &total), Some(200_000.0));
}

#[test]
fn rare_metrics_and_those_of_the_process_are_there() {
    let metrics = Metrics::new(1);
    metrics.config_revision.set(42);
    metrics.config_rejected.set(1);
    metrics.certificate_expiry.with_label_values(&["shop"]).set(1_900_000_000);
    assert_eq!(value(&metrics, "outrigger_config_revision"), Some(42.0));
    assert_eq!(value(&metrics, "outrigger_config_rejected"), Some(1.0));
    assert_eq!(value(&metrics, "outrigger_ready"), Some(0.0));
    assert_eq!(value(&metrics, "outrigger_control_connected"), Some(0.0));
    let expiry = r#"outrigger_certificate_expiry_timestamp_seconds{certificate="shop"}"#;
    assert_eq!(value(&metrics, expiry), Some(1_900_000_000.0));
    let build = concat!(r#"outrigger_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""}"#);
    assert_eq!(value(&metrics, build), Some(1.0));
    for (name, least) in [
        ("process_cpu_seconds_total", 0.0),
        ("process_resident_memory_bytes", 100_000.0),
        ("process_open_fds", 1.0),
        ("process_threads", 1.0),
        ("process_start_time_seconds", 1_700_000_000.0),
    ] {
        assert!(value(&metrics, name).is_some_and(|value| value > least), "{name}");
    }
}

#[test]
fn every_family_is_described_once() {
    let metrics = Metrics::new(1);
    let worker = metrics.worker(0);
    for route in ["a", "b"] {
        worker.request_started(metrics.request_series(&RequestLabels { route, ..SHOP }));
    }
    let text = metrics.encode();
    let mut types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), count);
    assert!(text.contains("# TYPE outrigger_request_duration_seconds histogram"));
    assert!(text.contains("# TYPE outrigger_requests_in_flight gauge"));
}
