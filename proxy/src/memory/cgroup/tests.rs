#![allow(clippy::unwrap_used, clippy::expect_used)]

use tempfile::TempDir;

use super::*;

/// A hierarchy in a folder: files by their paths.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let top = TempDir::new().unwrap();
    for (path, text) in files {
        let path = top.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    top
}

fn mounted(top: &TempDir, root: &str, kind: &str) -> String {
    let top = top.path().display();
    format!(
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
         32 31 0:29 / /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu\n\
         33 31 0:30 {root} {top} rw,relatime shared:4 - {kind}\n"
    )
}

#[test]
fn the_least_limit_of_those_around_it_counts() {
    let top = tree(&[
        ("memory.stat", ""),
        ("pod/memory.max", "134217728\n"),
        ("pod/side/memory.max", "max\n"),
        ("pod/small/memory.max", "67108864\n"),
    ]);
    let find = |path| Cgroup::find(path, &mounted(&top, "/", "cgroup2 cgroup2 rw"));
    let (side, small) = (find("0::/pod/side\n").unwrap(), find("0::/pod/small\n").unwrap());
    assert_eq!((side.limit(), side.is_limited()), (Some(128 << 20), false));
    assert_eq!((small.limit(), small.is_limited()), (Some(64 << 20), true));
    // One in which memory is not accounted for by itself, as that of a container within a container may be.
    fs::create_dir(top.path().join("pod/small/inner")).unwrap();
    let inner = find("0::/pod/small/inner\n").unwrap();
    assert_eq!((inner.limit(), inner.is_limited()), (Some(64 << 20), true));
    // The root has no limit, and no account.
    assert_eq!(find("0::/\n"), None);
}

#[test]
fn a_container_finds_its_own_though_the_path_is_the_hosts() {
    let top = tree(&[("memory.max", "67108864\n"), ("memory.stat", "anon 1\nsock 4096\nkernel 8192\n")]);
    let mounts = mounted(&top, "/kubepods/pod1/box", "cgroup2 cgroup2 rw");
    for path in ["0::/\n", "0::/kubepods/pod1/box\n", "0::/../elsewhere\n"] {
        let found = Cgroup::find(path, &mounts).unwrap();
        assert_eq!((found.limit(), found.kernel()), (Some(64 << 20), Some(12288)), "{path}");
    }
}

#[test]
fn what_the_kernel_can_take_back_does_not_count() {
    let stat = "file 999999\nkernel 10000\nsock 500\nslab_reclaimable 3000\nslab 5000\nsock_other 7\n";
    let top = tree(&[("memory.max", "max\n"), ("memory.stat", stat)]);
    let found = Cgroup::find("0::/\n", &mounted(&top, "/", "cgroup2 cgroup2 rw")).unwrap();
    assert_eq!((found.limit(), found.kernel()), (None, Some(7500)));
}

#[test]
fn version_1_has_sockets_in_an_account_of_their_own() {
    let top = tree(&[
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("box/memory.limit_in_bytes", "67108864\n"),
        ("box/memory.kmem.usage_in_bytes", "4096\n"),
        ("box/memory.kmem.tcp.usage_in_bytes", "8192\n"),
    ]);
    let mounts = mounted(&top, "/", "cgroup cgroup rw,memory");
    let found = Cgroup::find("5:cpu:/\n4:memory:/box\n0::/\n", &mounts).unwrap();
    assert_eq!((found.limit(), found.kernel()), (Some(64 << 20), Some(12288)));
    let outside = Cgroup::find("4:memory:/\n", &mounts).unwrap();
    assert_eq!(outside.limit(), None);
}

#[test]
fn without_an_account_of_memory_there_is_none() {
    let top = tree(&[("cgroup.procs", "")]);
    assert_eq!(Cgroup::find("0::/\n", &mounted(&top, "/", "cgroup2 cgroup2 rw")), None);
    assert_eq!(Cgroup::find("", ""), None);
    assert_eq!(Cgroup::find("nonsense\n:::\n", "a b c - d\n"), None);
}
