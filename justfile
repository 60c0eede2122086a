# Names for the commands; each is plain cargo. `just` lists them.

default:
    @just --list

# Everything, for development.
build:
    cargo build --workspace

# Every test; those that need root run when root.
test:
    cargo test --workspace

# Formatting and lints, as CI has them.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# The API's documentation.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# A whole mesh on this machine.
demo *ARGS:
    cargo run --release -p outrigger-demo -- {{ARGS}}

# What it costs. The harness runs the proxy that stands beside it.
bench *ARGS:
    cargo build --release -p outrigger-proxy -p outrigger-benches
    cargo run --release -p outrigger-benches -- run {{ARGS}}

# How many instructions the proxy needs for a request, against what is accepted; `just instructions --accept` accepts.
instructions *ARGS:
    cargo build --release -p outrigger-proxy -p outrigger-demo
    cargo run -p outrigger-benches -- instructions --outrigger target/release/outrigger {{ARGS}}

# What must pass before a change is merged.
ci:
    .ci/run
