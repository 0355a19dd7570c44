#!/bin/sh
# What `make check` looks at deploy/ with. Skips it, and says so, where the tools are missing; in CI
# they must be there: tests/install-deploy-tools.sh installs them.
set -eu
cd "$(dirname "$0")/.."
tools=target/deploy-tools

if [ -f "$tools/installed" ] && { [ -x "$tools/bin/promtool" ] || [ "${CI:-}" != true ]; }; then
    exec "$tools/bin/python" tests/deploy/check.py
fi
echo "deploy/ is not checked: its tools are missing, run tests/install-deploy-tools.sh" >&2
[ "${CI:-}" != true ]
