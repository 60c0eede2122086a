//! The `outrigger-demo` command.
fn main() {}
