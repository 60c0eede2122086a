use super::*;

fn path(path: Path, p50: f64, cpu: Option<f64>) -> PathReport {
    PathReport {
        path,
        requests: 1000,
        errors: 0,
        first_error: None,
        per_second: 200.0,
        latency: Quantiles { p50, p99: 2.0 * p50, p999: 3.0 * p50, max: 4.0 * p50 },
        added: None,
        cpu_per_request: cpu.map(|total| Cpu {
            total,
            user: total / 4.0,
            system: total * 0.75,
            rounds: vec![total],
        }),
        resident_kib: cpu.map(|_| Resident { idle: 8192, after: 10240 }),
    }
}

fn report() -> Report {
    let settings = Settings { protocol: Protocol::H1, connections: 32, body: 0, seconds: 5.0, warmup: 1.0 };
    let paths = vec![
        path(Path::Direct, 50.0, None),
        path(Path::Proxy, 80.0, Some(12.5)),
        path(Path::Nginx, 75.0, Some(10.0)),
    ];
    Report {
        schema: SCHEMA,
        version: "0.1.0".into(),
        machine: Machine::this(Some(Cpus { proxies: 0, load: 1 })),
        settings,
        sections: vec![
            Section::new(Load::Open { rate: 2000 }, paths.clone()),
            Section::new(Load::Saturated, paths.into_iter().skip(1).collect()),
        ],
    }
}

#[test]
fn what_is_added_is_the_difference_to_the_direct_path() {
    let report = report();
    let added: Vec<_> =
        report.sections[0].paths.iter().map(|path| path.added.map(|added| added.p99)).collect();
    assert_eq!(added, [None, Some(60.0), Some(50.0)]);
    assert!(report.sections[1].paths.iter().all(|path| path.added.is_none()));
    assert_eq!(report.sections[1].cpu_ratio_to_nginx, Some(1.25));
}

#[test]
fn json_comes_back_as_it_was() {
    let report = report();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    assert!(json.contains(r#""load":{"type":"open","rate":2000}"#), "{json}");
    assert!(json.contains(r#""cpuRatioToNginx":1.25"#), "{json}");
}

#[test]
fn the_table_is_aligned_and_says_the_ratio() {
    let text = report().to_string();
    let rows: Vec<_> =
        text.lines().filter(|line| line.contains("proxy  ") || line.contains("direct  ")).collect();
    assert_eq!(rows.len(), 3, "{text}");
    let widths: Vec<_> = rows.iter().take(2).map(|row| row.chars().count()).collect();
    assert_eq!(widths[0], widths[1], "{text}");
    let verdict =
        "The proxy spends 1.25 times nginx's CPU per request (medians of 1 rounds); idle it takes 8.0 MiB.";
    assert!(text.contains(verdict), "{text}");
}

#[test]
fn the_median_is_in_the_middle() {
    assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
    assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    assert!(median(&[]).abs() < 1e-9);
}
