//! Several hosts on one machine: network namespaces, joined by a switch, for tests that need more than one address.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use outrigger_testkit::netns::{self, Net, Pod};
//!
//! if let Err(why) = netns::available(&["curl"]) {
//!     println!("skipped: {why}");
//!     return Ok(());
//! }
//! let net = Net::new()?;
//! let (a, b) = (Pod::new(&net, "a", 1)?, Pod::new(&net, "b", 2)?);
//! let _app = b.spawn_as(1000, &["python3", "-m", "http.server", "8080"])?;
//! let page = a.exec_as(1000, &["curl", "-s", &format!("http://{}:8080", b.ipv4())])?.ok()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything is undone when the values are dropped, also by a panic. Needs root.

mod inside;
mod process;
mod wire;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Gid, Uid};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

pub use inside::Inside;
pub use process::{Process, Ran};
pub use wire::{Tcpdump, Wire};

/// The user id of an ordinary application, for tests that do not care which.
pub const APP: u32 = 1000;
/// The user id of the proxy, whose traffic is not captured.
pub const PROXY: u32 = 1337;

/// Whether namespaces can be made here, with `ip`, `nft` and the other `tools` (programs) that the test wants;
/// otherwise what the test needs, to print after `skipped: `.
pub fn available(tools: &[&str]) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    for tool in ["ip", "nft"].iter().chain(tools) {
        if find(tool).is_none() {
            return Err(format!("needs {tool}"));
        }
    }
    let refused = |why: io::Error| format!("needs a kernel that lets root make network namespaces: {why}");
    let probe = Namespace::new("probe").map_err(refused)?;
    probe.exec_as(0, &["nft", "list", "ruleset"]).and_then(Ran::ok).map_err(refused)?;
    Ok(())
}

/// Where a program is, as the shell would find it.
fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file())
}

/// A network that pods are plugged into, with no way out of it: every [`Net`] may use the same addresses. It lasts as
/// long as its last pod.
#[derive(Debug, Clone)]
pub struct Net {
    switch: Arc<Namespace>,
}

impl Net {
    /// A network without pods.
    pub fn new() -> io::Result<Self> {
        let switch = Namespace::new("switch")?;
        // Without a querier, multicast snooping would hold back neighbour discovery.
        switch.ip("link add br0 type bridge mcast_snooping 0")?;
        switch.ip("link set br0 up")?;
        Ok(Self { switch: Arc::new(switch) })
    }
}

/// A host of its own: loopback, and `eth0` with one IPv4 and one IPv6 address on its [`Net`]. Its default routes lead
/// there too, so a connection to an address that nobody has is sent, and can be captured.
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
    number: u8,
    _net: Net,
}

impl Pod {
    /// Plugs a pod into the network. `number`, from 1 to 254 and unique there, is the end of its addresses.
    pub fn new(net: &Net, label: &str, number: u8) -> io::Result<Self> {
        let pod = Self { namespace: Namespace::new(label)?, number, _net: net.clone() };
        let (v4, v6, switch) = (pod.ipv4(), pod.ipv6(), net.switch.name());
        pod.ip(&format!("link add eth0 type veth peer name port{number} netns {switch}"))?;
        net.switch.ip(&format!("link set port{number} master br0 up"))?;
        pod.ip(&format!("address add {v4}/24 dev eth0"))?;
        pod.ip(&format!("address add {v6}/64 dev eth0 nodad"))?;
        pod.ip("link set eth0 up")?;
        pod.ip("route add default dev eth0")?;
        pod.ip("-6 route add default dev eth0")?;
        Ok(pod)
    }

    /// Its IPv4 address, 10.77.0.*number*.
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number)
    }

    /// Its IPv6 address, fd77::*number*.
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number.into())
    }

    /// Both addresses, for a test that does the same with each.
    pub fn ips(&self) -> [IpAddr; 2] {
        [self.ipv4().into(), self.ipv6().into()]
    }

    /// Records what passes `eth0` and matches the filter (pcap-filter(7); empty: everything), from when this returns.
    pub fn tcpdump(&self, filter: &str) -> io::Result<Tcpdump<'_>> {
        Tcpdump::start(self, filter)
    }
}

impl Deref for Pod {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// A network namespace with loopback up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A namespace with a name that is unique on this machine and contains `label`.
    pub fn new(label: &str) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("outrigger-{}-{count}-{label}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        // An address whose uniqueness is still being checked cannot be used for a second or two.
        namespace.within(|| std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"))??;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns exec NAME` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a closure on a thread inside the namespace and waits for it. Sockets that it makes stay in the namespace
    /// and can be returned and used anywhere; threads and programs that it starts stay there as well.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.enter(None, work)
    }

    /// The same as an ordinary user, whose sockets have that owner.
    pub fn within_as<T: Send>(&self, uid: u32, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.enter(Some(uid), work)
    }

    fn enter<T: Send>(&self, uid: Option<u32>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let namespace = File::open(Path::new("/run/netns").join(&self.name))?;
        // Namespace and user belong to the thread, so they go with it.
        let inside = || -> io::Result<T> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            if let Some(uid) = uid {
                let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
                set_thread_groups(&[])?;
                set_thread_res_gid(group, group, group)?;
                set_thread_res_uid(user, user, user)?;
            }
            Ok(work())
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a runtime in the namespace, whose tasks are a user's (0 for root).
    pub fn inside_as(&self, uid: u32) -> io::Result<Inside> {
        Inside::start(self, uid)
    }

    /// Runs a program in the namespace as a user (0 for root) to its end.
    pub fn exec_as(&self, uid: u32, argv: &[impl AsRef<OsStr> + Sync]) -> io::Result<Ran> {
        self.within(|| process::command(uid, argv)?.output())?.map(Ran::from)
    }

    /// Starts a program in the namespace as a user; it is killed when the [`Process`] is dropped.
    ///
    /// The user must be able to reach the program's file: one below another user's home folder may have to be copied.
    pub fn spawn_as(&self, uid: u32, argv: &[impl AsRef<OsStr> + Sync]) -> io::Result<Process> {
        self.within(|| Process::spawn(process::command(uid, argv)?))?
    }

    /// Runs `ip` on the namespace, with arguments separated by spaces.
    pub fn ip(&self, arguments: &str) -> io::Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_ascii_whitespace()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Programs that still run in it keep it alive, nameless, until they end.
        if let Err(error) = run(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("the network namespace {} was left behind: {error}", self.name);
        }
    }
}

fn run(command: &mut Command) -> io::Result<String> {
    Ran::from(command.output()?).ok().map_err(|error| io::Error::other(format!("{command:?}: {error}")))
}
