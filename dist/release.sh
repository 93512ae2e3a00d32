#!/usr/bin/env bash
# Builds release binaries and packs them as etcd packs its own: etcd-vVERSION-linux-ARCH.tar.gz with one directory of that
# name. The archive lands in the directory that is given, or in target/dist. The same commit gives the same archive, as far as
# compiler and machine are the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-target/dist}
target_dir=${CARGO_TARGET_DIR:-target}
case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$(uname -m) ;;
esac

RETCD_GIT_SHA=$(git rev-parse --short HEAD)
export RETCD_GIT_SHA
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
cargo build --release --locked --workspace --bins

version=$("$target_dir/release/etcd" --version | sed -n 's/^etcd Version: //p')
name=etcd-v$version-linux-$arch
mkdir -p "$out"
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT

install -d "$staging/$name/dist" "$staging/$name/docs"
install -m 0755 "$target_dir"/release/{etcd,etcdctl,etcdutl} "$staging/$name/"
install -m 0644 README.md CHANGELOG.md CONTRIBUTING.md LICENSE "$staging/$name/"
install -m 0644 docs/*.md "$staging/$name/docs/"
install -m 0644 dist/* "$staging/$name/dist/"

tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    -C "$staging" -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
ls -l "$out/$name.tar.gz"
