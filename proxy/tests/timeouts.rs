//! The table of timeouts: every field that there is, with its default as the code has it, and reasons that there are.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Instant;

use outrigger_balance::Limits;
use outrigger_config::Backend;
use outrigger_config::backend::HealthCheck;
use outrigger_config::listener::{HttpTimeouts, ListenerTimeouts, MinBodyRate};
use outrigger_http::Reason;
use outrigger_http::pool::IDLE_TIMEOUT;
use serde_json::{Value, json};

/// A row of the table.
struct Row {
    timeout: String,
    default: String,
    reasons: Vec<String>,
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/TIMEOUTS.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [timeout, _, default, reason] = cells[..] else { panic!("{row}") };
        // What a failure is said to be, and no field.
        let reasons = quoted(reason).filter(|name| name.contains('_')).map(str::to_owned).collect();
        Row { timeout: timeout.to_owned(), default: default.to_owned(), reasons }
    })
    .collect()
}

/// Durations as a page has them, of a value's fields.
fn durations(prefix: &str, value: impl serde::Serialize) -> BTreeMap<String, String> {
    let value = serde_json::to_value(value).unwrap();
    let fields = value.as_object().unwrap().iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
    fields
        .filter(|(_, text)| text.parse::<outrigger_config::Duration>().is_ok())
        .map(|(name, text)| (format!("{prefix}.{name}"), if text == "0s" { "none" } else { text }.to_owned()))
        .collect()
}

/// Every timeout that can be configured, with its default.
fn defaults() -> BTreeMap<String, String> {
    let text = |duration: std::time::Duration| {
        outrigger_config::Duration::from_millis(duration.as_millis() as u64).to_string()
    };
    let mut all = durations("listeners[].timeouts", ListenerTimeouts::default());
    all.extend(durations("listeners[].http.timeouts", HttpTimeouts::default()));
    let rate: MinBodyRate = serde_json::from_value(json!({ "bytesPerSecond": 1 })).unwrap();
    all.extend(durations("listeners[].http.limits.minBodyRate", rate));
    let check: HealthCheck = serde_json::from_value(json!({ "type": "TCP" })).unwrap();
    all.extend(durations("backends[].healthCheck", check));
    let backend: Backend =
        serde_json::from_value(json!({ "endpoints": [], "limits": { "requests": 1 } })).unwrap();
    let limits = Limits::new(&backend.limits, None, Instant::now()).unwrap();
    all.insert("backends[].connectTimeout".into(), text(backend.connect_timeout()));
    all.insert("backends[].limits.waitTimeout".into(), text(limits.queue.patience()));
    all.insert("backends[].timeouts.idleConnection".into(), text(IDLE_TIMEOUT));
    assert_eq!(backend.timeouts.tls_handshake.or(backend.timeouts.max_connection_age), None);
    for none in ["backends[].timeouts.tlsHandshake", "backends[].timeouts.maxConnectionAge"] {
        all.insert(none.into(), "none".into());
    }
    for route in ["httpRoutes", "grpcRoutes"] {
        for timeout in ["request", "backendRequest"] {
            all.insert(format!("{route}[].rules[].timeouts.{timeout}"), "none".into());
        }
    }
    all
}

/// The schema of a value, past what stands between it and its fields.
fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    loop {
        let choice = schema.get("anyOf").and_then(|any| any.get(0));
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            schema = root.pointer(name.trim_start_matches('#')).unwrap();
        } else if let Some(choice) = choice.or_else(|| schema.get("allOf").and_then(|all| all.get(0))) {
            schema = choice;
        } else {
            return schema;
        }
    }
}

fn is_field(root: &Value, path: &str) -> bool {
    let mut at = root;
    for step in path.split('.') {
        let (name, list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        let Some(next) = resolve(root, at).get("properties").and_then(|fields| fields.get(name)) else {
            return false;
        };
        at = if list { &resolve(root, next)["items"] } else { next };
    }
    true
}

/// The timeouts that the schema's definitions have.
fn named(root: &Value) -> BTreeSet<String> {
    let of = |definition: &str| {
        let fields = root["$defs"][definition]["properties"].as_object();
        fields
            .unwrap_or_else(|| panic!("{definition} is not in the schema"))
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let fields = |prefix: &str, definition: &str| {
        of(definition).into_iter().map(|name| format!("{prefix}.{name}")).collect::<Vec<_>>()
    };
    [
        fields("listeners[].timeouts", "ListenerTimeouts"),
        fields("listeners[].http.timeouts", "HttpTimeouts"),
        fields("backends[].timeouts", "BackendTimeouts"),
        fields("httpRoutes[].rules[].timeouts", "Timeouts"),
        fields("grpcRoutes[].rules[].timeouts", "Timeouts"),
    ]
    .concat()
    .into_iter()
    .collect()
}

#[test]
fn the_table_has_every_timeout_with_its_default_and_its_reason() {
    let (rows, defaults, schema) = (rows(), defaults(), outrigger_config::schema());
    assert!(rows.len() > 20, "{}", rows.len());
    let mut seen = BTreeMap::new();
    for row in &rows {
        for reason in &row.reasons {
            assert!(Reason::find(reason).is_some(), "{}: there is no reason {reason}", row.timeout);
        }
        let Some(field) = quoted(&row.timeout).next().filter(|field| !field.starts_with("--")) else {
            continue;
        };
        assert!(is_field(&schema, field), "there is no field {field}");
        seen.insert(field.to_owned(), row.default.clone());
    }
    assert_eq!(seen, defaults);
    let missing: Vec<_> = named(&schema).into_iter().filter(|field| !seen.contains_key(field)).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

#[test]
fn the_tables_options_are_those_of_the_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_outrigger")).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let rows = rows();
    let options = rows.iter().filter_map(|row| Some((quoted(&row.timeout).next()?, &row.default)));
    let mut seen = 0;
    for (option, default) in options.filter(|(option, _)| option.starts_with("--")) {
        assert!(help.contains(option), "{option}");
        let about = help.split(option).nth(1).unwrap().split("\n  -").next().unwrap();
        let first = default.split(' ').next().unwrap();
        assert!(about.contains("[default: ") && about.contains(first), "{option}: {default}\n{about}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}
