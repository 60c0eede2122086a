//! What was answered survives `kill -9`.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{get, put};

const PROGRAM: &str = env!("CARGO_BIN_EXE_outrigger-control");

/// The real program, killed when dropped.
pub struct Program {
    child: Child,
    pub rest: SocketAddr,
}

impl Program {
    pub fn start(data: &Path) -> Self {
        Self::spawn(&mut Command::new(PROGRAM), data)
    }

    /// By a command that becomes the program.
    fn spawn(command: &mut Command, data: &Path) -> Self {
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--stream", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let rest = first.strip_prefix("outrigger-control: REST on http://").unwrap().parse().unwrap();
        let second = lines.next().unwrap().unwrap();
        assert!(second.starts_with("outrigger-control: stream on https://127.0.0.1:"), "{second}");
        Self { child, rest }
    }

    /// How large a file it may write; `None`: as large as it likes.
    fn limit_files(&self, bytes: Option<u64>) {
        use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
        let maximum = getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit { current: bytes.or(maximum), maximum };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit).unwrap();
    }

    pub fn server(&self) -> String {
        format!("http://{}", self.rest)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn an_answered_put_survives_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let mut answered = 0;
    for round in 1..=5 {
        let mut program = Program::start(data.path());
        let to = program.rest;
        // Killed in the middle of a run of puts, after a number of answers that differs each time.
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let puts = tokio::spawn(async move {
            for number in answered + 1.. {
                let spec = json!({ "spec": { "endpoints": [{ "address": format!("10.0.0.1:{number}") }] } });
                let answer = put(to, &format!("/v1/backends/b{number}"), &spec).await;
                assert_eq!(answer.status, 201, "{}", answer.body);
                if tell.send(number).is_err() {
                    return;
                }
            }
        });
        for _ in 0..7 * round {
            answered = told.recv().await.unwrap();
        }
        program.kill();
        while let Some(number) = told.recv().await {
            answered = number;
        }
        assert!(puts.await.is_err(), "the connection was cut");

        let program = Program::start(data.path());
        let kept = get(program.rest, "/v1/backends").await.body;
        let kept = kept["items"].as_array().unwrap().len();
        // One more may have reached the disk without its answer reaching us.
        assert!(kept == answered || kept == answered + 1, "{answered} were answered, {kept} are there");
        for number in 1..=answered {
            assert_eq!(get(program.rest, &format!("/v1/backends/b{number}")).await.status, 200, "b{number}");
        }
        answered = kept;
    }
}

#[tokio::test]
async fn a_termination_signal_ends_it_cleanly() {
    let data = tempfile::tempdir().unwrap();
    let mut program = Program::start(data.path());
    assert!(program.terminate().success());
}

/// A limit of the files' size stands in for a disk that is full: the writes fail alike.
#[tokio::test]
async fn a_disk_that_was_full_is_written_again_once_it_is_not() {
    let data = tempfile::tempdir().unwrap();
    // Without the trap the limit would end the program.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", PROGRAM]);
    let program = Program::spawn(&mut command, data.path());
    let small = json!({ "spec": { "endpoints": [{ "address": "10.0.0.1:80" }] } });
    let many: Vec<_> = (1..20_000).map(|port| json!({ "address": format!("10.0.0.1:{port}") })).collect();
    let large = json!({ "spec": { "endpoints": many } });
    assert_eq!(put(program.rest, "/v1/backends/before", &small).await.status, 201);

    let size = std::fs::metadata(data.path().join("store.redb")).unwrap().len();
    program.limit_files(Some(size));
    assert_eq!(put(program.rest, "/v1/backends/large", &large).await.status, 500);
    assert_eq!(get(program.rest, "/v1/backends/before").await.status, 200);
    assert_eq!(get(program.rest, "/v1/backends/large").await.status, 404);

    program.limit_files(None);
    assert_eq!(put(program.rest, "/v1/backends/large", &large).await.status, 201);
    drop(program);
    let program = Program::start(data.path());
    for name in ["before", "large"] {
        assert_eq!(get(program.rest, &format!("/v1/backends/{name}")).await.status, 200, "{name}");
    }
}

#[test]
fn a_data_directory_of_another_trust_domain_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    drop(Program::start(data.path()));
    let before = std::fs::read(data.path().join("mesh.json")).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_outrigger-control"))
        .args(["serve", "--listen", "127.0.0.1:0", "--stream", "127.0.0.1:0", "--trust-domain", "other.test"])
        .arg("--data")
        .arg(data.path())
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("outrigger.local, not other.test: say --trust-domain outrigger.local"), "{said}");
    assert_eq!(std::fs::read(data.path().join("mesh.json")).unwrap(), before);
}
