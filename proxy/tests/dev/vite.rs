//! A page of a Vite development server, seen in a browser through the proxy: first the page to wait on, then the real one,
//! then an edit by hot reload.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::browser::{Browser, SLOW, is_there};
use crate::developer::{Developer, PATIENCE};

/// The version that is installed: one that is known to work is known to work tomorrow.
const VITE: &str = "vite@8.3.8";
/// How long its installation may take.
const INSTALLATION: Duration = Duration::from_mins(4);

const RED: [u8; 3] = [200, 30, 30];
const GREEN: [u8; 3] = [30, 160, 60];

#[test]
fn an_edit_shows_in_the_browser_by_hot_reload() {
    if !["node", "npm"].iter().all(|name| is_there(name)) {
        println!("skipped: needs node and npm");
        return;
    }
    let vite = match vite() {
        Ok(vite) => vite,
        Err(why) => {
            println!("skipped: needs Vite from npm's registry: {why}");
            return;
        }
    };
    let project = tempfile::tempdir().unwrap();
    page(project.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let developer = Developer::new();
    let dev = developer.dev(&[&format!("shop={port}")]);
    let Some(mut browser) = Browser::start(&developer) else {
        println!("skipped: needs Chromium");
        return;
    };

    let url = format!("https://shop.localhost:{}/", dev.port);
    let opened = browser.call("Page.navigate", json!({ "url": url }));
    assert!(
        opened["errorText"].is_null() || opened["errorText"] == "net::ERR_HTTP_RESPONSE_CODE_FAILURE",
        "{opened}"
    );
    waits(&mut browser);

    let _server = Server::start(&vite, project.path(), port);
    assert!(browser.comes_to_show(RED, SLOW), "{}", html(&mut browser));
    browser.evaluate("window.before = 'the edit'");
    // Vite's websocket may not be open yet, and an edit before that is not seen: then there is another.
    let edited = (0..12).any(|edit| {
        let style = format!("{}/* edit {edit} */\n", style(GREEN));
        fs::write(project.path().join("style.css"), style).unwrap();
        browser.comes_to_show(GREEN, SLOW / 12)
    });
    assert!(edited, "{}", html(&mut browser));
    assert_eq!(browser.evaluate("window.before"), "the edit", "the page was not loaded anew");

    drop(browser);
    let until = Instant::now() + PATIENCE;
    let through_here =
        std::iter::from_fn(|| dev.log.recv_timeout(until.saturating_duration_since(Instant::now())).ok())
            .any(|line| line.contains("\"status\":101"));
    assert!(through_here, "the hot reload's websocket went through the proxy");
}

/// Waits until the browser shows the page to wait on.
fn waits(browser: &mut Browser) {
    let until = Instant::now() + SLOW;
    while browser.evaluate("document.title") != "shop.localhost is not up yet" {
        assert!(Instant::now() < until, "{}", html(browser));
    }
}

fn html(browser: &mut Browser) -> serde_json::Value {
    browser.evaluate("document.documentElement.outerHTML")
}

fn style([red, green, blue]: [u8; 3]) -> String {
    format!("html {{ background: rgb({red} {green} {blue}) }}\n")
}

fn page(folder: &Path) {
    let html = "<!doctype html><title>shop</title><script type=\"module\" src=\"/main.js\"></script>\n";
    fs::write(folder.join("index.html"), html).unwrap();
    fs::write(folder.join("main.js"), "import './style.css'\n").unwrap();
    fs::write(folder.join("style.css"), style(RED)).unwrap();
}

/// Vite's program, installed once for all runs.
fn vite() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(VITE.replace('@', "-"));
    let program = folder.join("node_modules/vite/bin/vite.js");
    if program.is_file() {
        return Ok(program);
    }
    // Made aside, so that an installation that was broken off is none.
    let aside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
    fs::write(aside.path().join("package.json"), "{}").map_err(|error| error.to_string())?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--no-progress", "--fetch-retries=1", VITE]);
    let log = aside.path().join("npm.log");
    let output = fs::File::create(&log).map_err(|error| error.to_string())?;
    npm.current_dir(aside.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let mut npm = npm.spawn().map_err(|error| error.to_string())?;
    let until = Instant::now() + INSTALLATION;
    let status = loop {
        match npm.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            _ => {
                let _ = npm.kill();
                return Err(format!("npm took longer than {INSTALLATION:?}"));
            }
        }
    };
    if !status.success() {
        return Err(fs::read_to_string(&log).unwrap_or_default().replace('\n', " "));
    }
    match fs::rename(aside.path(), &folder) {
        Ok(()) => Ok(program),
        Err(_) if program.is_file() => Ok(program),
        Err(error) => Err(error.to_string()),
    }
}

/// A development server. Dropped, it is killed.
struct Server(Child);

impl Server {
    fn start(vite: &Path, project: &Path, port: u16) -> Self {
        let mut command = Command::new("node");
        command.arg(vite).args(["--port", &port.to_string(), "--strictPort"]).current_dir(project);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
