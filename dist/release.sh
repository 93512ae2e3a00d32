#!/usr/bin/env bash
# Makes what a release consists of:
#
#   etcd-vVERSION-linux-ARCH.tar.gz          programs, man pages, completions and documents, laid out as etcd's own archive
#   etcd-vVERSION-linux-ARCH-debug.tar.gz    the debug information that was split off the programs
#   retcd_VERSION_ARCH.deb, retcd-VERSION.ARCH.rpm
#   retcd-vVERSION-linux-ARCH.oci.tar        an image, for `podman load`, `ctr images import`, `skopeo copy oci-archive:…`
#   etcd-vVERSION.cdx.json                   what the programs are made of (CycloneDX)
#   SHA256SUMS
#
#   release.sh [--bin-dir DIR] [--out DIR] [--without-packages]
#
#   --bin-dir DIR         programs that are there already; without, they are built
#   --out DIR             where everything goes (default: target/dist)
#   --without-packages    no .deb and .rpm, which need nfpm
#   NFPM                  the program nfpm; without, it is built with Go from its module
#
# The same commit gives the same bytes, as far as compiler and machine are the same: times are those of the commit
# (SOURCE_DATE_EPOCH, if it is set).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NFPM_VERSION=v2.45.2
bin_dir=
out=target/dist
packages=1
while (($#)); do
    case $1 in
        --bin-dir) bin_dir=$2 && shift 2 ;;
        --out) out=$2 && shift 2 ;;
        --without-packages) packages= && shift ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
        *) echo "release.sh: unknown argument: $1" >&2 && exit 2 ;;
    esac
done
for tool in objcopy readelf ldd tar gzip sha256sum; do
    command -v "$tool" >/dev/null || { echo "release.sh: $tool is missing (Debian: binutils, libc-bin, coreutils)" >&2 && exit 1; }
done

case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$(uname -m) ;;
esac
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C.UTF-8
umask 022

if [[ -z $bin_dir ]]; then
    RETCD_GIT_SHA=$(git rev-parse --short HEAD)
    export RETCD_GIT_SHA
    cargo build --release --locked --workspace --bin etcd --bin etcdctl --bin etcdutl
    bin_dir=${CARGO_TARGET_DIR:-target}/release
fi
version=$("$bin_dir/etcd" --version | sed -n 's/^etcd Version: //p')
name=etcd-v$version-linux-$arch
mkdir -p "$out"
out=$(cd "$out" && pwd)
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT

# pack FILE DIRECTORY NAME: an archive whose bytes depend on nothing but its files.
pack() {
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -C "$2" -cf - "$3" | gzip -9n >"$1"
}

echo "-- programs"
# Names of functions stay, for profiles and backtraces; lines and types go into a file of their own, which debuggers find by
# the name in the link.
mkdir -p "$staging/debug/$name-debug" "$staging/bin"
for program in etcd etcdctl etcdutl; do
    objcopy --only-keep-debug --compress-debug-sections "$bin_dir/$program" "$staging/debug/$name-debug/$program.debug"
    objcopy --strip-debug "$bin_dir/$program" "$staging/bin/$program"
    (cd "$staging/debug/$name-debug" && objcopy --add-gnu-debuglink="$program.debug" "$staging/bin/$program")
    chmod 0755 "$staging/bin/$program"
done
ls -l "$staging/bin"

echo "-- man pages and completions"
bash dist/packaging/man.sh "$staging/bin" "$staging/man"
bash dist/packaging/completions.sh "$staging/bin" "$staging/completions"

echo "-- archive"
tree=$staging/tree/$name
install -d "$tree/dist" "$tree/docs"
install -m 0755 "$staging"/bin/* "$tree/"
cp -r "$staging/man" "$staging/completions" "$tree/"
install -m 0644 README.md CHANGELOG.md CONTRIBUTING.md LICENSE "$tree/"
install -m 0644 docs/*.md "$tree/docs/"
find dist -maxdepth 1 -type f -exec install -m 0644 {} "$tree/dist/" \;
pack "$out/$name.tar.gz" "$staging/tree" "$name"
pack "$out/$name-debug.tar.gz" "$staging/debug" "$name-debug"

echo "-- components"
bash dist/packaging/sbom.sh "$version" >"$out/etcd-v$version.cdx.json"

echo "-- image"
bash dist/packaging/image.sh "$staging/bin" "$version" "$arch" "$out/retcd-v$version-linux-$arch.oci.tar"

made=("$name.tar.gz" "$name-debug.tar.gz" "etcd-v$version.cdx.json" "retcd-v$version-linux-$arch.oci.tar")
if [[ -n $packages ]]; then
    echo "-- packages"
    if [[ -z ${NFPM:-} ]]; then
        command -v go >/dev/null || { echo "release.sh: nfpm needs Go; or --without-packages" >&2 && exit 1; }
        NFPM=${XDG_CACHE_HOME:-$HOME/.cache}/retcd/nfpm-$NFPM_VERSION/nfpm
        [[ -x $NFPM ]] || GOBIN=$(dirname "$NFPM") go install "github.com/goreleaser/nfpm/v2/cmd/nfpm@$NFPM_VERSION"
    fi
    # What the programs are linked with decides how old a system may be.
    glibc=$(for program in "$staging"/bin/*; do readelf -V "$program"; done | grep -o 'GLIBC_2\.[0-9]*' | sort -V | tail -n 1)
    # The packages take over settings where those of distributions have them: flags in DAEMON_ARGS and the host as the name in
    # Debian, a file of its own in Fedora. Without, a member would start without its TLS, or on another directory.
    # shellcheck disable=SC2016
    sed -e 's|/usr/local/bin/etcd|/usr/bin/etcd $DAEMON_ARGS|' \
        -e 's|^Environment=ETCD_DATA_DIR|Environment=DAEMON_ARGS= ETCD_NAME=%H\n&|' \
        -e 's|^EnvironmentFile=|EnvironmentFile=-/etc/etcd/etcd.conf\n&|' dist/etcd.service >"$staging/etcd.service"
    [[ $(grep -cF -e '/usr/bin/etcd $DAEMON_ARGS' -e 'ETCD_NAME=%H' -e '/etc/etcd/etcd.conf' "$staging/etcd.service") == 3 ]] ||
        { echo "release.sh: dist/etcd.service has changed" >&2 && exit 1; }
    find "$staging" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    export STAGING=$staging VERSION=$version ARCH=$arch GLIBC=${glibc#GLIBC_}
    for packager in deb rpm; do
        case $packager in
            deb) file=retcd_${version}_$arch.deb ;;
            rpm) file=retcd-$version.$(uname -m).rpm ;;
        esac
        "$NFPM" package --config dist/packaging/nfpm.yaml --packager $packager --target "$out/$file"
        made+=("$file")
    done
fi
(cd "$out" && sha256sum "${made[@]}" >SHA256SUMS && ls -l "${made[@]}")
