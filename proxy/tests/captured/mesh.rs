//! A mesh of network namespaces: the control API in one, two pods with an application, a sidecar and capture, and a
//! host outside the mesh.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use outrigger_config::{Name, file};
use outrigger_control_api::{ControlApi, Options, start};
use outrigger_testkit::app::{App, TcpApp};
use outrigger_testkit::netns::{self, APP, Inside, Net, PROXY, Pod, Process};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(20);
/// Where the applications of each pod listen: HTTP, a second one of HTTP, and one of TCP that speaks first.
pub const HTTP: u16 = 8080;
pub const CANARY: u16 = 8081;
pub const GREETS: u16 = 9000;
/// Endpoints that the mesh knows, where a test may put an application.
pub const SPARE: u16 = 8443;
pub const GREETING: &[u8] = b"220 welcome\r\n";
/// An address that nobody has.
pub const NOWHERE: &str = "10.99.0.1";

/// What the mesh starts with: each pod's ports over both address families, found by the address alone.
const BACKENDS: &str = r#"
backends:
  - name: a
    endpoints:
      - { address: "10.77.0.1:8080", identity: "spiffe://outrigger.local/node/a" }
      - { address: "[fd77::1]:8080", identity: "spiffe://outrigger.local/node/a" }
  - name: b
    endpoints:
      - { address: "10.77.0.2:8080", identity: "spiffe://outrigger.local/node/b" }
      - { address: "[fd77::2]:8080", identity: "spiffe://outrigger.local/node/b" }
  - name: b-canary
    endpoints:
      - { address: "10.77.0.2:8081", identity: "spiffe://outrigger.local/node/b" }
  - name: b-tcp
    endpoints:
      - { address: "10.77.0.2:9000", identity: "spiffe://outrigger.local/node/b" }
      - { address: "[fd77::2]:9000", identity: "spiffe://outrigger.local/node/b" }
      - { address: "10.77.0.2:8443", identity: "spiffe://outrigger.local/node/b" }
      - { address: "[fd77::2]:8443", identity: "spiffe://outrigger.local/node/b" }
"#;

/// The whole of it. Fields are dropped in order: what runs before where it runs.
pub struct Mesh {
    pub control: Option<Control>,
    pub a: Member,
    pub b: Member,
    pub outside: Pod,
    _switch: Net,
}

impl Mesh {
    /// `None`, with a line that says why, where this cannot run.
    pub fn start() -> Option<Self> {
        if let Err(why) = netns::available(&["curl", "tcpdump"]) {
            println!("skipped: {why}");
            return None;
        }
        let net = Net::new().unwrap();
        let control = Control::start(Pod::new(&net, "control", 9).unwrap());
        let a = Member::start(&net, "a", 1, &control);
        let b = Member::start(&net, "b", 2, &control);
        let outside = Pod::new(&net, "outside", 3).unwrap();
        control.apply(BACKENDS);
        Some(Self { control: Some(control), a, b, outside, _switch: net })
    }

    /// Applies resources, and returns once both sidecars act on them.
    pub fn apply(&self, text: &str) {
        self.control.as_ref().expect("a control API that runs").apply(text);
    }
}

/// The control API, in a pod of its own.
pub struct Control {
    api: Arc<ControlApi>,
    inside: Inside,
    pod: Pod,
    _data: TempDir,
}

impl Control {
    fn start(pod: Pod) -> Self {
        let data = tempfile::tempdir().unwrap();
        let inside = pod.inside_as(0).unwrap();
        let options = Options { names: vec![pod.ipv4().to_string()], ..Options::new(data.path()) };
        let api = Arc::new(inside.run(start(options)).unwrap());
        Self { api, inside, pod, _data: data }
    }

    fn apply(&self, text: &str) {
        let file = file::parse(text).unwrap();
        assert!(file.rejected.is_empty(), "{:?}", file.rejected);
        let api = self.api.clone();
        let all_have = async move {
            let revision = api.put(file.resources).await.unwrap();
            let live = |name: &str, nodes: &[outrigger_control_api::node::NodeStatus]| {
                nodes.iter().any(|node| node.name.as_str() == name && node.revision >= revision)
            };
            let done = api.wait_for_nodes(|nodes| live("a", nodes) && live("b", nodes));
            tokio::time::timeout(PATIENCE, done).await.expect("both nodes at the last revision");
            assert!(api.nodes().iter().all(|node| node.refused.is_empty()), "{:?}", api.nodes());
        };
        self.inside.run(all_have);
    }

    fn token(&self, node: &str) -> String {
        let node: Name = node.parse().unwrap();
        self.api.token(&node, None, Duration::from_hours(1)).unwrap()
    }
}

/// A pod of the mesh: applications of user 1000, a sidecar of user 1337, and capture.
pub struct Member {
    pub sidecar: Process,
    pub app: App,
    pub apps: Inside,
    pub pod: Pod,
    _others: (App, TcpApp),
    run: Vec<String>,
    _binary: Arc<TempDir>,
    folder: TempDir,
}

impl Member {
    fn start(net: &Net, name: &str, number: u8, control: &Control) -> Self {
        let pod = Pod::new(net, name, number).unwrap();
        let apps = pod.inside_as(APP).unwrap();
        let everywhere = |port| SocketAddr::from(([0_u16; 8], port));
        let (first, second) = (name.to_owned(), format!("{name}-canary"));
        let (app, canary, greets) = apps.run(async move {
            let app = App::builder().name(&first).address(everywhere(HTTP)).start().await;
            let canary = App::builder().name(&second).address(everywhere(CANARY)).start().await;
            (app, canary, TcpApp::start(everywhere(GREETS), GREETING).await.unwrap())
        });

        let (folder, binary) = (folder(), binary());
        let outrigger = path(binary.path().join("outrigger"));
        let (token, state) = (folder.path().join("token"), folder.path().join("state"));
        std::fs::write(&token, control.token(name)).unwrap();
        std::fs::create_dir(&state).unwrap();
        std::os::unix::fs::chown(&state, Some(PROXY), Some(PROXY)).unwrap();
        let url = format!("https://{}:15012", control.pod.ipv4());
        let (token, state) = (path(token), path(state));
        let run = [
            &*outrigger,
            "run",
            "--control",
            &url,
            "--node",
            name,
            "--token-file",
            &token,
            "--state-dir",
            &state,
        ];
        let run: Vec<_> = run
            .into_iter()
            .chain(["--drain-delay", "0s", "--drain-quiet", "300ms"])
            .map(str::to_owned)
            .collect();
        let sidecar = run_sidecar(&pod, &run);
        pod.exec_as(0, &[&*outrigger, "capture", "up"]).unwrap().ok().unwrap();
        Self { sidecar, app, apps, pod, _others: (canary, greets), run, _binary: binary, folder }
    }

    /// Takes the rules away that redirect its traffic.
    pub fn capture_down(&self) {
        self.pod.exec_as(0, &[&*self.run[0], "capture", "down"]).unwrap().ok().unwrap();
    }

    /// Waits until at least so many bytes of what its sidecar has applied are on disk.
    pub fn kept(&self, bytes: u64) {
        let file = self.folder.path().join("state/state.sealed");
        let deadline = Instant::now() + PATIENCE;
        while std::fs::metadata(&file).map_or(0, |file| file.len()) < bytes {
            assert!(Instant::now() < deadline, "{} does not grow to {bytes} bytes", file.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills its sidecar, as the kernel does when memory is short.
    pub fn kill_sidecar(&mut self) {
        self.sidecar.signal(Signal::KILL).unwrap();
        self.sidecar.wait(PATIENCE).unwrap();
    }

    /// Starts its sidecar again.
    pub fn restart_sidecar(&mut self) {
        self.sidecar = run_sidecar(&self.pod, &self.run);
    }

    /// The access log's line about traffic in a direction that contains `text`, as soon as it is there.
    pub fn logged(&self, direction: &str, text: &str) -> Value {
        let direction = format!("\"direction\":\"{direction}\"");
        let is_it = |line: &str| line.contains(&direction) && line.contains(text);
        let line = self.sidecar.wait_until(is_it, PATIENCE).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

fn run_sidecar(pod: &Pod, run: &[String]) -> Process {
    let sidecar = pod.spawn_as(PROXY, run).unwrap();
    for listener in ["inbound on [::]:15006", "outbound on [::]:15001"] {
        sidecar.wait_for(&format!("outrigger: listener {listener}"), PATIENCE).unwrap();
    }
    sidecar
}

/// A folder that every user can look into.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// The `outrigger` binary, in a folder where user 1337 can run it; one copy for all tests that run at a time.
fn binary() -> Arc<TempDir> {
    static COPY: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut copy = COPY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = copy.upgrade() {
        return folder;
    }
    let folder = Arc::new(folder());
    // By another program: while this one has a file open to write, whatever it forks meanwhile keeps that from being run.
    let installed = Command::new("install")
        .args(["-m", "0755", env!("CARGO_BIN_EXE_outrigger")])
        .arg(folder.path().join("outrigger"))
        .status();
    assert!(installed.unwrap().success());
    *copy = Arc::downgrade(&folder);
    folder
}

fn path(path: PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

/// What `curl` got: status, header fields and body as they came.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// `curl` as the application's user, or another. Arguments are separated by spaces.
pub fn curl_as(pod: &Pod, uid: u32, arguments: &str) -> Got {
    let all = ["curl", "-qsS", "-m", "20", "--include"].into_iter().chain(arguments.split(' '));
    let text = pod.exec_as(uid, &all.collect::<Vec<_>>()).unwrap().ok().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Got {
        status: status.unwrap_or_else(|| panic!("no response: {text}")),
        head: head.into(),
        body: body.into(),
    }
}

pub fn curl(pod: &Pod, arguments: &str) -> Got {
    curl_as(pod, APP, arguments)
}

/// A TCP connection as the application's user, whose reads end.
pub fn dial(pod: &Pod, to: SocketAddr) -> TcpStream {
    let stream = pod.within_as(APP, || TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads as many bytes as `expected` has, which they must be.
pub fn hear(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(expected));
}

/// Says something, hears it back, ends its half and hears the other's end.
pub fn echo(mut stream: TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    hear(&mut stream, text);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

/// `text` in a file that every user can read, and the folder that it is in.
pub fn readable(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = folder();
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    (folder, file)
}

/// A URL.
pub fn url(ip: IpAddr, port: u16, path: &str) -> String {
    format!("http://{}{path}", SocketAddr::new(ip, port))
}
