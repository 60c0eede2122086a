//! The `outrigger-control` command.
