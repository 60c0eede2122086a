//! Names of backends: looks each one up, follows it by its time to live, publishes the addresses.
//!
//! The hosts file is asked first, then DNS, as the system's own resolver would. What it does not do: choose
//! among the addresses (that is the balancer's) or forget them: a name that stops resolving keeps its last
//! addresses, because an endpoint never expires for lack of news.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::pin::pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant as Moment;

#[cfg(test)]
mod tests;

/// What every wanted name resolves to, sorted and without duplicates.
///
/// A name is absent until its first lookup has ended, and has an empty list when that found nothing.
pub(crate) type Addresses = Arc<BTreeMap<Arc<str>, Vec<IpAddr>>>;

/// However short its time to live, a name is not looked up more often.
const SHORTEST: Duration = Duration::from_secs(1);
/// However long its time to live, a name is not looked up more rarely.
const LONGEST: Duration = Duration::from_mins(5);
/// The longest wait between two attempts that fail; the first is [`SHORTEST`], each next one twice as long.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A name whose address fails is looked up at once, but not more often than this.
const DOUBT: Duration = Duration::from_millis(100);
/// The hosts file has no time to live; container runtimes rewrite it while a pod runs.
const HOSTS_VALID: Duration = Duration::from_secs(5);
/// One query's patience, and how often it is sent again. `resolv.conf`'s defaults, five seconds and twice,
/// would hold up a start for too long; what fails here is soon tried again.
const QUERY_TIMEOUT: Duration = Duration::from_millis(1500);
const QUERY_RETRIES: usize = 1;

/// Names of which an address cannot be connected to: what they resolve to may have changed, as when a container was
/// made anew.
pub(crate) type Doubted = Arc<[Arc<str>]>;

/// Resolves names as this machine is configured to.
#[derive(Debug)]
pub(crate) struct Resolver {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    port: u16,
    /// The resolver made from `resolv_conf` as it was at that time of modification.
    current: Mutex<Option<(Option<SystemTime>, TokioResolver)>>,
}

/// One successful lookup: at least one address, and for how long it may be believed.
#[derive(Debug, Clone)]
struct Answer {
    addresses: Vec<IpAddr>,
    valid: Duration,
}

impl Resolver {
    /// A resolver by `/etc/hosts` and `/etc/resolv.conf`.
    pub(crate) fn system() -> Self {
        Self::from_files("/etc/resolv.conf".into(), "/etc/hosts".into(), 53)
    }

    /// A resolver by the given files, whose name servers listen on `port`.
    ///
    /// Both files may be absent, and may change later. Without name servers in it, 127.0.0.1 is asked
    /// (resolv.conf(5)).
    pub(crate) fn from_files(resolv_conf: PathBuf, hosts: PathBuf, port: u16) -> Self {
        Self { resolv_conf, hosts, port, current: Mutex::new(None) }
    }

    /// Starts to follow the wanted names, on the current tokio runtime.
    ///
    /// Names can come and go later; the work ends when either end of the returned channel is dropped: the
    /// sender of `wanted`, or the last receiver of the addresses. IP addresses are names of themselves. What is
    /// `doubted` is looked up at once.
    pub(crate) fn start(
        self,
        wanted: watch::Receiver<BTreeSet<Arc<str>>>,
        doubted: mpsc::Receiver<Doubted>,
    ) -> watch::Receiver<Addresses> {
        let (publish, addresses) = watch::channel(Addresses::default());
        let this = Arc::new(self);
        let lookup = move |name| {
            let this = Arc::clone(&this);
            async move { this.lookup(name).await }
        };
        tokio::spawn(follow(lookup, wanted, doubted, publish));
        addresses
    }

    async fn lookup(&self, name: Arc<str>) -> Result<Answer, String> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(Answer { addresses: vec![address], valid: LONGEST });
        }
        let parsed = Name::from_str(&name).map_err(|error| error.to_string())?;
        let listed = self.hosts_file(&parsed);
        if !listed.is_empty() {
            return Ok(Answer { addresses: sorted(listed), valid: HOSTS_VALID });
        }
        let resolver = self.resolver().map_err(|error| error.to_string())?;
        let found = resolver.lookup_ip(parsed).await.map_err(|error| error.to_string())?;
        let addresses = sorted(found.iter().collect());
        if addresses.is_empty() {
            return Err("it has no address".to_owned());
        }
        // The deadline is by the real clock, all waiting here by tokio's.
        Ok(Answer { addresses, valid: found.valid_until().saturating_duration_since(Instant::now()) })
    }

    /// The addresses of the hosts file, read anew each time: it is small, and people edit it.
    fn hosts_file(&self, name: &Name) -> Vec<IpAddr> {
        let mut hosts = Hosts::default();
        if File::open(&self.hosts).and_then(|file| hosts.read_hosts_conf(file)).is_err() {
            return Vec::new();
        }
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|found| found.answers().iter().filter_map(|r| r.data.ip_addr()).collect::<Vec<_>>())
            .collect()
    }

    /// The resolver, made anew when `resolv.conf` has changed: a laptop moves from network to network.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let modified = fs::metadata(&self.resolv_conf).and_then(|file| file.modified()).ok();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_from, resolver)) = &*current
            && *made_from == modified
        {
            return Ok(resolver.clone());
        }
        let resolver = self.make()?;
        *current = Some((modified, resolver.clone()));
        Ok(resolver)
    }

    fn make(&self) -> Result<TokioResolver, NetError> {
        let read = fs::read(&self.resolv_conf)
            .map_err(NetError::from)
            .and_then(hickory_resolver::system_conf::parse_resolv_conf);
        let (config, mut options) = read.unwrap_or_else(|error| {
            tracing::warn!("{}: {error}; asking 127.0.0.1 for names", self.resolv_conf.display());
            let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            (ResolverConfig::from_name_servers(vec![local]), ResolverOpts::default())
        });
        let (domain, search, mut servers) = config.into_parts();
        servers.iter_mut().flat_map(|s| &mut s.connections).for_each(|c| c.port = self.port);
        options.timeout = options.timeout.min(QUERY_TIMEOUT);
        options.attempts = options.attempts.min(QUERY_RETRIES);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never; // asked above, and it ends the search
        options.cache_size = 0; // each name is asked for once, when its time has come
        options.max_active_requests = 4096; // all names are looked up at once at the start
        let config = ResolverConfig::from_parts(domain, search, servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
    }
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Looks up, waits, looks up again, until nobody wants or nobody reads.
async fn follow<L, F>(
    lookup: L,
    mut wanted: watch::Receiver<BTreeSet<Arc<str>>>,
    mut doubted: mpsc::Receiver<Doubted>,
    publish: watch::Sender<Addresses>,
) where
    L: Fn(Arc<str>) -> F,
    F: Future<Output = Result<Answer, String>> + Send + 'static,
{
    let mut table = Table { lookup, names: BTreeMap::new(), lookups: JoinSet::new() };
    table.want(&wanted.borrow_and_update());
    let mut unread = pin!(publish.closed());
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                table.want(&wanted.borrow_and_update());
            }
            Some(names) = doubted.recv() => {
                names.iter().for_each(|name| table.doubt(name));
                continue;
            }
            Some(ended) = table.lookups.join_next_with_id() => {
                // What has ended meanwhile is taken along, so that readers wake once.
                let mut next = Some(ended);
                while let Some(ended) = next {
                    match ended {
                        Ok((id, outcome)) => table.ended(id, outcome),
                        Err(error) => table.ended(error.id(), Err(error.to_string())),
                    }
                    next = table.lookups.try_join_next_with_id();
                }
            }
            () = &mut unread => return,
        }
        let addresses = table.addresses();
        publish.send_if_modified(|published| {
            let changed = **published != addresses;
            if changed {
                *published = Arc::new(addresses);
            }
            changed
        });
    }
}

/// The names that are followed, each with one task that waits and then looks it up.
struct Table<L> {
    lookup: L,
    names: BTreeMap<Arc<str>, Followed>,
    lookups: JoinSet<Result<Answer, String>>,
}

struct Followed {
    /// `None` until the first lookup has ended.
    addresses: Option<Vec<IpAddr>>,
    /// Failed lookups since the last one that did not fail.
    failures: u32,
    /// The task whose end is waited for.
    next: AbortHandle,
    /// When it begins to look up, or began.
    due: Moment,
    /// When the lookup before ended.
    ended: Moment,
}

impl<L, F> Table<L>
where
    L: Fn(Arc<str>) -> F,
    F: Future<Output = Result<Answer, String>> + Send + 'static,
{
    fn want(&mut self, wanted: &BTreeSet<Arc<str>>) {
        self.names.retain(|name, followed| {
            let keep = wanted.contains(name);
            if !keep {
                followed.next.abort();
            }
            keep
        });
        for name in wanted {
            if !self.names.contains_key(name) {
                let next = self.lookups.spawn((self.lookup)(Arc::clone(name)));
                let now = Moment::now();
                let followed = Followed { addresses: None, failures: 0, next, due: now, ended: now };
                self.names.insert(Arc::clone(name), followed);
            }
        }
    }

    /// Takes one lookup's outcome and arranges the next; one that is no longer wanted is dropped.
    fn ended(&mut self, task: Id, outcome: Result<Answer, String>) {
        let Some((name, followed)) = self.names.iter_mut().find(|(_, f)| f.next.id() == task) else { return };
        let wait = match outcome {
            Ok(answer) => {
                if followed.failures > 0 {
                    tracing::info!("{name} resolves again");
                }
                followed.failures = 0;
                followed.addresses = Some(answer.addresses);
                answer.valid.clamp(SHORTEST, LONGEST)
            }
            Err(reason) => {
                let kept = followed.addresses.get_or_insert_default().len();
                if followed.failures == 0 {
                    tracing::warn!(
                        "{name} does not resolve: {reason}; trying on with {kept} known addresses"
                    );
                }
                let doublings = followed.failures.min(5);
                followed.failures = followed.failures.saturating_add(1);
                LONGEST_RETRY.min(SHORTEST * 2_u32.pow(doublings))
            }
        };
        // Up to a tenth more, so that many names and many nodes do not ask in step.
        let wait = wait.mul_f64(1.0 + fastrand::f64() / 10.0);
        let now = Moment::now();
        followed.ended = now;
        followed.due = now + wait;
        followed.next = later(&mut self.lookups, (self.lookup)(Arc::clone(name)), followed.due);
    }

    /// Looks a name up at once, unless it is being looked up, or just was.
    fn doubt(&mut self, name: &Arc<str>) {
        let Some(followed) = self.names.get_mut(name) else { return };
        let now = Moment::now();
        let due = now.max(followed.ended + DOUBT);
        if followed.due <= due {
            return;
        }
        followed.next.abort();
        followed.due = due;
        followed.next = later(&mut self.lookups, (self.lookup)(Arc::clone(name)), due);
    }

    fn addresses(&self) -> BTreeMap<Arc<str>, Vec<IpAddr>> {
        self.names.iter().filter_map(|(n, f)| Some((Arc::clone(n), f.addresses.clone()?))).collect()
    }
}

/// Begins a lookup when it is due.
fn later<F>(lookups: &mut JoinSet<Result<Answer, String>>, lookup: F, due: Moment) -> AbortHandle
where
    F: Future<Output = Result<Answer, String>> + Send + 'static,
{
    lookups.spawn(async move {
        tokio::time::sleep_until(due).await;
        lookup.await
    })
}
