#!/usr/bin/env bash
# Makes the file system of the container image: deploy/rootfs.sh PROFILE FOLDER
#
# PROFILE is one of cargo's, `release` for what ships. FOLDER is made anew and holds the whole image
# afterwards: one static binary and the files it looks for, no shell, no libraries. The Dockerfile
# and the tests both come here, so what was tested is what is shipped.
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: $0 PROFILE FOLDER" >&2
    exit 2
fi
profile=$1 out=$2
repository=$(cd "$(dirname "$0")/.." && pwd)
target=$repository/target/static
authorities=/etc/ssl/certs/ca-certificates.crt
user=65532 # no user of any host: a number that distroless images made a habit

if [ ! -s "$authorities" ]; then
    echo "there is no $authorities: install the package ca-certificates" >&2
    exit 1
fi

# glibc is linked in. Its name resolution and its users are then the parts it has built in (files,
# dns), which is what a container has. With `--target` the flag is for the binary alone: cargo's own
# helpers, procedural macros among them, cannot be static.
triple=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" cargo build --quiet --locked \
    --manifest-path "$repository/Cargo.toml" --profile "$profile" --target "$triple" \
    --target-dir "$target" --package tidegate --bin tidegate
built=$profile
[ "$profile" != dev ] || built=debug # the one profile whose folder has another name

rm -rf "$out"
install -d -m 0755 "$out" "$out/etc" "$out/etc/ssl" "$out/etc/ssl/certs"
install -d -m 0750 "$out/data" # the queue
install -d -m 1777 "$out/tmp"
install -m 0755 "$target/$triple/$built/tidegate" "$out/tidegate"
strip --strip-debug "$out/tidegate" # names of functions stay, for a panic's backtrace
install -m 0644 "$authorities" "$out/etc/ssl/certs/ca-certificates.crt"
echo "tidegate:x:$user:$user::/data:/sbin/nologin" >"$out/etc/passwd"
echo "tidegate:x:$user:" >"$out/etc/group"
chmod 0644 "$out/etc/passwd" "$out/etc/group"

# Only root gives files away. To others it makes the same tree in their own name.
[ "$(id -u)" -ne 0 ] || chown "$user:$user" "$out/data"
