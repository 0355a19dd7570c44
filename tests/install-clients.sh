#!/usr/bin/env bash
# Installs providers' own client libraries, which the tests sign and parse with, into the build
# folder. Wants Python 3 and its registry; touches nothing else of the machine.
set -euo pipefail
cd "$(dirname "$0")"
clients=../target/clients

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

make_venv() {
    rm -rf "$clients"
    mkdir -p ../target
    python3 -m venv "$clients" >/dev/null 2>&1
}

# Debian keeps the venv module in a package of its own.
if [ ! -x "$clients/bin/pip" ] && ! make_venv; then
    echo "installing python3-venv from the distribution's packages"
    if ! { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends python3 python3-venv; } >&2; then
        echo "cannot install it here: install python3 and python3-venv, then run this again" >&2
        exit 1
    fi
    make_venv
fi
cmp -s clients/requirements.txt "$clients/installed" && exit 0
"$clients/bin/pip" install -q --disable-pip-version-check -r clients/requirements.txt
cp clients/requirements.txt "$clients/installed"
