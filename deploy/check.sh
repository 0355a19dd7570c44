#!/usr/bin/env bash
# Checks what stands in deploy/: renders every overlay of kubernetes/ and holds the results against
# the schemas of Kubernetes, and compose.yaml against the Compose specification. What a machine has
# no tool for is skipped and said so; with CI=true that is an error.
set -euo pipefail
cd "$(dirname "$0")"
tools=../target/deploy-tools

# A step that cannot be done here.
skip() {
    if [ "${CI:-}" = true ]; then
        echo "deploy/: $1" >&2
        exit 1
    fi
    echo "skipped: $1" >&2
}

render() {
    if command -v kubectl >/dev/null; then
        kubectl kustomize "$1"
    elif command -v kustomize >/dev/null; then
        kustomize build "$1"
    else
        "$tools/bin/kubectl" kustomize "$1"
    fi
}

if ! command -v kubectl >/dev/null && ! command -v kustomize >/dev/null \
        && [ ! -x "$tools/bin/kubectl" ]; then
    skip "kubernetes/ is not rendered, there is no kubectl: deploy/install-tools.sh"
elif [ ! -x "$tools/bin/kubernetes-validate" ]; then
    skip "kubernetes/ is not validated, there are no schemas: deploy/install-tools.sh"
else
    for folder in kubernetes/base kubernetes/overlays/*/; do
        render "$folder" | "$tools/bin/python" kubernetes/validate.py "${folder%/}"
    done
fi

if [ ! -x "$tools/bin/kubernetes-validate" ]; then
    skip "compose.yaml is not validated, there are no schemas: deploy/install-tools.sh"
else
    "$tools/bin/python" compose/validate.py compose.yaml
fi
# Docker itself, where it is, has the last word.
if docker compose version >/dev/null 2>&1; then
    docker compose -f compose.yaml config --quiet
fi
