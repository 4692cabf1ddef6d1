# Daily commands; each is a thin call, so that everything works without just too.

# List the recipes
default:
    @just --list

# Lay out .runtime (add --cuda, --demo or --peers)
setup *args:
    cargo xtask setup {{ args }}

# Build all programs
build *args:
    cargo build --workspace {{ args }}

# Format and lints, as the checks demand them
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All checks: format, lints, tests, a short run (add --peers, or -- and arguments for nextest)
test *args:
    cargo xtask test {{ args }}

# Tests alone, also of one crate: just check -p runtime-core
check *args:
    cargo nextest run {{ args }}

# The demo on real data (add --json FILE or --short)
demo *args:
    cargo xtask demo {{ args }}

# All services in one process
serve *args:
    cargo run --package quintet -- serve {{ args }}

# Throughput of the job runtime beside huey
bench *args:
    cargo bench --package quintet-tests {{ args }}

# Quality of the samplers beside Optuna's: just hpo-quality --sampler tpe --parallel 8 --jobs 2
hpo-quality *args:
    cargo build --release --package hpo-svc --example ask_tell
    .runtime/venv/bin/python tests/bench/hpo_quality/compare.py target/release/examples/ask_tell {{ args }}
