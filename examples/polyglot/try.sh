#!/bin/sh
# Builds drystone, runs every task of this example twice, and says what to try next. Works from any directory.
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
cd -- "$here/../.."

if ! command -v cargo >/dev/null 2>&1 && [ -x "${HOME:-/nonexistent}/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
    export PATH
fi
if ! command -v cargo >/dev/null 2>&1; then
    echo "try.sh: cargo is not on the PATH; install Rust first (https://rustup.rs)" >&2
    exit 1
fi

missing=
command -v cc >/dev/null 2>&1 && [ -e /usr/include/stdio.h ] || missing="$missing gcc libc6-dev"
command -v python3 >/dev/null 2>&1 || missing="$missing python3"
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
if [ -n "$missing" ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "try.sh: installing$missing"
        apt-get update -q
        # Unquoted on purpose: one word per package.
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    else
        echo "try.sh: these packages are missing:$missing" >&2
        echo "try.sh: install them, on Debian with: sudo apt-get install$missing" >&2
        exit 1
    fi
fi

cargo build --release --locked
drystone="${CARGO_TARGET_DIR:-target}/release/drystone"

echo
echo "--- drystone run //...: whatever is not known runs"
"$drystone" -C "$here" run //...
echo
echo "--- drystone run //... again: nothing changed, so nothing runs"
"$drystone" -C "$here" run //...

case $drystone in
    /*) ;;
    *) drystone=$PWD/$drystone ;;
esac
cat <<TEXT

--- what to try next

    cd $here
    PATH=${drystone%/*}:\$PATH

    drystone                                        # the tasks here
    drystone query 'rdeps(//frontend:api-urls)'     # what a change of the routes can reach
    echo '# A remark.' >> backend/src/shop/urls.py
    drystone plan //...                             # what would run now, and why
    drystone run //...                              # the front end does not run: the generated module stays the same
    git checkout backend/src/shop/urls.py
    drystone run //...                              # going back is a hit
TEXT
