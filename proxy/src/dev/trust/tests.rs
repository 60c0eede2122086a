use std::os::unix::fs::PermissionsExt;

use outrigger_certs::Authority;
use tempfile::TempDir;

use super::*;

/// A machine in a folder, with these programs in its one folder for programs.
fn machine(folder: &TempDir, programs: &[(&str, &str)]) -> Machine {
    let bin = folder.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    for (name, script) in programs {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Machine {
        root: folder.path().join("root"),
        home: folder.path().join("home"),
        path: vec![bin],
        mac: false,
    }
}

fn root(folder: &TempDir) -> Root {
    let pem = Authority::create_constrained("localhost", "ada").unwrap().cert_pem();
    let file = folder.path().join("its root.pem");
    fs::write(&file, &pem).unwrap();
    Root { file, pem, id: "1a2b3c4d".into() }
}

fn states(steps: &[Step]) -> Vec<(&str, State)> {
    steps.iter().map(|step| (step.store, step.state)).collect()
}

#[test]
fn the_systems_store_takes_it_and_gives_it_back() {
    let folder = TempDir::new().unwrap();
    let (ran, root) = (folder.path().join("ran"), root(&folder));
    let script = format!("echo update >> '{}'", ran.display());
    let machine = machine(&folder, &[("update-ca-certificates", &script)]);
    let anchors = machine.root.join("usr/local/share/ca-certificates");
    fs::create_dir_all(&anchors).unwrap();

    assert_eq!(states(&machine.state(&root)), [("system", State::Absent)]);
    assert_eq!(states(&machine.trust(&root)), [("system", State::Added)]);
    assert_eq!(fs::read_to_string(anchors.join("outrigger-dev-1a2b3c4d.crt")).unwrap(), root.pem);
    assert_eq!(states(&machine.state(&root)), [("system", State::Present)]);
    assert_eq!(states(&machine.trust(&root)), [("system", State::Present)]);
    assert_eq!(states(&machine.untrust(&root)), [("system", State::Removed)]);
    assert_eq!(states(&machine.untrust(&root)), [("system", State::Absent)]);
    assert_eq!(fs::read_dir(&anchors).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(ran).unwrap(), "update\nupdate\n", "as often as something changed");
}

#[test]
fn what_cannot_be_done_is_said_with_the_command_that_can() {
    let folder = TempDir::new().unwrap();
    let root = root(&folder);
    let machine = machine(&folder, &[("dnf", "exit 1")]);
    let anchors = machine.root.join("etc/pki/ca-trust/source/anchors");
    fs::create_dir_all(&anchors).unwrap();
    fs::create_dir_all(machine.home.join(".pki/nssdb")).unwrap();
    let steps = machine.trust(&root);
    assert_eq!(states(&steps), [("system", State::Todo), ("chromium", State::Todo)]);
    let anchor = anchors.join("outrigger-dev-1a2b3c4d.pem");
    let expected = format!(
        "sudo install -m 644 '{}' {} && sudo update-ca-trust extract",
        root.file.display(),
        anchor.display()
    );
    assert_eq!(steps[0].command.as_deref(), Some(expected.as_str()));
    assert_eq!(steps[0].why.as_deref(), Some("there is no `update-ca-trust`"));
    assert_eq!(steps[1].command.as_deref(), Some("sudo dnf install nss-tools && outrigger dev trust"));
    assert_eq!(
        serde_json::to_value(&steps[1]).unwrap(),
        serde_json::json!({
            "store": "chromium", "path": machine.home.join(".pki/nssdb"), "state": "todo",
            "why": "there is no `certutil`", "do": "sudo dnf install nss-tools && outrigger dev trust",
        })
    );
}

#[test]
fn browsers_take_it_and_give_it_back() {
    let path: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let folder = TempDir::new().unwrap();
    let root = root(&folder);
    let mut machine = machine(&folder, &[("chromium", "exit 1")]);
    machine.path.extend(path);
    if machine.program("certutil").is_none() {
        println!("skipped: needs certutil");
        return;
    }
    let profile = machine.home.join(".mozilla/firefox/x1.default");
    fs::create_dir_all(&profile).unwrap();
    machine.certutil(&profile, &["-N", "--empty-password"]).unwrap();
    let both = |state| [("chromium", state), ("firefox", state)];
    assert_eq!(states(&machine.state(&root)), both(State::Absent));
    assert_eq!(states(&machine.trust(&root)), both(State::Added));
    assert_eq!(states(&machine.trust(&root)), both(State::Present));
    assert_eq!(states(&machine.untrust(&root)), both(State::Removed));
    assert_eq!(states(&machine.untrust(&root)), both(State::Absent));
}

#[test]
fn a_word_with_odd_characters_is_quoted_for_the_shell() {
    assert_eq!(shell("/a-b/c.pem"), "/a-b/c.pem");
    assert_eq!(shell("/it's here"), r"'/it'\''s here'");
}
