//! `outrigger explain`: which rule takes a request, by a file or by what a running proxy has.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use outrigger_config::explain::{Asked, Explanation, Part, Taken, explain};
use outrigger_config::route::{Retry, SessionKind, Timeouts};
use outrigger_config::{Kind, Snapshot, file};

use crate::cli::{coloured, fail, print_line};

/// How long a running proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["config", "admin"]).required(true))]
pub(crate) struct Explain {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The admin interface of a running proxy: http://127.0.0.1:15000.
    #[arg(long, value_name = "URL")]
    admin: Option<Uri>,
    /// The request's method.
    method: Method,
    /// The request's URL: http://shop.localhost:8080/api?x=1.
    url: Url,
    /// A header of the request; as often as it has one.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<Field>,
    /// The listener that it comes to [default: by the URL's port, or one whose routes take it].
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// A URL whose scheme may be left out.
#[derive(Debug, Clone)]
struct Url(Uri);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        // A fragment is not sent.
        let whole = whole.split('#').next().unwrap_or_default();
        let url: Uri = whole.parse().map_err(|error| format!("{error}: write http://HOST/PATH"))?;
        if url.authority().is_none() { Err("write http://HOST/PATH".into()) } else { Ok(Self(url)) }
    }
}

/// A header's line.
#[derive(Debug, Clone)]
struct Field(HeaderName, HeaderValue);

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
        let name = name.trim().parse().map_err(|_| format!("`{name}` is not a header's name"))?;
        let value = value.trim().parse().map_err(|_| format!("`{value}` cannot be a header's value"))?;
        Ok(Self(name, value))
    }
}

/// Runs the command. It fails if nothing takes the request.
pub(crate) fn run(args: Explain) -> ExitCode {
    let mut headers = HeaderMap::new();
    for Field(name, value) in args.headers {
        headers.append(name, value);
    }
    let asked = Asked { method: args.method, url: args.url.0, headers, listener: args.listener };
    let explained = match (&args.config, &args.admin) {
        (Some(path), _) => by_file(path, &asked),
        (None, Some(admin)) => by_admin(admin, &asked),
        (None, None) => Err("give --config FILE or --admin URL".into()),
    };
    let explanation = match explained {
        Ok(explanation) => explanation,
        Err(why) => return fail(&why),
    };
    let text = if args.json {
        serde_json::to_string_pretty(&explanation).unwrap_or_default()
    } else {
        render(&asked, &explanation, coloured(&std::io::stdout()))
    };
    print_line(text.trim_end());
    if explanation.taken.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn by_file(path: &Path, asked: &Asked) -> Result<Explanation, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let file = file::parse(&text)
        .map_err(|error| format!("{name}:{}:{}: {}", error.line, error.column, error.reason))?;
    for rejected in &file.rejected {
        eprintln!("{name}:{rejected} (left out)");
    }
    let snapshot = Snapshot::build(0, file.resources.into_iter().map(Arc::new));
    explain(&snapshot, asked).map_err(|unexplained| format!("{name}: {unexplained}"))
}

fn by_admin(admin: &Uri, asked: &Asked) -> Result<Explanation, String> {
    let authority = admin.authority().ok_or("--admin: write http://127.0.0.1:15000")?;
    let unreachable = |error: std::io::Error| format!("{admin} does not answer: {error}");
    let place = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(15000));
    let mut stream = TcpStream::connect(place).map_err(unreachable)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
    // After the answer to a request of HTTP/1.0 comes the end.
    let request = format!("GET /explain?{} HTTP/1.0\r\nHost: {authority}\r\n\r\n", to_query(asked));
    stream.write_all(request.as_bytes()).map_err(unreachable)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(unreachable)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) != Some("200") {
        return Err(format!("{admin} answers {}: {}", head.lines().next().unwrap_or_default(), body.trim()));
    }
    serde_json::from_str(body).map_err(|error| format!("{admin} answers something else: {error}"))
}

/// A request as the query of the admin interface's `/explain`.
fn to_query(asked: &Asked) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("method", asked.method.as_str()).append_pair("url", &asked.url.to_string());
    for (name, value) in &asked.headers {
        query.append_pair("header", &format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    if let Some(listener) = &asked.listener {
        query.append_pair("listener", listener);
    }
    query.finish()
}

/// A request out of the query of the admin interface's `/explain`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn from_query(query: &str) -> Result<Asked, String> {
    let (mut method, mut url, mut headers, mut listener) = (Method::GET, None, HeaderMap::new(), None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "method" => method = value.parse().map_err(|_| format!("method: `{value}` is none"))?,
            "url" => url = Some(value.parse::<Url>().map_err(|why| format!("url: {why}"))?.0),
            "header" => {
                let Field(name, value) = value.parse().map_err(|why| format!("header: {why}"))?;
                headers.append(name, value);
            }
            "listener" => listener = Some(value.into_owned()),
            _ => return Err(format!("`{name}` is not known: give url, method, header and listener")),
        }
    }
    let url = url.ok_or("url is missing: GET /explain?method=GET&url=http://HOST/PATH&header=NAME:VALUE")?;
    Ok(Asked { method, url, headers, listener })
}

/// An explanation for people.
fn render(asked: &Asked, explanation: &Explanation, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut text = String::new();
    let mut row = |label: &str, lines: &[String]| {
        let mut label = paint("2", &format!("{label:<10}"));
        for line in lines {
            let _ = writeln!(text, "{label}{line}");
            label = " ".repeat(10);
        }
    };
    row("request", &[format!("{} {}", asked.method, asked.url)]);
    let opaque = if explanation.opaque { ", which does not look for HTTP in the connection" } else { "" };
    row("listener", &[format!("{}{opaque}", explanation.listener)]);
    if explanation.path != asked.url.path() {
        row("path", std::slice::from_ref(&explanation.path));
    }
    match (&explanation.refused, &explanation.taken) {
        (Some(why), _) => row("route", &[paint("31", &format!("none: refused with 400, for {why}"))]),
        (None, None) if explanation.passes => {
            row("route", &[paint("31", "none takes it: if it was captured, it goes where it was addressed")]);
        }
        (None, None) => row("route", &[paint("31", "none takes it")]),
        (None, Some(taken)) => {
            let kind =
                if taken.kind == Kind::HttpRoute { String::new() } else { format!(" ({})", taken.kind) };
            row("route", &[format!("{}{kind}", paint("32", taken.route.as_str()))]);
            row("rule", &[format!("{}, by {}", taken.rule, taken.by)]);
            row("backends", &backends(&taken.backends));
            for (label, line) in policies(taken) {
                row(label, &[line]);
            }
        }
    }
    let names: Vec<String> =
        explanation.near.iter().map(|near| format!("{}/{}", near.route, near.rule)).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let near = names.iter().zip(&explanation.near);
    let mut near: Vec<String> =
        near.map(|(name, near)| format!("{name:<width$}  {}", paint("2", &near.because))).collect();
    if explanation.more > 0 {
        near.push(format!("and {} more", explanation.more));
    }
    row("not taken", &near);
    text
}

fn backends(parts: &[Part]) -> Vec<String> {
    let width = parts.iter().map(|part| part.backend.as_str().len()).max().unwrap_or(0);
    let line = |part: &Part| {
        let share = format!("{:.1}", part.percent);
        let share = share.strip_suffix(".0").unwrap_or(&share);
        let unknown = if part.known { "" } else { ", not known: 503" };
        let filters =
            if part.filters.is_empty() { String::new() } else { format!(", {}", part.filters.join(", ")) };
        format!("{:<width$}  {share:>4} %{unknown}{filters}", part.backend.as_str())
    };
    if parts.is_empty() { vec!["none".into()] } else { parts.iter().map(line).collect() }
}

/// How often a request is sent again, and after what.
fn again(retry: &Retry, timeouts: &Timeouts) -> String {
    let times = match retry.attempts {
        0 => return "never".into(),
        1 => "once".into(),
        times => format!("up to {times} times"),
    };
    let mut after = vec!["a failed connection".to_owned()];
    let codes: Vec<String> = retry.codes.iter().map(u16::to_string).collect();
    let statuses: Vec<String> = retry.grpc_statuses.iter().map(ToString::to_string).collect();
    after.extend([codes, statuses].into_iter().filter(|it| !it.is_empty()).map(|it| it.join(", ")));
    if timeouts.backend_request.is_some_and(|limit| !limit.get().is_zero()) {
        after.push("an attempt without an answer in time".into());
    }
    let hedge =
        retry.hedge_delay.map(|delay| format!("; elsewhere as well, after {delay} without an answer"));
    format!("{times}, after {}{}", after.join(" or "), hedge.unwrap_or_default())
}

/// The filters, timeouts, retries and session of a rule, as far as it has them.
fn policies(taken: &Taken) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if !taken.filters.is_empty() {
        rows.push(("filters", taken.filters.join(", ")));
    }
    let timeouts = [("request", taken.timeouts.request), ("each attempt", taken.timeouts.backend_request)];
    let timeouts = timeouts.into_iter().filter_map(|(what, limit)| {
        limit.filter(|limit| !limit.get().is_zero()).map(|limit| format!("{what} {limit}"))
    });
    let timeouts: Vec<String> = timeouts.collect();
    if !timeouts.is_empty() {
        rows.push(("timeouts", timeouts.join(", ")));
    }
    if let Some(retry) = &taken.retry {
        rows.push(("retry", again(retry, &taken.timeouts)));
    }
    if let Some(session) = &taken.session_persistence {
        let kind = if session.kind == SessionKind::Cookie { "cookie" } else { "header" };
        let name = session.session_name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        rows.push(("session", format!("by {kind}{name}")));
    }
    rows
}
