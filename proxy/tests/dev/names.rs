//! A name whose address changes, as that of a container that was made anew.

use std::process::{Command, Stdio};
use std::time::Duration;

use outrigger_testkit::app::App;

use crate::developer::Developer;

/// Whether this process may have a hosts file of its own.
fn may_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["--mount", "--map-root-user", "mount", "--bind", "/dev/null", "/etc/hosts"])
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// The hosts file alone would be read again after some seconds: a failed request has it read at once.
#[tokio::test]
async fn a_name_whose_address_changes_costs_one_failed_request_at_most() {
    if !may_mount() {
        println!("skipped: needs a mount namespace");
        return;
    }
    let before = App::builder().name("before").address(([127, 0, 0, 2], 0)).start().await;
    let port = before.address().port();
    let developer = Developer::new();
    let hosts = developer.home.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.2 box.test\n").unwrap();
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    command.args(["--mount", "--map-root-user", "sh", "-c", script]).arg(&hosts);
    let site = format!("shop=box.test:{port}");
    command.arg(env!("CARGO_BIN_EXE_outrigger"));
    command.args(["dev", "--https-port", "0", "--http-port", "0", &site]);
    command.env("HOME", developer.home.path()).env_remove("XDG_DATA_HOME");
    let dev = developer.start(command);
    assert_eq!(dev.get("shop.localhost", "/", "").await.header("x-app"), Some("before"));

    before.kill().await;
    let after = App::builder().name("after").address(([127, 0, 0, 3], port)).start().await;
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.3 box.test\n").unwrap();
    // As far apart as a person's requests are at least.
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(dev.get("shop.localhost", "/", "").await.status);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    println!("{seen:?}");
    assert!(seen.iter().filter(|status| **status != 200).count() <= 1, "{seen:?}");
    assert_eq!(dev.get("shop.localhost", "/", "").await.header("x-app"), Some("after"));
    drop(after);
}
