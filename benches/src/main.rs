//! The `outrigger-bench` command.
fn main() {}
