# Every habit in one line. `just` lists them.

_list:
    @just --list --unsorted

# Formats the code.
fmt:
    cargo fmt

# Lints the code; warnings are errors.
clippy:
    cargo clippy --locked --all-targets -- -D warnings

# Runs all tests.
test *args:
    sh tests/run.sh {{args}}

# Checks the rules of the house: layers, doors, sizes, words.
tidy:
    cargo test --locked --test tidy

# Checks licences, sources and advisories of dependencies.
deny:
    python3 tests/licences.py && cargo deny check

# Writes schemas and references anew from the code.
schema:
    UPDATE=1 cargo test --locked --lib -- reference generated

# Runs the examples as their READMEs tell it.
examples:
    cargo test --locked --test it -- examples

# Times runs against other engines: benches/peers/README.md.
peers *args:
    cargo build --locked --release
    python3 benches/peers/run.py {{args}}

# Times images beside other builders: benches/images/README.md.
images *args:
    cargo build --locked --release
    python3 benches/images/run.py {{args}}

# Times single parts: the encoder, trees, the scheduler, manifests, the sweep of a census.
bench *args:
    cargo bench --locked --bench encode --bench fold --bench schedule --bench manifest --bench sweep -- {{args}}

# Counts instructions and allocations of a no-op and compares them with the baseline; `--update` writes it: benches/gate/noop.py.
gate *args:
    cargo build --locked
    python3 benches/gate/noop.py "${CARGO_TARGET_DIR:-target}/debug/drystone" {{args}}

# Times what a sandbox costs.
overhead:
    cargo bench --locked --bench overhead

# Does what the CI job does.
ci:
    .ci/run
