//! Backends that are folders: their files, served from within the process to the worker that asks. tower-http does the
//! work: content types, ranges, conditional requests; a path cannot lead out of the folder.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use outrigger_config::Kind;
use outrigger_config::snapshot::{BackendEntry, Snapshot};
use outrigger_control::message::Refusal;
use outrigger_http::endpoint::Inside;
use tokio::io::DuplexStream;
use tower_http::services::ServeDir;

/// How many bytes of a file are on the way before the reading of it waits.
const BUFFER: usize = 64 * 1024;

type Answer = Response<UnsyncBoxBody<bytes::Bytes, io::Error>>;

/// A folder whose files are served.
#[derive(Debug)]
pub(crate) struct Folder {
    serve: ServeDir,
}

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        // Several ranges at once would be refused, which is allowed; to answer with the whole file is more useful.
        Self { serve: ServeDir::new(path).ignore_multi_range_requests(true) }
    }
}

impl Inside for Folder {
    fn open(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let serve = self.serve.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| answer(serve.clone(), request));
            // It ends when the worker closes its end, of which nothing is to be said.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(theirs), service).await;
        });
        ours
    }
}

async fn answer(mut serve: ServeDir, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let uri = request.uri().clone();
    if is_hidden(uri.path()) {
        return Ok(not_found());
    }
    Ok(match serve.try_call(request).await {
        Ok(response) if response.status() != StatusCode::NOT_FOUND => {
            let mut response = response.map(BodyExt::boxed_unsync);
            describe(&uri, &mut response);
            response
        }
        Ok(_) => not_found(),
        Err(error) if is_absence(&error) => not_found(),
        Err(error) => {
            tracing::warn!(path = uri.path(), %error, "a file cannot be served");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n")
        }
    })
}

/// Whether there is nothing by that name, as far as the caller is concerned.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotFound | Kind::NotADirectory | Kind::PermissionDenied | Kind::InvalidFilename
    )
}

/// Whether a name on the way begins with a dot, percent-encoded or not: `.env`, `.git`. `.well-known` (RFC 8615) is
/// there to be seen.
fn is_hidden(path: &str) -> bool {
    let dot = |segment: &str| {
        segment.starts_with('.') || segment.get(..3).is_some_and(|s| s.eq_ignore_ascii_case("%2e"))
    };
    let segments = path.split('/').flat_map(split_encoded);
    segments.into_iter().any(|segment| dot(segment) && segment != ".well-known")
}

/// The parts of a segment between encoded slashes.
fn split_encoded(segment: &str) -> impl Iterator<Item = &str> {
    segment.split("%2f").flat_map(|part| part.split("%2F"))
}

/// Says that text is UTF-8, and that what was seen before is to be asked for again: files here are being worked on. A
/// folder's address without a slash leads to a place relative to itself.
fn describe(uri: &Uri, response: &mut Answer) {
    let redirected = response.status().is_redirection();
    let headers = response.headers_mut();
    if let Some(location) = (redirected && headers.contains_key(LOCATION)).then(|| below(uri)).flatten() {
        headers.insert(LOCATION, location);
    }
    let textual = |kind: &&str| kind.starts_with("text/") && !kind.contains("charset");
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).filter(textual);
    if let Some(kind) = kind.and_then(|kind| HeaderValue::try_from(format!("{kind}; charset=utf-8")).ok()) {
        headers.insert(CONTENT_TYPE, kind);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// Where a folder's address without a slash leads to: relative, for the way here may have been rewritten.
fn below(uri: &Uri) -> Option<HeaderValue> {
    let name = uri.path().rsplit('/').next().filter(|name| !name.is_empty())?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    HeaderValue::try_from(format!("./{name}/{query}")).ok()
}

fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "there is no such file\n")
}

fn text(status: StatusCode, words: &'static str) -> Answer {
    let body = Full::from(words).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// Where a backend's folder is; `None` where a control API says so, which must not have a node's files served.
pub(crate) fn place(of: &outrigger_config::Backend, beside: Option<&Path>) -> Option<PathBuf> {
    Some(beside?.join(of.folder.as_ref()?))
}

/// What is wrong with the folders of a snapshot.
pub(crate) fn refused(snapshot: &Snapshot, beside: Option<&Path>) -> Vec<Refusal> {
    let with_folder = snapshot.backends.iter().filter(|entry| entry.spec.folder.is_some());
    let refusal = |entry: &BackendEntry| {
        let reason = match place(&entry.spec, beside) {
            None => "files are served only where the configuration is a file".to_owned(),
            Some(path) if !path.exists() => {
                format!("{} is not there; make it, or name another folder", path.display())
            }
            Some(path) if !path.is_dir() => {
                format!("{} is not a folder; name the folder that it is in", path.display())
            }
            Some(_) => return None,
        };
        let (kind, name) = (Kind::Backend.as_str().into(), entry.name.clone());
        Some(Refusal { kind, name, field: "folder".into(), reason })
    };
    with_folder.filter_map(refusal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_dot_is_hidden_however_it_is_written() {
        for path in ["/.env", "/a/.git/config", "/%2eenv", "/a%2F.env", "/a/%2E%2e/b", "/.well-known/../.env"]
        {
            assert!(is_hidden(path), "{path}");
        }
        for path in ["/", "/a.b/c.html", "/.well-known/x", "/a%2Fb"] {
            assert!(!is_hidden(path), "{path}");
        }
    }
}
