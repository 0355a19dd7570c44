#!/usr/bin/env bash
# Installs what the fault suite hurts a running process with: strace, from the distribution's
# packages. Touches nothing else of the machine.
set -euo pipefail

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

command -v strace >/dev/null && exit 0
echo "installing strace from the distribution's packages"
if ! { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends strace; } >&2; then
    echo "cannot install it here: install strace, then run this again" >&2
    exit 1
fi
