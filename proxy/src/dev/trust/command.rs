//! `outrigger dev trust` and `untrust`: what they do and say.

use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use super::{State, Step};
use crate::cli::print_line;
use crate::dev::surroundings::Surroundings;

/// Has everything trust the authority, which is made if there is none.
pub(crate) fn trust(json: bool) -> Result<ExitCode, String> {
    let around = Surroundings::look()?;
    not_as_another(&around)?;
    let authority = around.files.open_or_create(&around.owner)?;
    let steps = around.machine().trust(&around.root(&authority));
    Ok(tell(&around, &steps, json))
}

/// Takes it out of everything.
pub(crate) fn untrust(json: bool) -> Result<ExitCode, String> {
    let around = Surroundings::look()?;
    not_as_another(&around)?;
    let steps = match around.files.open()? {
        Some(authority) => around.machine().untrust(&around.root(&authority)),
        None => Vec::new(),
    };
    Ok(tell(&around, &steps, json))
}

/// By sudo it would be root's own authority and browsers that are meant.
fn not_as_another(around: &Surroundings) -> Result<(), String> {
    let user = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
    let owner = around.home.as_ref().and_then(|home| home.metadata().ok()).map(|home| home.uid());
    match (user, owner) {
        (Some(user), Some(owner)) if user != owner => Err(
            "run it without sudo, for it is your own authority and your own browsers that are meant: it prints the \
             command that needs root"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

/// Tells what was done, and what is left to do. A failure, if anything is.
fn tell(around: &Surroundings, steps: &[Step], json: bool) -> ExitCode {
    let authority = around.files.root();
    if json {
        let authority = authority.is_file().then_some(authority);
        print_line(&format!("{:#}", serde_json::json!({ "authority": authority, "stores": steps })));
    } else if steps.is_empty() {
        print_line(&if authority.is_file() {
            format!("no store of certificates was found: {} is the one to trust", authority.display())
        } else {
            "there is no local authority, so nothing trusts it".to_owned()
        });
    }
    for step in steps.iter().filter(|_| !json) {
        let state = match step.state {
            State::Added => "trusts it now",
            State::Present => "trusts it",
            State::Removed => "trusts it no more",
            State::Absent => "does not trust it",
            State::Todo => "is left to do",
        };
        print_line(&format!("{}: {state} ({})", step.store, step.path.display()));
        if let Some(why) = &step.why {
            print_line(&format!("  {why}"));
        }
        if let Some(command) = &step.command {
            print_line(&format!("  {command}"));
        }
    }
    let changed =
        steps.iter().any(|s| s.store != "system" && matches!(s.state, State::Added | State::Removed));
    if changed && !json {
        print_line("Browsers that are open take it up when they are started again.");
    }
    if steps.iter().any(|step| step.state == State::Todo) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
