#!/usr/bin/env bash
# Checks the alert rules, and plays their unit tests. Wants promtool, which comes with Prometheus
# (Debian package `prometheus`); without it nothing is checked, and with CI=true that is an error.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v promtool >/dev/null; then
    missing="deploy/prometheus is not checked, there is no promtool: install prometheus"
    if [ "${CI:-}" = true ]; then
        echo "$missing" >&2
        exit 1
    fi
    echo "skipped: $missing" >&2
    exit 0
fi

# What they say when all is well is noise beside the other checks.
if ! said=$({ promtool check rules alerts.yaml && promtool test rules alerts_test.yaml; } 2>&1); then
    echo "$said" >&2
    exit 1
fi
