#!/bin/sh
# Installs the programs of others that images, and what goes with them, are tried against. What cannot be installed is told as
# `!!! NOT TESTED: …`, and the tests tell it again: nothing here fails a run. Works from any directory.
#
# Packages for Python and node go to `others/` in the target directory, and are installed once.
set -u
cd -- "$(dirname -- "$0")/.." || exit 1

loudly() {
    printf '!!! NOT TESTED: %s\n' "$*"
}

there() {
    PATH="${PATH:-}:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1
}

# Containers, registries and validators: a program, and the package of Debian that has it.
missing=
while read -r program package; do
    there "$program" || missing="$missing $package"
done <<LIST
docker-registry docker-registry
skopeo skopeo
umoci umoci
oci-image-tool oci-image-tool
ctr containerd
runc runc
dockerd docker.io
busybox busybox-static
LIST
# Debian has the module that makes environments for Python in a package of its own.
python3 -c "import ensurepip" >/dev/null 2>&1 || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    if [ "$(id -u)" -eq 0 ] && there apt-get; then
        echo "installing$missing"
        # Unquoted on purpose: one word per package.
        # shellcheck disable=SC2086
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing; } ||
            loudly "images by$missing: they could not be installed"
    else
        loudly "images by$missing: on Debian: sudo apt-get install$missing"
    fi
fi

others=${CARGO_TARGET_DIR:-target}/others
mkdir -p "$others"

python_packages='spdx-tools==0.8.5 cyclonedx-python-lib[validation]==11.12.0 securesystemslib[crypto]==1.6.0'
if [ "$(cat "$others/python/installed" 2>/dev/null)" != "$python_packages" ]; then
    rm -rf "$others/python"
    # shellcheck disable=SC2086
    if python3 -m venv "$others/python" >/dev/null 2>&1 &&
        "$others/python/bin/pip" install -q --disable-pip-version-check --no-compile $python_packages; then
        echo "$python_packages" >"$others/python/installed"
    else
        rm -rf "$others/python"
        loudly "bills of materials and envelopes by $python_packages: python3 -m venv or pip does not work here"
    fi
fi

node_packages='@sigstore/verify@4.1.3 @sigstore/bundle@5.0.1'
if [ "$(cat "$others/node/installed" 2>/dev/null)" != "$node_packages" ]; then
    rm -rf "$others/node"
    # shellcheck disable=SC2086
    if there npm && mkdir -p "$others/node" &&
        npm install --prefix "$others/node" --no-audit --no-fund --ignore-scripts --loglevel=error $node_packages; then
        echo "$node_packages" >"$others/node/installed"
    else
        rm -rf "$others/node"
        loudly "bundles by $node_packages: npm does not install them here"
    fi
fi
exit 0
