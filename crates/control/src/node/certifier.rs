//! Keeps a valid certificate: the first by token, each further one by the certificate before it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::{Identity, control, signing_request};
use outrigger_config::Name;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::info;

use super::backoff::Backoff;
use super::token::Token;
use super::wire::{Origin, WireError};
use crate::message::SignRequest;

/// The longest time between two tries.
const CAP: Duration = Duration::from_secs(5);
/// How often the clock is looked at. A sleeping machine's timers stand still, and its clock may be set.
const GLANCE: Duration = Duration::from_mins(1);

pub(super) struct Certifier {
    pub(super) origin: Arc<Origin>,
    pub(super) node: Name,
    pub(super) token: Option<PathBuf>,
}

impl Certifier {
    /// Renews at half life, by timer, and publishes each identity.
    pub(super) async fn run(
        self,
        mut current: Option<Arc<Identity>>,
        publish: watch::Sender<Option<Arc<Identity>>>,
    ) -> Infallible {
        let mut backoff = Backoff::new(CAP);
        if let Some(identity) = &current
            && self.token().is_none_or(|token| token.agrees_with(identity))
        {
            until(jittered(identity.not_before(), identity.not_after())).await;
        }
        loop {
            match self.obtain(current.as_deref()).await {
                Ok(identity) => {
                    backoff.reset();
                    let identity = Arc::new(identity);
                    info!("certificate for {} signed", identity.id());
                    publish.send_replace(Some(identity.clone()));
                    let renewal = jittered(SystemTime::now(), identity.not_after());
                    current = Some(identity);
                    until(renewal).await;
                }
                Err(error) => sleep(backoff.after("cannot get a certificate", error)).await,
            }
        }
    }

    /// The token, if there is one that can be read.
    fn token(&self) -> Option<Token> {
        Token::read(self.token.as_deref()?).ok()
    }

    /// A new identity, with a new key: by the current certificate while it is valid and of the identity that the
    /// token leads to, and else by the token.
    async fn obtain(&self, current: Option<&Identity>) -> Result<Identity, WireError> {
        let (key, csr) = signing_request()?;
        let request = SignRequest { node: self.node.clone(), csr };
        let valid = current.filter(|identity| {
            identity.not_after() > SystemTime::now()
                && self.token().is_none_or(|token| token.agrees_with(identity))
        });
        let signed = if let Some(identity) = valid {
            self.origin.sign(control::client_config(identity), None, &request).await?
        } else {
            let path = self.token.as_deref().ok_or_else(|| {
                WireError::Token(
                    "is missing, and the certificate has expired: start with a token file".into(),
                )
            })?;
            let token = Token::read(path).map_err(WireError::Token)?;
            self.origin.sign(control::pinned(token.root), Some(&token.text), &request).await?
        };
        let (chain, bundle) = (signed.chain.as_bytes(), signed.bundle.as_bytes());
        Ok(Identity::from_pem(chain, key.expose().as_bytes(), bundle)?)
    }
}

/// Half way between two times, give or take a tenth, so that nodes that started together do not renew together.
fn jittered(from: SystemTime, to: SystemTime) -> SystemTime {
    let half = to.duration_since(from).unwrap_or_default() / 2;
    from + half.mul_f64(0.9 + 0.2 * fastrand::f64())
}

async fn until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        sleep(left.min(GLANCE)).await;
    }
}
