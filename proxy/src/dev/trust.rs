//! Who trusts the local authority: the system's store of certificates and those of the browsers. Puts it in, takes it
//! out, and where it cannot, says which command can. Everything may be done twice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

pub(crate) mod command;

/// This machine, as far as trust is concerned.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Where the system's files are: `/`.
    pub(crate) root: PathBuf,
    /// The user's home.
    pub(crate) home: PathBuf,
    /// Where programs are looked for.
    pub(crate) path: Vec<PathBuf>,
    /// Whether it is a Mac.
    pub(crate) mac: bool,
}

/// The authority, as stores know it.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// Its certificate's file.
    pub(crate) file: PathBuf,
    /// Its certificate, PEM.
    pub(crate) pem: String,
    /// The first digits of its fingerprint, which tell it from those of other users.
    pub(crate) id: String,
}

/// What was done with one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// `system`, or the browser.
    pub(crate) store: &'static str,
    /// Where the store is.
    pub(crate) path: PathBuf,
    /// How it stands with the store now.
    pub(crate) state: State,
    /// Why it could not be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// The command that does what could not be done.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
}

/// How it stands with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The authority was put in.
    Added,
    /// It was there.
    Present,
    /// It was taken out.
    Removed,
    /// It was not there.
    Absent,
    /// It could not be changed: something is left to do.
    Todo,
}

/// A store of certificates.
#[derive(Debug, Clone)]
enum Store {
    /// A folder of certificates, and the command that has the system take them up.
    System { anchor: PathBuf, added: Words, removed: Words },
    /// macOS's.
    Keychain,
    /// A database of NSS's, as browsers on Linux and Firefox everywhere have it.
    Nss { browser: &'static str, folder: PathBuf },
}

/// The systems' folders for certificates, each with its files' extension, and the commands that take up what was put in
/// and what was taken out.
const SYSTEMS: [(&str, &str, Words, Words); 4] = [
    // Debian, Ubuntu, Alpine. Without `--fresh` links to what is gone are left behind.
    (
        "usr/local/share/ca-certificates",
        "crt",
        &["update-ca-certificates"],
        &["update-ca-certificates", "--fresh"],
    ),
    // Fedora and its kin.
    (
        "etc/pki/ca-trust/source/anchors",
        "pem",
        &["update-ca-trust", "extract"],
        &["update-ca-trust", "extract"],
    ),
    // Arch.
    (
        "etc/ca-certificates/trust-source/anchors",
        "pem",
        &["trust", "extract-compat"],
        &["trust", "extract-compat"],
    ),
    // SUSE.
    ("usr/share/pki/trust/anchors", "pem", &["update-ca-certificates"], &["update-ca-certificates"]),
];

/// A command.
type Words = &'static [&'static str];

/// Where Chromium and its kin keep their database.
const CHROMIUM: [&str; 3] = [".pki/nssdb", ".local/share/pki/nssdb", "snap/chromium/current/.pki/nssdb"];
const CHROMIUM_PROGRAMS: [&str; 6] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "brave-browser",
    "microsoft-edge",
];

/// Below which folders Firefox keeps its profiles.
const FIREFOX: [&str; 5] = [
    ".mozilla/firefox",
    ".config/mozilla/firefox",
    "snap/firefox/common/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/.mozilla/firefox",
    "Library/Application Support/Firefox/Profiles",
];

/// Where the packages have their command that installs, and what has `certutil`.
const CERTUTIL: [(&str, &str); 5] = [
    ("apt-get", "sudo apt-get install libnss3-tools"),
    ("dnf", "sudo dnf install nss-tools"),
    ("pacman", "sudo pacman -S nss"),
    ("zypper", "sudo zypper install mozilla-nss-tools"),
    ("brew", "brew install nss"),
];

impl Machine {
    /// Puts the authority into every store.
    pub(crate) fn trust(&self, root: &Root) -> Vec<Step> {
        self.each(
            root,
            |store| match self.has(store, root) {
                Ok(true) => Ok(State::Present),
                _ => self.add(store, root).map(|()| State::Added),
            },
            Self::command_to_add,
        )
    }

    /// Takes it out of every store.
    pub(crate) fn untrust(&self, root: &Root) -> Vec<Step> {
        self.each(
            root,
            |store| match self.has(store, root) {
                Ok(false) => Ok(State::Absent),
                _ => self.remove(store, root).map(|()| State::Removed),
            },
            Self::command_to_remove,
        )
    }

    /// How it stands with every store, changing none.
    pub(crate) fn state(&self, root: &Root) -> Vec<Step> {
        let state = |there| if there { State::Present } else { State::Absent };
        self.each(root, |store| self.has(store, root).map(state), Self::command_to_add)
    }

    fn each(
        &self,
        root: &Root,
        act: impl Fn(&Store) -> io::Result<State>,
        command: impl Fn(&Self, &Store, &Root) -> String,
    ) -> Vec<Step> {
        let step = |store: Store| {
            let (path, name) = match &store {
                Store::System { anchor, .. } => (anchor.clone(), "system"),
                Store::Keychain => (PathBuf::from(KEYCHAIN), "system"),
                Store::Nss { browser, folder } => (folder.clone(), *browser),
            };
            match act(&store) {
                Ok(state) => Step { store: name, path, state, why: None, command: None },
                Err(error) => Step {
                    store: name,
                    path,
                    state: State::Todo,
                    why: Some(error.to_string()),
                    command: Some(command(self, &store, root)),
                },
            }
        };
        self.stores(root).into_iter().map(step).collect()
    }

    fn stores(&self, root: &Root) -> Vec<Store> {
        let mut stores = Vec::new();
        if self.mac {
            stores.push(Store::Keychain);
        } else {
            let there = SYSTEMS.iter().find(|(folder, ..)| self.root.join(folder).is_dir());
            stores.extend(there.map(|(folder, extension, added, removed)| Store::System {
                anchor: self.root.join(folder).join(format!("outrigger-dev-{}.{extension}", root.id)),
                added,
                removed,
            }));
        }
        let nss = |browser, folder| Store::Nss { browser, folder };
        let databases: Vec<_> =
            CHROMIUM.map(|at| self.home.join(at)).into_iter().filter(|at| at.is_dir()).collect();
        if databases.is_empty()
            && !self.mac
            && CHROMIUM_PROGRAMS.iter().any(|name| self.program(name).is_some())
        {
            // It makes one when it first runs, unless it finds one.
            stores.push(nss("chromium", self.home.join(CHROMIUM[0])));
        }
        stores.extend(databases.into_iter().map(|at| nss("chromium", at)));
        for profiles in FIREFOX {
            let profiles = fs::read_dir(self.home.join(profiles)).into_iter().flatten().flatten();
            let with_database = profiles.map(|entry| entry.path()).filter(|at| at.join("cert9.db").is_file());
            stores.extend(with_database.map(|at| nss("firefox", at)));
        }
        stores
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Runs a program to its end, and gives what it printed.
    fn run(&self, words: &[&str]) -> io::Result<String> {
        let Some((name, arguments)) = words.split_first() else { return Ok(String::new()) };
        let program = self
            .program(name)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no `{name}`")))?;
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or("it failed").to_owned();
        Err(io::Error::other(format!("{name}: {said}")))
    }

    fn certutil(&self, folder: &Path, arguments: &[&str]) -> io::Result<String> {
        let database = format!("sql:{}", folder.display());
        self.run(&[&["certutil", "-d", &database], arguments].concat())
    }

    fn has(&self, store: &Store, root: &Root) -> io::Result<bool> {
        match store {
            Store::System { anchor, .. } => match fs::read_to_string(anchor) {
                Ok(there) => Ok(same(&there, &root.pem)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            },
            Store::Keychain => {
                let found = self.run(&["security", "find-certificate", "-a", "-p", KEYCHAIN])?;
                Ok(squeezed(&found).contains(&squeezed(&root.pem)))
            }
            Store::Nss { folder, .. } => {
                if self.program("certutil").is_some() && !folder.is_dir() {
                    return Ok(false);
                }
                let there = self.certutil(folder, &["-L", "-n", &nickname(root), "-a"]);
                match there {
                    Ok(there) => Ok(same(&there, &root.pem)),
                    // It says the same of a name that is not there and of a database that cannot be opened.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        self.certutil(folder, &["-L"]).map(|_| false)
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn add(&self, store: &Store, root: &Root) -> io::Result<()> {
        match store {
            Store::System { anchor, added, .. } => {
                fs::write(anchor, &root.pem)?;
                // One that the system has not taken up is not trusted.
                self.run(added).map(drop).inspect_err(|_| drop(fs::remove_file(anchor)))
            }
            Store::Keychain => self
                .run(&[
                    "security",
                    "add-trusted-cert",
                    "-d",
                    "-r",
                    "trustRoot",
                    "-k",
                    KEYCHAIN,
                    &text(&root.file),
                ])
                .map(drop),
            Store::Nss { folder, .. } => {
                if self.program("certutil").is_some() && !folder.is_dir() {
                    fs::create_dir_all(folder)?;
                    self.certutil(folder, &["-N", "--empty-password"])?;
                }
                let file = text(&root.file);
                self.certutil(folder, &["-A", "-t", "C,,", "-n", &nickname(root), "-i", &file]).map(drop)
            }
        }
    }

    fn remove(&self, store: &Store, root: &Root) -> io::Result<()> {
        match store {
            Store::System { anchor, removed, .. } => {
                fs::remove_file(anchor)?;
                self.run(removed).map(drop).inspect_err(|_| drop(fs::write(anchor, &root.pem)))
            }
            Store::Keychain => {
                self.run(&["security", "remove-trusted-cert", "-d", &text(&root.file)]).map(drop)
            }
            Store::Nss { folder, .. } => self.certutil(folder, &["-D", "-n", &nickname(root)]).map(drop),
        }
    }

    fn command_to_add(&self, store: &Store, root: &Root) -> String {
        match store {
            Store::System { anchor, added, .. } => {
                let (from, to) = (shell(&text(&root.file)), shell(&text(anchor)));
                format!("sudo install -m 644 {from} {to} && sudo {}", added.join(" "))
            }
            Store::Keychain => format!(
                "sudo security add-trusted-cert -d -r trustRoot -k {KEYCHAIN} {}",
                shell(&text(&root.file))
            ),
            Store::Nss { .. } => self.certutil_first("trust"),
        }
    }

    fn command_to_remove(&self, store: &Store, root: &Root) -> String {
        match store {
            Store::System { anchor, removed, .. } => {
                format!("sudo rm -f {} && sudo {}", shell(&text(anchor)), removed.join(" "))
            }
            Store::Keychain => {
                format!("sudo security remove-trusted-cert -d {}", shell(&text(&root.file)))
            }
            Store::Nss { .. } => self.certutil_first("untrust"),
        }
    }

    fn certutil_first(&self, verb: &str) -> String {
        let again = format!("outrigger dev {verb}");
        if self.program("certutil").is_some() {
            return again;
        }
        let install = CERTUTIL.iter().find(|(manager, _)| self.program(manager).is_some());
        install.map_or(again.clone(), |(_, install)| format!("{install} && {again}"))
    }
}

const KEYCHAIN: &str = "/Library/Keychains/System.keychain";

/// What the authority is called in a browser's list.
fn nickname(root: &Root) -> String {
    format!("Outrigger development {}", root.id)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Two PEM texts, line ends aside.
fn same(a: &str, b: &str) -> bool {
    squeezed(a) == squeezed(b)
}

fn squeezed(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

/// A word as a shell takes it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests;
