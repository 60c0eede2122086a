//! How much memory this process holds for its callers, in one account, and what that has to stay under.
//!
//! A [`Budget`] is the process's. Each worker has an [`Account`] with it, which takes from it in portions: what a request
//! holds and gives back is written into cells of its worker, and the shared number is touched once for many requests.
//! Whatever is held is a [`Charge`], and is given back when that is dropped. What no account knows of (the allocator's
//! rest, tables, what the kernel really holds) comes in as a figure of the system's, now and then: [`Budget::measured`].

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::error::{Error, Reason};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// The least, and the most, that an account takes at once.
const PORTION: (u64, u64) = (4 * KIB, 256 * KIB);
/// From which percentage of the limit on memory is scarce, full and spent.
const MARKS: [u64; 3] = [60, 75, 90];
/// The least, and the most, that the kernel may keep of one connection, each way. With less than a segment of loopback
/// (65,483 bytes) a sender waits for its timer before it sends the rest of one: 256 KiB took more than a minute.
const KERNEL: (u64, u64) = (64 * KIB, 4 * MIB);
/// What a stalled connection holds here, beside what the kernel does: what is to be written, and the parts of a body
/// that wait behind it. Measured with the kernel's part, under a limit of 64 MiB: 132 KiB for a response that is not read,
/// with the two connections that it is on; 2.7 MiB where the kernel is not bounded.
const ASIDE: u64 = 64 * KIB;

/// What an open connection takes, its task and the kernel's part of it included, while nothing waits on it. Measured: 6.7 KiB
/// for one that is idle, 22.6 KiB for a request under way with the two that it is on.
pub const CONNECTION: usize = 12 * 1024;
/// What TLS adds.
pub const TLS: usize = 32 * 1024;

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connections, by their number.
    Connections,
    /// What waits for a peer that does not take it.
    Stalled,
    /// Bodies kept to be sent again, or taken whole.
    Bodies,
    /// Copies of bodies, for mirrors.
    Copies,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Stalled, Self::Bodies, Self::Copies];

    /// What it is called in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Stalled => "stalled",
            Self::Bodies => "bodies",
            Self::Copies => "copies",
        }
    }
}

/// How much memory is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Enough.
    Plenty,
    /// Over 60% is taken: what can be done without is left out.
    Scarce,
    /// Over 75%: no more requests are taken on, and idle connections are closed.
    Full,
    /// Over 90%: no more connections are.
    Spent,
}

/// What a process may hold.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    portion: i64,
    /// What the accounts have taken.
    held: AtomicI64,
    /// What is taken beside that.
    beside: AtomicI64,
    /// The least of that: what there was before anything was held; -1 before it is known.
    resting: AtomicI64,
    kinds: [AtomicI64; Kind::ALL.len()],
    turned_away: AtomicU64,
    grown: Notify,
}

impl Budget {
    /// So many bytes for a process of so many workers.
    pub fn new(limit: u64, workers: usize) -> Arc<Self> {
        let portion = (limit / 256 / workers.max(1) as u64).clamp(PORTION.0, PORTION.1);
        Arc::new(Self {
            limit: AtomicU64::new(limit),
            portion: portion.cast_signed(),
            held: AtomicI64::new(0),
            beside: AtomicI64::new(0),
            resting: AtomicI64::new(-1),
            kinds: Default::default(),
            turned_away: AtomicU64::new(0),
            grown: Notify::new(),
        })
    }

    /// The most that the process may take, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes that: the limit of a container may be changed while it runs.
    pub fn resize(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The most that the kernel is to keep of one connection each way, in bytes: a thousandth of the limit.
    pub fn of_one_connection(&self) -> u64 {
        (self.limit() / 1024).clamp(KERNEL.0, KERNEL.1)
    }

    /// What the process takes, in bytes, as far as is known.
    pub fn used(&self) -> u64 {
        let used = self.held.load(Ordering::Relaxed) + self.beside.load(Ordering::Relaxed);
        u64::try_from(used).unwrap_or(0)
    }

    /// How much of a kind is held, in bytes, as of the accounts' last [`Account::settle`].
    pub fn of(&self, kind: Kind) -> u64 {
        self.kinds.get(kind as usize).map_or(0, |held| held.load(Ordering::Relaxed)).try_into().unwrap_or(0)
    }

    /// How many connections were closed as they came.
    pub fn connections_turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// How much is left.
    pub fn level(&self) -> Level {
        let (used, limit) = (self.used(), self.limit());
        let [scarce, full, spent] = MARKS.map(|percent| limit / 100 * percent);
        match used {
            _ if used < scarce => Level::Plenty,
            _ if used < full => Level::Scarce,
            _ if used < spent => Level::Full,
            _ => Level::Spent,
        }
    }

    /// Corrects the account by what the system says that the process takes, in bytes. It is never believed to hold less
    /// than it has promised to, beside what it took when this was first called, before any traffic.
    pub fn measured(&self, bytes: u64) {
        let bytes = bytes.min(i64::MAX as u64).cast_signed();
        let resting = match self.resting.load(Ordering::Relaxed) {
            -1 => {
                self.resting.store(bytes, Ordering::Relaxed);
                bytes
            }
            resting => resting,
        };
        let beside = bytes - self.held.load(Ordering::Relaxed);
        self.beside.store(beside.max(resting), Ordering::Relaxed);
    }

    /// Ready once an account has taken more since this was last ready: it is time to measure.
    pub async fn grown(&self) {
        self.grown.notified().await;
    }
}

/// A worker's account with the budget; one without a budget counts nothing, and everything is allowed.
#[derive(Debug, Default)]
pub struct Account(Option<Open>);

#[derive(Debug)]
struct Open {
    budget: Arc<Budget>,
    /// What was taken of the budget and is not held.
    slack: Cell<i64>,
    /// Whether anything was refused since that was last asked.
    refused: Cell<bool>,
    held: [Cell<i64>; Kind::ALL.len()],
    /// What the budget was told of each kind.
    told: [Cell<i64>; Kind::ALL.len()],
}

impl Account {
    /// An account with a budget, if there is one.
    pub fn new(budget: Option<Arc<Budget>>) -> Rc<Self> {
        Rc::new(Self(budget.map(|budget| Open {
            budget,
            slack: Cell::new(0),
            refused: Cell::new(false),
            held: Default::default(),
            told: Default::default(),
        })))
    }

    /// The budget, if there is one.
    pub fn budget(&self) -> Option<&Budget> {
        self.0.as_ref().map(|open| &*open.budget)
    }

    /// How much is left.
    pub fn level(&self) -> Level {
        self.0.as_ref().map_or(Level::Plenty, |open| open.budget.level())
    }

    /// Why nothing more is taken on, if so.
    pub fn refusal(&self) -> Option<Error> {
        let Open { budget, refused, .. } =
            self.0.as_ref().filter(|open| open.budget.level() >= Level::Full)?;
        refused.set(true);
        let details = format!(
            "{} of the {} MiB of memory that this proxy may use are taken; ask again later, or raise its memory limit",
            budget.used() / MIB,
            budget.limit() / MIB,
        );
        Some(Error::unsent(Reason::ProxyMemoryLimit, details))
    }

    /// Notes a connection that is closed as it comes.
    pub fn turned_away(&self) {
        if let Some(open) = &self.0 {
            open.budget.turned_away.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Holds so many bytes.
    pub fn hold(self: &Rc<Self>, kind: Kind, bytes: usize) -> Charge {
        let mut charge = Charge { account: self.clone(), kind, bytes: 0 };
        charge.set(bytes);
        charge
    }

    /// What a connection that stalls holds, in bytes.
    fn stall(&self) -> usize {
        self.budget().map_or(0, |budget| (budget.of_one_connection() + ASIDE) as usize)
    }

    /// Gives back what is not held, and tells the budget what is. To be called now and then.
    pub fn settle(&self) {
        if let Some(open) = &self.0 {
            open.settle(0);
        }
    }

    /// Whether room is to be made: too much is taken, or something was refused since this was last asked.
    pub fn wants_room(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.refused.take() || open.budget.level() >= Level::Full)
    }
}

impl Open {
    fn add(&self, kind: Kind, bytes: i64) {
        if let Some(held) = self.held.get(kind as usize) {
            held.set(held.get() + bytes);
        }
        let slack = self.slack.get() - bytes;
        self.slack.set(slack);
        if !(0..=2 * self.budget.portion).contains(&slack) {
            self.settle(self.budget.portion);
        }
    }

    fn settle(&self, keep: i64) {
        let taken = keep - self.slack.replace(keep);
        if taken != 0 {
            self.budget.held.fetch_add(taken, Ordering::Relaxed);
        }
        for ((held, told), shared) in self.held.iter().zip(&self.told).zip(&self.budget.kinds) {
            let more = held.get() - told.replace(held.get());
            if more != 0 {
                shared.fetch_add(more, Ordering::Relaxed);
            }
        }
        if taken > 0 {
            self.budget.grown.notify_one();
        }
    }
}

/// A worker that ends leaves nothing behind.
impl Drop for Open {
    fn drop(&mut self) {
        self.settle(0);
    }
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Rc<Account>,
    kind: Kind,
    bytes: usize,
}

impl Charge {
    /// Holds so many bytes from now on.
    pub fn set(&mut self, bytes: usize) {
        if let Some(open) = self.account.0.as_ref().filter(|_| bytes != self.bytes) {
            open.add(self.kind, bytes as i64 - self.bytes as i64);
            self.bytes = bytes;
        }
    }

    /// The account that it is held in.
    pub const fn account(&self) -> &Rc<Account> {
        &self.account
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What is held for a peer while it does not take what is written to it.
#[derive(Debug)]
pub struct Stall(Charge);

impl Stall {
    /// Nothing is, yet.
    pub fn new(account: &Rc<Account>) -> Self {
        Self(account.hold(Kind::Stalled, 0))
    }

    /// Notes how a write, or a flush, went.
    pub fn note<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        self.set(polled.is_pending());
        polled
    }

    /// Notes whether the peer takes nothing.
    pub fn set(&mut self, stalled: bool) {
        if stalled != (self.0.bytes > 0) {
            self.0.set(if stalled { self.0.account.stall() } else { 0 });
        }
    }
}

/// A connection that is charged for while its peer does not take what is written to it.
#[derive(Debug)]
pub struct Charged<IO> {
    io: IO,
    stall: Stall,
}

impl<IO> Charged<IO> {
    /// Charges an account for a connection.
    pub fn new(io: IO, account: &Rc<Account>) -> Self {
        Self { io, stall: Stall::new(account) }
    }

    /// The connection.
    pub const fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Charged<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Charged<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.stall.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.stall.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.stall.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
