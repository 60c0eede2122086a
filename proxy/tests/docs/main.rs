//! The pages: every configuration in them is right, and every command in them exists as it is written.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use outrigger_http::Reason;

mod links;
mod operating;
#[path = "../support/mod.rs"]
mod support;

const PAGES: [&str; 10] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "benches/README.md",
    "docs/ROUTES.md",
    "docs/HTTP.md",
    "docs/DEV.md",
    "docs/RESILIENCE.md",
    "docs/TIMEOUTS.md",
    "docs/OPERATING.md",
];

/// Programs that are not ours: their names alone are known.
const FOREIGN: [&str; 2] = ["curl", "sudo"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The blocks of a page, each with its language and the line where it begins.
fn blocks(page: &str) -> Vec<(usize, String, String)> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let (mut found, mut open) = (Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((number + 1, language.to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((_, _, block))) => block.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block is not closed");
    found
}

/// The commands of the pages' console blocks, each with its place and what it is shown to print.
fn commands() -> Vec<(String, String, String)> {
    let mut commands = Vec::new();
    for page in PAGES {
        for (line, language, block) in blocks(page) {
            if language != "console" {
                continue;
            }
            for (offset, text) in block.lines().enumerate() {
                match text.strip_prefix("$ ") {
                    Some(command) => {
                        let place = format!("{page}:{}", line + offset + 1);
                        commands.push((place, command.to_owned(), String::new()));
                    }
                    None => commands.last_mut().expect("output follows a command").2.extend([text, "\n"]),
                }
            }
        }
    }
    commands
}

fn output(program: &Path, arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(program).args(arguments).current_dir(root()).stdin(Stdio::null()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// One of our programs, if it is built, from the sources as they are.
fn program(name: &str) -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_BIN_EXE_outrigger"));
    let sources = match name {
        "outrigger" => return Some(here),
        "outrigger-control" => "control-api/src",
        _ => "benches/src",
    };
    let path = here.with_file_name(name);
    let built = std::fs::metadata(&path).ok()?.modified().unwrap();
    (newest(&root().join(sources)) <= built).then_some(path)
}

/// When a file below a folder was last written.
fn newest(folder: &Path) -> SystemTime {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let written = |entry: std::fs::DirEntry| {
        let folder = entry.file_type().unwrap().is_dir();
        if folder { newest(&entry.path()) } else { entry.metadata().unwrap().modified().unwrap() }
    };
    entries.map(written).max().unwrap_or(SystemTime::UNIX_EPOCH)
}

#[test]
fn every_configuration_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for page in PAGES {
        for (line, language, block) in blocks(page) {
            match language.as_str() {
                "yaml" => {
                    let path = folder.path().join("block.yaml");
                    std::fs::write(&path, &block).unwrap();
                    let checked =
                        output(env!("CARGO_BIN_EXE_outrigger").as_ref(), &["check", path.to_str().unwrap()]);
                    assert_eq!(checked, (true, "ok\n".into()), "{page}:{line}");
                    seen += 1;
                }
                "console" | "" => {}
                other => panic!("{page}:{line}: a block of `{other}` is not accounted for"),
            }
        }
    }
    assert!(seen > 0);
    // The README says that its block is that file.
    let example = std::fs::read_to_string(root().join("examples/dev.yaml")).unwrap();
    let shown = blocks("README.md").into_iter().find(|(_, language, _)| language == "yaml").unwrap().2;
    assert!(example.ends_with(&shown), "README.md and examples/dev.yaml differ");
}

/// The table of features names the tests that cover them.
#[test]
fn every_feature_that_is_supported_has_its_test() {
    let page = std::fs::read_to_string(root().join("docs/ROUTES.md")).unwrap();
    let tests = texts(&root().join("proxy/tests")) + &texts(&root().join("crates/config/tests"));
    let table = page.split("| feature | supported | test |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut seen = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [feature, supported, named] = cells[..] else { continue };
        let quoted = named.split('`').skip(1).step_by(2);
        let names: Vec<&str> = quoted.filter(|name| name.contains('_') && !name.contains(' ')).collect();
        assert!(supported != "yes" || !names.is_empty(), "{feature}: no test");
        for name in names {
            assert!(tests.contains(&format!("fn {name}(")), "{feature}: there is no test {name}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

/// Each test that the page names is there: by its name, by parts of it around `…`, or by its file.
#[test]
fn every_promise_has_the_tests_that_the_page_names() {
    let page = std::fs::read_to_string(root().join("docs/RESILIENCE.md")).unwrap();
    let folders = ["proxy/tests", "crates/testkit/tests", "crates/balance/tests"].map(|f| root().join(f));
    let tests: String = folders.iter().map(|folder| texts(folder)).collect();
    let names: BTreeSet<&str> =
        tests.split("fn ").skip(1).filter_map(|rest| rest.split_once('(')).map(|(name, _)| name).collect();
    let files: BTreeSet<String> = folders.iter().flat_map(|folder| stems(folder)).collect();
    let mut seen = 0;
    for (head, column) in [("| | promised | tests |", 2), ("| what is broken | what holds |", 2)] {
        let table = page.split(head).nth(1).unwrap().split("\n\n").next().unwrap();
        for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
            for name in cells[column..].iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
                let (file, parts) = name.split_once("::").map_or((None, name), |(file, it)| (Some(file), it));
                let parts: Vec<&str> = parts.split('…').collect();
                let has = |test: &&str| parts.iter().all(|part| test.contains(part));
                let known = files.contains(name) || names.iter().any(has);
                assert!(known && file.is_none_or(|file| files.contains(file)), "there is no test {name}");
                seen += 1;
            }
        }
    }
    assert!(seen > 25, "{seen}");
}

/// The names of all files below a folder, and of the folders, without what they end in.
fn stems(folder: &Path) -> Vec<String> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            let own = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let below = if path.is_dir() { stems(&path) } else { Vec::new() };
            std::iter::once(own).chain(below)
        })
        .collect()
}

/// The files and folders that the architecture follows are where it says.
#[test]
fn every_file_of_the_architecture_is_there() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let named = page.split('`').skip(1).step_by(2).filter(|name| name.contains('/') && !name.contains(' '));
    let missing: Vec<&str> = named.filter(|name| !root().join(name).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The table of failures has every one, with its status and who caused it.
#[test]
fn every_failure_is_in_the_page_with_its_status() {
    let page = std::fs::read_to_string(root().join("docs/HTTP.md")).unwrap();
    let table = page.split("## Failures").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: BTreeSet<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|row| row.rsplit_once(" | "))
        .map(|row| row.0)
        .collect();
    let all: BTreeSet<String> = Reason::ALL
        .iter()
        .map(|reason| {
            let source = format!("{:?}", reason.source()).to_lowercase();
            format!("| `{}` | {} | {source}", reason.as_str(), reason.status().as_u16())
        })
        .collect();
    assert_eq!(rows, all.iter().map(String::as_str).collect());
}

/// All files below a folder, as one text.
fn texts(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| {
        if path.is_dir() { texts(&path) } else { std::fs::read_to_string(path).unwrap_or_default() }
    };
    entries.map(text).collect()
}

/// What each subcommand's `--help` says, asked once.
struct Help(HashMap<String, String>);

impl Help {
    fn of(&mut self, program: &Path, subcommands: &[&str]) -> &str {
        let key = format!("{} {}", program.display(), subcommands.join(" "));
        self.0.entry(key.clone()).or_insert_with(|| {
            let (success, help) = output(program, &[subcommands, &["--help"]].concat());
            assert!(success, "{key} --help");
            help
        })
    }
}

#[test]
fn every_command_of_ours_exists_with_its_options() {
    let (mut help, mut missing) = (Help(HashMap::new()), BTreeSet::new());
    for (place, command, _) in commands() {
        let words: Vec<&str> = command.split(" > ").next().unwrap().split_whitespace().collect();
        let name = words[0].rsplit('/').next().unwrap();
        if FOREIGN.contains(&name) || name == "cargo" {
            continue;
        }
        assert!(["outrigger", "outrigger-control", "outrigger-bench"].contains(&name), "{place}: {name}?");
        let Some(program) = program(name) else {
            missing.insert(name.to_owned());
            continue;
        };
        let mut subcommands = Vec::new();
        for word in &words[1..] {
            let known =
                |line: &str| line.strip_prefix("  ").is_some_and(|l| l.split(' ').next() == Some(word));
            let listed =
                help.of(&program, &subcommands).split("Commands:").nth(1).unwrap_or_default().to_owned();
            if !listed.lines().any(known) {
                break;
            }
            subcommands.push(*word);
        }
        assert!(!subcommands.is_empty(), "{place}: no such subcommand in `{command}`");
        let shown = help.of(&program, &subcommands);
        let options: Vec<&str> = shown
            .split([' ', ',', '\n', '='])
            .filter(|word| word.starts_with('-') && word.len() > 1)
            .collect();
        for option in words.iter().filter(|word| word.starts_with('-')) {
            assert!(options.contains(option), "{place}: {option} is not an option of `{command}`");
        }
    }
    for name in missing {
        println!("skipped: needs {name} as it is now (`cargo build --workspace`)");
    }
}

/// Commands of cargo name packages and files that are there.
#[test]
fn every_cargo_command_names_packages_that_there_are() {
    let manifests: String =
        ["proxy", "control-api", "benches", "crates/demo", "crates/testkit", "crates/balance"]
            .iter()
            .filter_map(|folder| std::fs::read_to_string(root().join(folder).join("Cargo.toml")).ok())
            .collect();
    for (place, command, _) in commands() {
        let words: Vec<&str> = command.split_whitespace().collect();
        for pair in words.windows(2) {
            if pair[0] == "-p" {
                assert!(
                    manifests.contains(&format!("name = \"{}\"", pair[1])),
                    "{place}: no package {}",
                    pair[1]
                );
            }
            if ["-c", "-f", "check"].contains(&pair[0]) {
                assert!(root().join(pair[1]).is_file(), "{place}: no file {}", pair[1]);
            }
        }
    }
}

/// What ends by itself is run as it stands, and prints what the page shows. What does not, or needs more, is run by
/// other tests: here it is named, so that nothing in a page is overlooked.
#[test]
fn every_command_is_run_here_or_accounted_for() {
    let elsewhere = [
        ("cargo ", "by CI"),
        ("sudo -E env \"PATH=$PATH\" cargo test", "by CI"),
        ("outrigger run -c ", "operation"),
        ("outrigger dev ", "the tests of the developer's proxy"),
        ("sudo sysctl ", "by nobody: it changes the machine"),
        ("sudo setcap ", "by nobody: it changes the machine"),
        ("outrigger run --control ", "the tests of the mesh"),
        ("outrigger capture up", "the tests in namespaces"),
        ("outrigger capture down", "the tests in namespaces"),
        ("outrigger-control ", "the tests of the control API"),
        ("outrigger-bench run", "the tests of the harness"),
        ("outrigger-bench diff", "the tests of the differential runner"),
        ("target/release/outrigger-bench diff", "the tests of the differential runner"),
        ("target/release/outrigger-bench run", "the tests of the harness"),
        ("target/release/outrigger-bench compare", "the tests of its pages"),
        ("curl http://127.0.0.1:15000/healthz/ready", "operation"),
        ("curl http://127.0.0.1:15000/metrics", "operation"),
        ("curl http://127.0.0.1:15000/endpoints", "operation"),
        ("curl http://shop.localhost:8080/api/items", "below"),
    ];
    let mut run = 0;
    for (place, command, shown) in commands() {
        if elsewhere.iter().any(|(prefix, _)| command.starts_with(prefix)) {
            continue;
        }
        let words: Vec<&str> = command.split(" > ").next().unwrap().split_whitespace().collect();
        assert_eq!(words[0], "outrigger", "{place}: `{command}` is run by no test");
        let (success, printed) = output(env!("CARGO_BIN_EXE_outrigger").as_ref(), &words[1..]);
        assert!(success, "{place}: {command}");
        assert!(shown.is_empty() || printed == shown, "{place}: {command} prints {printed}");
        run += 1;
    }
    assert!(run >= 3, "{run}");
}

/// The README's own example, with free ports in place of its own: a request takes the way that the page says.
#[tokio::test]
async fn the_developers_proxy_does_what_the_page_says() {
    let api = outrigger_testkit::app::App::builder().name("api").start().await;
    let another = outrigger_testkit::app::App::builder().name("api").start().await;
    let frontend = outrigger_testkit::app::App::builder().name("frontend").start().await;
    let text = std::fs::read_to_string(root().join("examples/dev.yaml")).unwrap();
    let replaced = [
        ("127.0.0.1:15000", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:8080", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:3000", api.address().to_string()),
        ("127.0.0.1:3001", another.address().to_string()),
        ("localhost:5173", format!("localhost:{}", frontend.address().port())),
    ];
    let text = replaced.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in examples/dev.yaml");
        text.replace(from, to)
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.yaml");
    std::fs::write(&path, text).unwrap();
    let options = outrigger_proxy::Options::quiet(outrigger_proxy::Source::File(path));
    let proxy = outrigger_proxy::start(options).await.unwrap();
    let address = proxy.listener("web").unwrap();
    for (path, app) in [("/api/items", "api"), ("/", "frontend")] {
        let answer = ask(address, path).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(&format!("x-app: {app}")),
            "{answer}"
        );
    }
    proxy.stop().await;
}

async fn ask(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop.localhost:8080\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
