//! `outrigger-control serve`.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{ServeArgs, say};
use crate::{Options, start};

/// Runs the control API until a signal asks it to end.
pub(super) async fn serve(arguments: ServeArgs) -> anyhow::Result<ExitCode> {
    // Asked for first, so that a signal while it starts is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let options = Options {
        data: arguments.data,
        listen: arguments.listen,
        stream: arguments.stream,
        trust_domain: arguments.trust_domain,
        leaf_lifetime: arguments.leaf_lifetime.get(),
        root: arguments.root_cert.zip(arguments.root_key),
        names: arguments.names,
    };
    let control = start(options).await?;
    say(format_args!("outrigger-control: REST on http://{}", control.rest()));
    say(format_args!("outrigger-control: stream on https://{}", control.stream()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    control.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
