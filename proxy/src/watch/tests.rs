//! Real files in a temporary directory. The polls are 30 s apart, so what is noticed here came by an event.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::EventKind;
use notify::event::{AccessKind, AccessMode, CreateKind};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::{Follower, Shared, directories, follow, is_reading};

struct Scene {
    directory: TempDir,
    follower: Follower,
    changes: mpsc::Receiver<()>,
}

impl Scene {
    /// Follows these files, of which none exists yet.
    fn new(names: &[&str]) -> Self {
        let (follower, changes) = Follower::start();
        let scene = Self { directory: tempfile::tempdir().unwrap(), follower, changes };
        scene.set(names);
        scene
    }

    fn set(&self, names: &[&str]) {
        self.follower.set(names.iter().map(|name| self.path(name)).collect());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    /// As `ln -sfn`, but at once: a link made aside and renamed over.
    fn link(&self, target: &str, name: &str) {
        symlink(target, self.path(".link")).unwrap();
        fs::rename(self.path(".link"), self.path(name)).unwrap();
    }

    /// Waits for a notice, and until everything that has happened so far is part of one.
    async fn changed(&mut self) {
        let notice = timeout(Duration::from_secs(10), self.changes.recv()).await;
        notice.expect("a change is noticed within 10 s").expect("the follower goes on");
        while self.follower.shared.compare() {}
        while self.changes.try_recv().is_ok() {}
    }
}

#[tokio::test]
async fn a_write_a_rename_over_and_a_file_made_again_are_noticed() {
    let mut scene = Scene::new(&["mesh.yaml"]);
    scene.write("mesh.yaml", "made");
    scene.changed().await;
    scene.write("mesh.yaml", "written");
    scene.changed().await;
    scene.write("mesh.yaml.new", "renamed over");
    fs::rename(scene.path("mesh.yaml.new"), scene.path("mesh.yaml")).unwrap();
    scene.changed().await;
    fs::remove_file(scene.path("mesh.yaml")).unwrap();
    scene.changed().await;
    scene.write("mesh.yaml", "made again");
    scene.changed().await;
}

#[tokio::test]
async fn a_config_map_that_is_swapped_is_noticed() {
    let mut scene = Scene::new(&["mesh.yaml", "shop.pem"]);
    scene.write("..2024_1/mesh.yaml", "one");
    scene.write("..2024_1/shop.pem", "certificate");
    scene.link("..2024_1", "..data");
    scene.link("..data/mesh.yaml", "mesh.yaml");
    scene.link("..data/shop.pem", "shop.pem");
    scene.changed().await;
    for version in ["2", "3"] {
        let directory = format!("..2024_{version}");
        scene.write(&format!("{directory}/mesh.yaml"), version);
        scene.write(&format!("{directory}/shop.pem"), "certificate");
        scene.link(&directory, "..data");
        scene.changed().await;
    }
}

#[tokio::test]
async fn what_a_link_leads_to_elsewhere_is_followed() {
    let mut scene = Scene::new(&["current/mesh.yaml"]);
    scene.write("releases/1/mesh.yaml", "one");
    scene.write("releases/2/mesh.yaml", "two");
    scene.link("releases/1", "current");
    scene.changed().await;
    scene.link("releases/2", "current");
    scene.changed().await;
    scene.write("releases/2/mesh.yaml", "in place");
    scene.changed().await;
}

#[tokio::test]
async fn a_directory_may_be_missing_come_and_go() {
    let mut scene = Scene::new(&["etc/outrigger/mesh.yaml"]);
    scene.write("etc/outrigger/mesh.yaml", "one");
    scene.changed().await;
    fs::remove_dir_all(scene.path("etc")).unwrap();
    scene.changed().await;
    scene.write("etc/outrigger/mesh.yaml", "two");
    scene.changed().await;
    fs::rename(scene.path("etc/outrigger"), scene.path("etc/old")).unwrap();
    scene.write("etc/outrigger/mesh.yaml", "three");
    scene.changed().await;
    scene.write("etc/outrigger/mesh.yaml", "four");
    scene.changed().await;
}

#[tokio::test]
async fn the_set_of_files_can_change() {
    let mut scene = Scene::new(&["mesh.yaml"]);
    scene.write("mesh.yaml", "one");
    scene.changed().await;
    scene.set(&["mesh.yaml", "certs/shop.pem"]);
    scene.write("certs/shop.pem", "one");
    scene.changed().await;
    scene.write("certs/shop.pem", "two");
    scene.changed().await;
    scene.set(&["certs/shop.pem"]);
    scene.write("mesh.yaml", "not followed any more");
    assert!(!scene.follower.shared.compare());
    scene.write("certs/shop.pem", "three");
    scene.changed().await;
}

#[tokio::test]
async fn a_change_between_set_and_watching_is_not_lost() {
    let mut scene = Scene::new(&[]);
    scene.write("mesh.yaml", "one");
    scene.set(&["mesh.yaml"]);
    scene.write("mesh.yaml", "two"); // the follower's task has not run yet: nothing was awaited
    scene.set(&["mesh.yaml"]); // and a set that says the same does not hide it
    scene.changed().await;
}

#[tokio::test]
async fn a_change_is_noticed_within_100_ms() {
    let mut scene = Scene::new(&["mesh.yaml"]);
    scene.write("mesh.yaml", "first");
    scene.changed().await;
    let mut quickest = Duration::MAX;
    for round in 0..10 {
        let start = Instant::now();
        scene.write("mesh.yaml", &format!("round {round}"));
        scene.changed().await;
        quickest = quickest.min(start.elapsed());
    }
    // The quickest, because a machine that is busy with other tests delays any single one.
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
}

#[test]
fn only_content_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.yaml");
    let shared = Arc::new(Shared::default());
    let follower = Follower { shared: Arc::clone(&shared) };
    follower.set(BTreeSet::from([path.clone()]));
    assert!(!shared.compare(), "absent as before");
    fs::write(&path, "one").unwrap();
    assert!(shared.compare());
    fs::write(&path, "one").unwrap();
    assert!(!shared.compare(), "the same again");
    fs::write(directory.path().join("other"), "x").unwrap();
    fs::rename(directory.path().join("other"), &path).unwrap();
    assert!(shared.compare());

    assert!(is_reading(EventKind::Access(AccessKind::Open(AccessMode::Any))));
    assert!(!is_reading(EventKind::Access(AccessKind::Close(AccessMode::Write))));
    assert!(!is_reading(EventKind::Create(CreateKind::File)));
}

#[tokio::test(start_paused = true)]
async fn without_watching_the_contents_are_compared_by_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.yaml");
    let shared = Arc::new(Shared::default());
    let (sender, mut changes) = mpsc::channel(1);
    let following = tokio::spawn(follow(Arc::clone(&shared), None, sender));
    Follower { shared }.set(BTreeSet::from([path.clone()]));
    for content in ["one", "two"] {
        tokio::time::sleep(Duration::from_mins(1)).await; // idle for a while, in paused time
        fs::write(&path, content).unwrap();
        let start = Instant::now();
        changes.recv().await.unwrap();
        assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
    }
    drop(changes);
    following.await.expect("ends with its receiver");
}

#[test]
fn links_in_a_circle_end() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    symlink(&b, &a).unwrap();
    symlink(&a, &b).unwrap();
    assert!(directories(&a.join("mesh.yaml")).contains(directory.path()));
}
