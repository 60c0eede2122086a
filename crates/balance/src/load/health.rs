//! Why requests are kept away from an endpoint, and how that is kept in few bits.

use std::time::Duration;

/// How long an endpoint is left alone after the first failure in a row, in milliseconds; each further one doubles it.
const FIRST_PAUSE: u32 = 1_000;
/// The longest that an endpoint is left alone, in milliseconds.
const LONGEST_PAUSE: u32 = 30_000;
/// How many failures in a row lead to the longest pause.
const LONGEST_AFTER: u16 = 6;
/// How long the one request that tries an endpoint after its pause keeps others away, in milliseconds.
const TRIAL: u32 = 1_000;

/// How an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It gets its share.
    Well,
    /// It could not be reached. One request at a time tries it.
    Trial,
    /// It cannot be reached.
    Unreachable,
    /// Another answers there than the one expected.
    Stranger,
    /// It says that it is leaving.
    Leaving,
    /// Outlier detection keeps requests away.
    Ejected(Cause),
    /// Active checks say that it is not well.
    Ill,
}

impl State {
    /// What it is called in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Trial => "trial",
            Self::Unreachable => "unreachable",
            Self::Stranger => "stranger",
            Self::Leaving => "leaving",
            Self::Ejected(_) => "ejected",
            Self::Ill => "ill",
        }
    }

    /// Why it is so, in a sentence's part.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Well => "nothing speaks against it",
            Self::Trial => "it could not be reached, and is tried by one request at a time",
            Self::Unreachable => "a connection to it failed",
            Self::Stranger => "its certificate is not trusted, or is another's",
            Self::Leaving => "it says that it is leaving",
            Self::Ejected(cause) => cause.why(),
            Self::Ill => "its health checks fail",
        }
    }
}

/// Why outlier detection ejected an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Failures in a row.
    Failures,
    /// Connections in a row that could not be made.
    ConnectFailures,
    /// It succeeds far more rarely than the others.
    SuccessRate,
    /// It is far slower than the others.
    Latency,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Failures, Self::ConnectFailures, Self::SuccessRate, Self::Latency];

    /// What it is called in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "consecutive_failures",
            Self::ConnectFailures => "consecutive_connect_failures",
            Self::SuccessRate => "success_rate",
            Self::Latency => "latency",
        }
    }

    const fn why(self) -> &'static str {
        match self {
            Self::Failures => "too many of its answers in a row were failures",
            Self::ConnectFailures => "too many connections to it in a row failed",
            Self::SuccessRate => "it succeeds far more rarely than the others",
            Self::Latency => "it is far slower than the others",
        }
    }

    const fn of(number: u64) -> Self {
        match number & 3 {
            0 => Self::Failures,
            1 => Self::ConnectFailures,
            2 => Self::SuccessRate,
            _ => Self::Latency,
        }
    }
}

/// What an operator wants to know of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How it stands.
    pub state: State,
    /// For how long it has stood so; from one reason to be left alone to another, since the first.
    pub since: Duration,
    /// For how long it still will, where that is known.
    pub left: Option<Duration>,
}

/// Why requests are kept away.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Health {
    /// Failures in a row to reach it, 0 to 16.
    pub(super) failures: u16,
    /// Whether a request was let through after the pause, to try.
    pub(super) trial: bool,
    /// Whether the last of the failures was that another answered.
    pub(super) stranger: bool,
    /// Whether active checks say that it is not well.
    pub(super) ill: bool,
    /// Whether it was ejected: see [`Ejection`] for how long.
    pub(super) ejected: bool,
    /// Whether it says that it is leaving.
    pub(super) leaving: bool,
    /// The tick until which the failures keep requests away.
    pub(super) until: u32,
}

impl Health {
    pub(super) const fn paused(self, tick: u32) -> bool {
        // The distance is at most a pause's length, so a wrapped clock is told apart.
        self.failures > 0 && self.until.wrapping_sub(tick).wrapping_sub(1) < LONGEST_PAUSE
    }

    pub(super) fn failed(self, tick: u32) -> Self {
        if self.paused(tick) && !self.trial {
            return self;
        }
        self.pause(self.failures + 1, false, tick)
    }

    pub(super) fn met_stranger(self, tick: u32) -> Self {
        if self.paused(tick) && !self.trial && self.stranger {
            return self;
        }
        self.pause((self.failures + 1).max(LONGEST_AFTER), true, tick)
    }

    fn pause(self, failures: u16, stranger: bool, tick: u32) -> Self {
        let failures = failures.min(16);
        let pause = (FIRST_PAUSE << (failures - 1)).min(LONGEST_PAUSE);
        Self { failures, stranger, trial: false, until: tick.wrapping_add(pause), ..self }
    }

    pub(super) const fn succeeded(self) -> Self {
        Self { failures: 0, trial: false, stranger: false, until: 0, ..self }
    }

    pub(super) const fn tried(self, tick: u32) -> Self {
        if self.failures == 0 || self.paused(tick) {
            return self;
        }
        Self { trial: true, until: tick.wrapping_add(TRIAL), ..self }
    }

    pub(super) fn pack(self) -> u64 {
        let bits = [self.trial, self.stranger, self.ill, self.ejected, self.leaving];
        let bits = bits.into_iter().rev().fold(0, |bits, bit| bits << 1 | u64::from(bit));
        u64::from(self.failures) << 48 | bits << 32 | u64::from(self.until)
    }

    pub(super) fn unpack(packed: u64) -> Self {
        let bit = |at: u32| packed >> (32 + at) & 1 == 1;
        Self {
            failures: (packed >> 48) as u16,
            trial: bit(0),
            stranger: bit(1),
            ill: bit(2),
            ejected: bit(3),
            leaving: bit(4),
            until: packed as u32,
        }
    }
}

/// The last ejection of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ejection {
    pub(super) cause: Cause,
    /// How many there were in a row, 1 to 255.
    pub(super) times: u8,
    /// The tick until which it lasts.
    pub(super) until: u32,
}

impl Ejection {
    /// The one that follows `before`, at this tick.
    pub(super) fn next(
        before: Option<Self>,
        cause: Cause,
        base: Duration,
        most: Duration,
        tick: u32,
    ) -> Self {
        let longest = u128::from(u32::MAX / 2);
        let base = base.as_millis().clamp(1, longest) as u32;
        let most = most.as_millis().min(longest) as u32;
        let forgiven = |before: Self| super::since(tick, before.until) / base;
        let times = before.map_or(0, |before| u32::from(before.times).saturating_sub(forgiven(before)));
        let time = base.checked_shl(times.min(31)).filter(|time| time >> times.min(31) == base);
        let until = tick.wrapping_add(time.unwrap_or(most).min(most));
        Self { cause, times: (times + 1).min(255) as u8, until }
    }

    /// Whether it lengthens the next one no more.
    pub(super) fn is_forgiven(self, base: Duration, tick: u32) -> bool {
        u128::from(super::since(tick, self.until)) >= base.as_millis() * u128::from(self.times)
    }

    pub(super) const fn pack(self) -> u64 {
        (self.times as u64) << 40 | (self.cause as u64) << 32 | self.until as u64
    }

    /// `None` where there was none.
    pub(super) const fn unpack(packed: u64) -> Option<Self> {
        let times = (packed >> 40) as u8;
        if times == 0 {
            return None;
        }
        Some(Self { cause: Cause::of(packed >> 32), times, until: packed as u32 })
    }
}
