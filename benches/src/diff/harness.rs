//! One exchange at a time, as a caller of this library wants it: for requests and responses that are made up.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;

use super::{
    Path,
    caller::{self, Transcript},
    compare::{Ends, judge},
    exchange::{Exchange, Speaks},
    proxies::Started,
};

/// A path that stays up, and the same without it.
#[derive(Debug)]
pub struct Harness {
    path: Path,
    application: Speaks,
    direct: Started,
    through: Started,
    count: AtomicUsize,
}

impl Harness {
    /// Starts what the path needs.
    ///
    /// # Errors
    ///
    /// If the system refuses, or a proxy does not start.
    pub async fn start(path: Path, application: Speaks) -> Result<Self> {
        let direct = Started::start(Path::Direct, Speaks::Http1).await?;
        let through = Started::start(path, application).await?;
        Ok(Self { path, application, direct, through, count: AtomicUsize::new(0) })
    }

    /// What differs and may not: of a request, as HTTP/1 has it, and the response to it, after which the application
    /// closes if it has to. Nothing for what cannot be said in these versions.
    pub async fn differences(
        &self,
        caller: Speaks,
        request: &[u8],
        response: &[u8],
        close: bool,
    ) -> Vec<String> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let exchange = Arc::new(Exchange::made_up(number, request, response, close));
        // Without a proxy, there is nobody to translate.
        let direct = self.path == Path::Direct && caller != self.application;
        if direct || !exchange.has_caller(caller) || !exchange.has_application(self.application) {
            return Vec::new();
        }
        let play = async |speaks, started: &Started| -> Transcript {
            let to = started.address;
            let (mut seen, session) = caller::exchange(&exchange, speaks, to, &started.application).await;
            seen.gather(&session).await;
            seen
        };
        let reference = play(Speaks::Http1, &self.direct).await;
        let seen = play(caller, &self.through).await;
        let mut differences =
            judge(&exchange, &reference, &seen, Ends::new(self.path, caller, self.application)).differences;
        differences.extend(self.through.application.strays());
        differences
    }

    /// Ends the proxies.
    pub async fn stop(self) {
        self.through.stop().await;
    }
}
