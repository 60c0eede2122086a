//! A connection that both sides agreed to use for something else (RFC 9110, section 7.8).

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use outrigger_net::copy::{Copied, both};

/// Waits for both sides of an upgrade, and copies until both have closed. `None` if one of them never came.
pub async fn relay(caller: OnUpgrade, callee: OnUpgrade) -> Option<Copied> {
    let (caller, callee) = tokio::try_join!(caller, callee).ok()?;
    Some(both(TokioIo::new(caller), TokioIo::new(callee), None).await)
}
