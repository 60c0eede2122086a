//! Why a request was sent again, and why it was not: for the access log.

/// Why a request was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It provably did not reach the application.
    Unreached,
    /// Its connection was lost.
    Lost,
    /// It was not answered in time.
    Timeout,
    /// The route names the status that it was answered with.
    Status,
    /// The route names the status of gRPC that it was answered with.
    GrpcStatus,
    /// It was not answered within the route's hedge delay.
    Hedge,
}

impl Again {
    /// As logs have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreached => "unreached",
            Self::Lost => "lost",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::GrpcStatus => "grpc_status",
            Self::Hedge => "hedge",
        }
    }
}

/// Why a request was not sent again that its route would have sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It may have reached the application, and its method is not idempotent.
    Unsafe,
    /// Not all of its body was kept.
    Body,
    /// It was sent as often as the route says.
    Attempts,
    /// The wait would end after the request's deadline.
    Deadline,
    /// The backend asks to be left alone for longer than the route waits.
    RetryAfter,
    /// The backend's budget is used up.
    Budget,
    /// As many retries are under way at the backend as may be.
    Limit,
}

impl Denied {
    /// As logs have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsafe => "unsafe",
            Self::Body => "body",
            Self::Attempts => "attempts",
            Self::Deadline => "deadline",
            Self::RetryAfter => "retry_after",
            Self::Budget => "budget",
            Self::Limit => "limit",
        }
    }

    /// Whether the backend's own limits are the cause.
    pub const fn is_of_backend(self) -> bool {
        matches!(self, Self::Budget | Self::Limit)
    }
}

impl From<outrigger_balance::Refused> for Denied {
    fn from(refused: outrigger_balance::Refused) -> Self {
        match refused {
            outrigger_balance::Refused::Budget => Self::Budget,
            outrigger_balance::Refused::Limit => Self::Limit,
        }
    }
}
