#!/bin/sh
# Installs what the fault suite plays faults with, from the distribution's packages: strace(1), for
# system calls that fail or kill, and openssl(1), for servers with old TLS. Does nothing when they
# are there already.
set -eu

missing=
for tool in strace openssl; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
[ -n "$missing" ] || exit 0

fail() {
    echo "$1" >&2
    echo "The tests need$missing. Install the packages of these names." >&2
    exit 1
}

command -v apt-get >/dev/null 2>&1 || fail "there is no apt-get here"
if [ "$(id -u)" -eq 0 ]; then
    root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    root="sudo -n"
else
    fail "not root, and no sudo without a password"
fi
$root apt-get update -q
# The names of the tools are those of their packages.
# shellcheck disable=SC2086
$root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
