#!/bin/sh
# Installs what the tests need beside Rust, then runs all of them. Works from any directory; arguments go to the runner.
set -eu
cd -- "$(dirname -- "$0")/.."

if ! command -v cargo >/dev/null 2>&1 && [ -x "${HOME:-/nonexistent}/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
    export PATH
fi
if ! command -v cargo >/dev/null 2>&1; then
    echo "tests/run.sh: cargo is not on the PATH; install Rust first (https://rustup.rs)" >&2
    exit 1
fi

missing=
need() { # need PROGRAM PACKAGE...
    program=$1
    shift
    command -v "$program" >/dev/null 2>&1 || missing="$missing $*"
}
need git git
need cc gcc libc6-dev
need python3 python3
need node nodejs
need tar tar
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"

if [ -n "$missing" ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "tests/run.sh: installing$missing"
        apt-get update -q
        # Unquoted on purpose: one word per package.
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    else
        echo "tests/run.sh: these packages are missing:$missing" >&2
        echo "tests/run.sh: install them, on Debian with: sudo apt-get install$missing" >&2
        exit 1
    fi
fi

sh tests/others.sh
others=${CARGO_TARGET_DIR:-$PWD/target}/others
if [ -e "$others/python/installed" ]; then
    export DRYSTONE_TEST_PYTHON="$others/python"
fi
if [ -e "$others/node/installed" ]; then
    export DRYSTONE_TEST_NODE_MODULES="$others/node"
fi

if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --locked --no-fail-fast "$@"
fi
exec cargo test --locked --no-fail-fast "$@"
