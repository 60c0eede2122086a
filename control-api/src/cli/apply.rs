//! `outrigger-control apply`.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::Method;
use outrigger_config::file;
use serde_json::Value;

use super::client::Client;
use super::{complain, say, show};
use crate::node::NodeStatus;
use crate::rest::body::AppliedBody;

/// How long to wait before asking the nodes' state again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Puts what is in `path`, and waits for the nodes if asked to.
pub(super) async fn apply(
    client: &Client,
    path: &Path,
    wait: Option<outrigger_config::Duration>,
) -> anyhow::Result<ExitCode> {
    let shown = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let text = read(path).with_context(|| format!("{shown} cannot be read"))?;
    let Some(resources) = resources(&text, &shown) else {
        return Ok(ExitCode::FAILURE);
    };
    let body = serde_json::to_vec(&resources)?;
    let applied: AppliedBody = match client.call(Method::POST, "/v1/apply", body).await? {
        Ok(applied) => applied,
        Err(failure) if failure.body.invalid.len() > 1 => {
            for wrong in &failure.body.invalid {
                complain(format_args!("{shown}: {}: {}: {}", wrong.object, wrong.field, wrong.reason));
            }
            bail!("nothing was applied");
        }
        Err(failure) => return Err(failure.into_error()),
    };
    say(show::written(&applied.items));
    match wait {
        Some(patience) => await_nodes(client, applied.revision, patience.get()).await,
        None => Ok(ExitCode::SUCCESS),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}

/// The resources of a text: JSON as `get --json` shows it, or a file in the configuration language. `None` once it has
/// said what is wrong.
fn resources(text: &str, shown: &str) -> Option<Vec<Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) => return Some(items),
        Ok(Value::Object(mut object)) => {
            if let Some(Value::Array(items)) = object.remove("items") {
                return Some(items);
            }
            if object.contains_key("kind") {
                return Some(vec![Value::Object(object)]);
            }
        }
        _ => {}
    }
    let file = match file::parse(text) {
        Ok(file) => file,
        Err(unreadable) => {
            complain(format_args!("{shown}:{unreadable}"));
            return None;
        }
    };
    for rejected in &file.rejected {
        complain(format_args!("{shown}:{rejected}"));
    }
    if !file.rejected.is_empty() {
        complain("nothing was applied");
        return None;
    }
    if file.admin.is_some() || file.identity.is_some() {
        complain(format_args!("{shown}: `admin` and `identity` are of one proxy alone, and are left out"));
    }
    // A valid resource is text, numbers, lists and maps, which JSON can always express.
    Some(file.resources.iter().map(|resource| serde_json::to_value(resource).unwrap_or_default()).collect())
}

/// Waits until every connected node runs `revision`, and says which objects were refused.
async fn await_nodes(client: &Client, revision: u64, patience: Duration) -> anyhow::Result<ExitCode> {
    let until = Instant::now() + patience;
    let nodes = loop {
        let nodes: Vec<NodeStatus> = client.get("/v1/nodes").await?;
        let connected: Vec<NodeStatus> = nodes.into_iter().filter(|node| node.connected).collect();
        if connected.iter().all(|node| node.revision >= revision) {
            break connected;
        }
        if Instant::now() >= until {
            for node in connected.iter().filter(|node| node.revision < revision) {
                complain(format_args!("{} is at revision {}, not {revision}", node.name, node.revision));
            }
            bail!("time is up; `outrigger-control nodes` shows where they are");
        }
        tokio::time::sleep(ASK_AGAIN).await;
    };
    let refusals = show::refusals(&nodes);
    if refusals.is_empty() {
        say(format_args!("revision {revision} is live on every connected node: {}", nodes.len()));
        return Ok(ExitCode::SUCCESS);
    }
    for refusal in refusals {
        complain(refusal);
    }
    Ok(ExitCode::FAILURE)
}
