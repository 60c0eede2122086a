//! The `outrigger-control` command.

fn main() -> std::process::ExitCode {
    outrigger_control_api::cli::main()
}
