//! The `outrigger` command.

use std::process::ExitCode;

/// Its own threads give memory back to the system, and small allocations cost half of what the C library's do. Left out
/// by default: building it takes `make`, and longer than all of Outrigger.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    outrigger_proxy::cli::main()
}
