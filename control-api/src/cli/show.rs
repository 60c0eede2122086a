//! `outrigger-control get`, `delete`, `nodes` and `token`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use comfy_table::{Table, presets};
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::client::Client;
use super::{TokenArgs, say};
use crate::node::NodeStatus;
use crate::rest::body::{ListBody, ObjectBody, TokenBody, TokenRequest, WrittenBody};
use crate::token::Tokens;

pub(super) async fn get(
    client: &Client,
    kind: Option<&str>,
    name: Option<&str>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let Some((kind, name)) = kind.zip(name) else {
        let list: ListBody =
            client.get(&format!("/v1/{}", kind.map_or_else(|| "resources".into(), segment))).await?;
        if json {
            say(serde_json::to_string_pretty(&list)?);
        } else {
            let rows = list
                .items
                .into_iter()
                .map(|item| [item.kind.to_string(), item.name.to_string(), item.revision.to_string()]);
            say(table(["KIND", "NAME", "REVISION"], rows));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let object: ObjectBody = client.get(&format!("/v1/{}/{}", segment(kind), segment(name))).await?;
    say(if json { serde_json::to_string_pretty(&object)? } else { as_file(object)? });
    Ok(ExitCode::SUCCESS)
}

/// A resource as a file in the configuration language.
fn as_file(ObjectBody { kind, name, spec, .. }: ObjectBody) -> anyhow::Result<String> {
    /// An object of a file: its name, then what it says.
    #[derive(Serialize)]
    struct Entry {
        name: String,
        #[serde(flatten)]
        spec: Value,
    }
    let entry = Entry { name: name.to_string(), spec };
    let file = std::collections::BTreeMap::from([(kind.plural(), [entry])]);
    Ok(serde_saphyr::to_string(&file)?.trim_end().to_owned())
}

pub(super) async fn delete(client: &Client, kind: &str, name: &str) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/{}/{}", segment(kind), segment(name));
    match client.call::<WrittenBody>(Method::DELETE, &path, Bytes::new()).await? {
        Ok(deleted) => say(written(&[deleted])),
        Err(failure) if failure.status == StatusCode::NOT_FOUND => bail!("{}", failure.body.error),
        Err(failure) => return Err(failure.into_error()),
    }
    Ok(ExitCode::SUCCESS)
}

/// What was done with each object.
pub(super) fn written(items: &[WrittenBody]) -> String {
    let rows = items.iter().map(|item| {
        let done = serde_json::to_value(item.result).ok();
        let done = done.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        [format!("{}/{}", item.kind, item.name), done, item.revision.to_string()]
    });
    table(["OBJECT", "RESULT", "REVISION"], rows)
}

pub(super) async fn nodes(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let nodes: Vec<NodeStatus> = client.get("/v1/nodes").await?;
    if json {
        say(serde_json::to_string_pretty(&nodes)?);
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let rows = nodes.iter().map(|node| {
        let state = if node.connected { "connected" } else { "gone" };
        [
            node.name.to_string(),
            format!("{state} {}", age(now.saturating_sub(node.since))),
            node.identity.to_string(),
            node.address.to_string(),
            plain(&node.version),
            node.revision.to_string(),
            node.behind.to_string(),
            node.refused.len().to_string(),
        ]
    });
    say(table(["NAME", "STATE", "IDENTITY", "ADDRESS", "VERSION", "REVISION", "BEHIND", "REFUSED"], rows));
    for refusal in refusals(&nodes) {
        say(refusal);
    }
    Ok(ExitCode::SUCCESS)
}

/// Every object that a node has refused, one line each.
pub(super) fn refusals(nodes: &[NodeStatus]) -> Vec<String> {
    let refusals = nodes.iter().flat_map(|node| node.refused.iter().map(move |refusal| (node, refusal)));
    refusals
        .map(|(node, refused)| {
            let (kind, name) = (&refused.kind, &refused.name);
            plain(&format!("{} refused {kind}/{name}: {}: {}", node.name, refused.field, refused.reason))
        })
        .collect()
}

/// What a node says, without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

pub(super) async fn token(arguments: TokenArgs) -> anyhow::Result<ExitCode> {
    let TokenArgs { node, id, ttl, data, server } = arguments;
    if let Some(data) = data {
        let no_data = || format!("{} is not the data of an `outrigger-control serve`", data.display());
        let tokens = Tokens::of(&data).with_context(no_data)?;
        let (token, _) = tokens.issue(&node, id.as_ref(), ttl.get(), SystemTime::now())?;
        say(token);
        return Ok(ExitCode::SUCCESS);
    }
    let body = json!(TokenRequest { node, id, ttl: Some(ttl) }).to_string();
    match server.client()?.call::<TokenBody>(Method::POST, "/v1/tokens", body).await? {
        Ok(made) => say(made.token),
        Err(failure) => return Err(failure.into_error()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Columns for people, without lines between them.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.add_rows(rows);
    table.trim_fmt()
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A word of a command as one segment of a path: percent-encoded where it must be (RFC 3986, section 2.1).
fn segment(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    word.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
