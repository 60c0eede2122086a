use super::*;

fn figure(value: Option<f64>, interval: Option<(f64, f64)>, noise: Option<(f64, f64)>) -> Figure {
    let estimate = |interval: Option<(f64, f64)>, value| Estimate { value, interval, repetitions: 6 };
    Figure::new(
        "plain.cpu.nginx",
        "CPU",
        "×",
        value.map(|value| estimate(interval, value)),
        noise.map(|noise| estimate(Some(noise), 1.0)),
        Some(Target::AtMost(1.0)),
        "",
    )
}

fn outcome_of(a: Figure, b: Figure) -> Outcome {
    Change::of_figures(Some(a), Some(b)).unwrap().outcome
}

#[test]
fn a_change_is_judged_by_its_interval_and_by_noise() {
    let near = |value: f64| Some((value - 0.01, value + 0.01));
    let was = || figure(Some(1.0), near(1.0), None);
    assert_eq!(outcome_of(was(), figure(Some(0.9), near(0.9), None)), Outcome::Better);
    assert_eq!(outcome_of(was(), figure(Some(1.1), near(1.1), None)), Outcome::Worse);
    assert_eq!(outcome_of(was(), figure(Some(1.01), near(1.01), None)), Outcome::WithinNoise);
    let noisy = figure(Some(1.1), near(1.1), Some((0.88, 1.02)));
    assert_eq!(outcome_of(was(), noisy), Outcome::WithinNoise);
    assert_eq!(
        outcome_of(figure(Some(1.0), None, None), figure(Some(1.1), None, None)),
        Outcome::WorseUnjudged
    );
    assert_eq!(outcome_of(was(), was()), Outcome::Same);
    assert_eq!(outcome_of(was(), figure(None, None, None)), Outcome::Lost);
    assert_eq!(outcome_of(figure(None, None, None), was()), Outcome::Missing);
}

#[test]
fn more_of_what_is_to_be_at_least_something_is_better() {
    let with = |value| Figure { target: Some(Target::AtLeast(1.8)), ..figure(Some(value), None, None) };
    assert_eq!(outcome_of(with(1.7), with(1.9)), Outcome::BetterUnjudged);
}

#[test]
fn ports_and_folders_are_no_difference() {
    let a = "listen 127.0.0.1:45123; # 32 workers\npid /tmp/.tmpAb12/nginx.pid;";
    let b = "listen 127.0.0.1:5999; # 32 workers\npid /tmp/.tmpzz9/nginx.pid;";
    assert_eq!(without_places(a), without_places(b));
    assert_ne!(without_places("keepalive 32;"), without_places("keepalive 64;"));
}

#[test]
fn percentages_are_read_as_they_are_written() {
    assert_eq!((percent("5%"), percent("2.5")), (Ok(5.0), Ok(2.5)));
    assert!(percent("-1%").is_err() && percent("much").is_err());
}
