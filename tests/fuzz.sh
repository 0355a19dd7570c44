#!/usr/bin/env bash
# Fuzzes: tests/fuzz.sh [SECONDS [TARGET...]]; half an hour each of all targets, one after the other,
# unless told otherwise. Wants rustup; installs a nightly toolchain and cargo-fuzz.
#
# What is found is kept in target/fuzz-found, and the best of it goes into fuzz/corpus. An input
# that breaks a target stays in fuzz/crashes, so that `make test` fails until it is mended.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-1800}
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' fuzz/Cargo.toml)
fi

rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
# The code has no unsafe blocks, so that a sanitizer would find little and cost half the speed.
cargo +nightly fuzz build --sanitizer none --target-dir target/fuzz
host=$(rustc +nightly --print host-tuple)

broken=0
for target in "${targets[@]}"; do
    binary=target/fuzz/$host/release/$target
    found=target/fuzz-found/$target crashes=fuzz/crashes/$target
    mkdir -p "$found" "$crashes"
    echo "$target, $seconds s"
    log=target/fuzz-found/$target.log
    nice -n 15 "$binary" "$found" "fuzz/corpus/$target" -max_total_time="$seconds" \
        -rss_limit_mb=2048 -timeout=25 -max_len=8192 -len_control=20 \
        -artifact_prefix="$crashes/" -print_final_stats=1 >"$log" 2>&1 || broken=1
    grep -E 'DONE|panicked|ERROR|^stat::(number|slowest|peak)' "$log" | sort -u
    fuzz/keep.py "$binary" "$found" "fuzz/corpus/$target"
    rmdir --ignore-fail-on-non-empty "$crashes"
done
rmdir --ignore-fail-on-non-empty fuzz/crashes 2>/dev/null || true
exit "$broken"
