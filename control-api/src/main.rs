//! The `outrigger-control` command.
fn main() {}
