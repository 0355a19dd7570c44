#!/bin/sh
# Builds the static binary and lays out the file system of the image: deploy/rootfs.sh PROFILE [OUT]
#
# PROFILE is cargo's (release, dev). OUT must not exist; it becomes the image's root; without it the
# binary is built and no more. As root, /data and /tmp are handed to the image's user; anyone else
# keeps them. Wants cargo, a C compiler, glibc's
# static library (libc6-dev) and the CA certificates of the machine (ca-certificates).
set -eu

fail() {
    echo "rootfs.sh: $1" >&2
    exit 1
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail "usage: deploy/rootfs.sh PROFILE [OUT]"
profile=$1
out=${2:-}
user=65532
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
if [ -n "$out" ]; then
    [ ! -e "$out" ] || fail "$out is there already"
    [ -s "$certificates" ] || fail "no CA certificates at $certificates: install ca-certificates"
fi

case $(uname -m) in
x86_64) target=x86_64-unknown-linux-gnu ;;
aarch64 | arm64) target=aarch64-unknown-linux-gnu ;;
*) fail "no image is built for $(uname -m)" ;;
esac

# glibc since 2.34 has the resolver of /etc/hosts and DNS inside, so a static binary resolves names
# without loading anything. With --target the flags are for the binary, not for build scripts.
root=$(cd "$(dirname "$0")/.." && pwd)
(
    cd "$root"
    RUSTFLAGS='-C target-feature=+crt-static' \
        cargo build --quiet --locked --package tidegate --profile "$profile" --target "$target"
)
case $profile in
dev) folder=debug ;;
*) folder=$profile ;;
esac
binary=${CARGO_TARGET_DIR:-$root/target}/$target/$folder/tidegate
[ -n "$out" ] || exit 0

umask 022
mkdir -p "$out/etc/ssl/certs" "$out/etc/tidegate" "$out/data" "$out/tmp"
cp "$binary" "$out/tidegate"
chmod 0755 "$out/tidegate"
cp -L "$certificates" "$out/etc/ssl/certs/ca-certificates.crt"
chmod 0644 "$out/etc/ssl/certs/ca-certificates.crt"
echo "tidegate:x:$user:$user:Tidegate:/:/nonexistent" >"$out/etc/passwd"
echo "tidegate:x:$user:" >"$out/etc/group"
echo "hosts: files dns" >"$out/etc/nsswitch.conf"
chmod 0700 "$out/data"
chmod 1777 "$out/tmp"
if [ "$(id -u)" -eq 0 ]; then
    chown "$user:$user" "$out/data" "$out/tmp"
fi
