//! A headless Chromium, told what to do by the DevTools protocol over its pipe: JSON, each message ended by a NUL.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

use crate::developer::{Developer, PATIENCE};

/// A browser takes its time where a machine has other things to do.
pub(crate) const SLOW: Duration = Duration::from_mins(1);
const QUICK: Duration = Duration::from_secs(5);

const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

pub(crate) struct Browser {
    child: Child,
    says: ChildStdin,
    hears: Receiver<Value>,
    last: u64,
    /// The page, once it is open.
    session: Option<String>,
}

impl Browser {
    /// Starts it in a developer's home; `None` if there is no Chromium here.
    pub(crate) fn start(developer: &Developer) -> Option<Self> {
        let program = PROGRAMS.iter().find(|name| is_there(name))?;
        let home = developer.home.path();
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>&2", "sh", program]);
        command.args([
            "--headless",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ]);
        command.args(["--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=400,300"]);
        command.arg(format!("--user-data-dir={}", home.join("chromium").display()));
        if !trusted(home, &developer.root()) {
            command.arg("--ignore-certificate-errors");
        }
        command.arg("about:blank").env("HOME", home).env_remove("XDG_DATA_HOME");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let says = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, hears) = channel();
        std::thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, says, hears, last: 0, session: None };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", json!({}));
        Some(browser)
    }

    /// Calls a method, and gives its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.try_call(method, params, SLOW).unwrap_or_else(|why| panic!("{method}: {why}"))
    }

    /// Calls a method that a page may fail to answer, because it is just being replaced by another.
    fn try_call(&mut self, method: &str, params: Value, patience: Duration) -> Result<Value, String> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.says.write_all(message.to_string().as_bytes()).unwrap();
        self.says.write_all(&[0]).unwrap();
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let heard = self.hears.recv_timeout(left).map_err(|_| "no answer".to_owned())?;
            if heard["id"] == self.last {
                let error = &heard["error"];
                return if error.is_null() { Ok(heard["result"].clone()) } else { Err(error.to_string()) };
            }
        }
    }

    /// What an expression has as its value in the page; null where there is no telling.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        let result = self.try_call("Runtime.evaluate", params, QUICK).unwrap_or_default();
        result["result"]["value"].clone()
    }

    /// The colour in the middle of what is seen, if anything is.
    fn colour(&mut self) -> Option<[u8; 3]> {
        let shot = self.try_call("Page.captureScreenshot", json!({ "format": "png" }), QUICK).ok()?;
        let file = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        let mut picture = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; picture.output_buffer_size().unwrap()];
        let info = picture.next_frame(&mut pixels).unwrap();
        assert_eq!(info.bit_depth, png::BitDepth::Eight);
        let bytes = info.color_type.samples();
        let middle = (info.height / 2 * info.width + info.width / 2) as usize * bytes;
        Some([pixels[middle], pixels[middle + 1], pixels[middle + 2]])
    }

    /// Whether this colour comes to be in the middle of what is seen, in so long.
    pub(crate) fn comes_to_show(&mut self, colour: [u8; 3], patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            if self.colour() == Some(colour) {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.says.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let until = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a program is there.
pub(crate) fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Has the browser trust the authority, as `outrigger dev trust` does, which would change the system's store as well.
fn trusted(home: &Path, root: &Path) -> bool {
    let folder = home.join(".pki/nssdb");
    std::fs::create_dir_all(&folder).unwrap();
    let database = format!("sql:{}", folder.display());
    let certutil = |arguments: &[&str]| {
        let done = Command::new("certutil").args(["-d", &database]).args(arguments).output();
        done.is_ok_and(|output| output.status.success())
    };
    certutil(&["-N", "--empty-password"])
        && certutil(&["-A", "-t", "C,,", "-n", "developer", "-i", root.to_str().unwrap()])
}
