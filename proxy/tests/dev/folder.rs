//! Folders served as files.

use std::fs;

use crate::developer::Developer;

#[tokio::test]
async fn a_folder_is_served_as_files() {
    let developer = Developer::new();
    let dist = developer.home.path().join("dist");
    fs::create_dir_all(dist.join("deep")).unwrap();
    fs::create_dir_all(dist.join(".git")).unwrap();
    fs::create_dir_all(dist.join(".well-known")).unwrap();
    for (name, text) in [
        ("index.html", "<h1>front</h1>"),
        ("app.js", "let a = 1"),
        ("a b.css", "b { }"),
        ("deep/index.html", "deep"),
        (".env", "SECRET=1"),
        (".git/config", "secret"),
        (".well-known/x.txt", "known"),
        ("../secret.txt", "secret"),
    ] {
        fs::write(dist.join(name), text).unwrap();
    }
    let dev = developer.dev(&["web=./dist", "shop/docs=dist"]);
    for (host, path, status, kind, body) in [
        ("web.localhost", "/", 200, "text/html; charset=utf-8", "<h1>front</h1>"),
        ("web.localhost", "/app.js", 200, "text/javascript; charset=utf-8", "let a = 1"),
        ("web.localhost", "/a%20b.css?v=2", 200, "text/css; charset=utf-8", "b { }"),
        ("web.localhost", "/deep/", 200, "text/html; charset=utf-8", "deep"),
        ("web.localhost", "/.well-known/x.txt", 200, "text/plain; charset=utf-8", "known"),
        ("shop.localhost", "/docs", 200, "text/html; charset=utf-8", "<h1>front</h1>"),
        ("shop.localhost", "/docs/deep/", 200, "text/html; charset=utf-8", "deep"),
        ("web.localhost", "/none", 404, "text/plain; charset=utf-8", "there is no such file\n"),
    ] {
        let answer = dev.get(host, path, "").await;
        let seen = (answer.status, answer.header("content-type"), answer.text());
        assert_eq!(seen, (status, Some(kind), body), "{host}{path}");
    }
    for path in [
        "/.env",
        "/.git/config",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/deep/../../secret.txt",
    ] {
        let answer = dev.get("web.localhost", path, "").await;
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
    }
    assert_eq!(
        dev.get("web.localhost", "/", "accept: text/html\r\n").await.header("cache-control"),
        Some("no-cache")
    );
}

#[tokio::test]
async fn files_are_sent_in_part_and_only_when_they_changed() {
    let developer = Developer::new();
    let dist = developer.home.path().join("dist");
    fs::create_dir_all(dist.join("deep")).unwrap();
    fs::write(dist.join("digits.txt"), "0123456789").unwrap();
    let dev = developer.dev(&["web=dist", "web/sub=dist"]);
    let whole = dev.get("web.localhost", "/digits.txt", "").await;
    let part = dev.get("web.localhost", "/digits.txt", "range: bytes=2-4\r\n").await;
    assert_eq!((part.status, part.header("content-range"), part.text()), (206, Some("bytes 2-4/10"), "234"));
    let beyond = dev.get("web.localhost", "/digits.txt", "range: bytes=20-\r\n").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    let modified = whole.header("last-modified").unwrap();
    let same = dev.get("web.localhost", "/digits.txt", &format!("if-modified-since: {modified}\r\n")).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    let folder = dev.get("web.localhost", "/sub/deep?a=b", "").await;
    assert_eq!((folder.status, folder.header("location")), (307, Some("./deep/?a=b")));
    fs::write(dist.join("digits.txt"), "new").unwrap();
    assert_eq!(dev.get("web.localhost", "/digits.txt", "").await.text(), "new");
}
