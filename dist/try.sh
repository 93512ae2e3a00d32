#!/usr/bin/env bash
# Tries what release.sh has made: try.sh OUT [PART…]
#
#   sums        checksums, and the programs of the archive start
#   pages       man pages format without a warning (needs man), completions complete (needs bash)
#   components  the list of components is JSON and complete (needs python3)
#   image       digests are right, and the programs run with nothing but what is in the image (needs root, for chroot)
#   unit        systemd takes the units (needs systemd-analyze)
#   deb         installed in a fresh Debian: serves, keeps its data over an upgrade, a removal and a purge (needs root, debootstrap and a
#               mirror of Debian)
#   rpm         what the package holds (needs rpm)
#
# Without parts: all. A part whose needs are not there fails and names them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(cd "$1" && pwd)
shift
parts=("$@")
((${#parts[@]})) || parts=(sums pages components image unit deb rpm)
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

needs() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "try.sh: $tool is missing" >&2 && exit 1; }
    done
}
needs_root() { [[ $(id -u) == 0 ]] || { echo "try.sh: this part needs root" >&2 && exit 1; }; }
one() { local found=("$out"/$1) && [[ -f ${found[0]} ]] && echo "${found[0]}" || { echo "try.sh: no $1 in $out" >&2 && exit 1; }; }
fail() { echo "try.sh: $*" >&2 && exit 1; }

archive=$(find "$out" -name 'etcd-v*-linux-*.tar.gz' ! -name '*-debug.tar.gz')
[[ -f $archive ]] || fail "$out has no archive, or several: release.sh wants a directory for each version"
mkdir "$work/archive"
tar -xzf "$archive" -C "$work/archive" --strip-components 1

part_sums() {
    (cd "$out" && sha256sum -c --quiet SHA256SUMS)
    for program in "etcd --version" "etcdctl version" "etcdutl version"; do
        # shellcheck disable=SC2086
        "$work/archive/"$program
    done
}

part_pages() {
    needs man
    local page found
    for page in "$work"/archive/man/*.1; do
        found=$(LC_ALL=C.UTF-8 MANROFFSEQ= man --warnings -l "$page" 2>&1 >/dev/null) || fail "$page: $found"
        [[ -z $found ]] || fail "$page: $found"
    done
    found=$(bash -c 'source "$0"; COMP_WORDS=(etcd --listen-cl); COMP_CWORD=1; _etcd; echo "${COMPREPLY[*]}"' "$work/archive/completions/bash/etcd")
    [[ $found == *--listen-client-urls* ]] || fail "completion of etcd: $found"
}

part_components() {
    needs python3
    python3 - "$(one 'etcd-v*.cdx.json')" <<'END'
import json, sys
components = json.load(open(sys.argv[1]))["components"]
names = {component["name"] for component in components}
missing = {"raft", "rustls", "hyper", "tokio", "prost"} - names
without = [component["name"] for component in components if not component.get("hashes") or not component.get("licenses")]
sys.exit(f"missing {missing}, without checksum or licence {without}" if missing or without else 0)
END
}

part_image() {
    needs_root
    local image=$work/image digest layer
    mkdir -p "$image" "$work/root"
    tar -xf "$(one 'retcd-v*.oci.tar')" -C "$image"
    for digest in "$image"/blobs/sha256/*; do
        [[ $(sha256sum <"$digest" | cut -d' ' -f1) == "$(basename "$digest")" ]] || fail "$digest has another digest"
    done
    digest=$(grep -o 'sha256:[0-9a-f]*' "$image/index.json" | head -n 1)
    layer=$(grep -o '"layers":.*' "$image/blobs/sha256/${digest#sha256:}" | grep -o 'sha256:[0-9a-f]*')
    tar -xzf "$image/blobs/sha256/${layer#sha256:}" -C "$work/root"
    chroot "$work/root" /usr/local/bin/etcd --version
    chroot "$work/root" /usr/local/bin/etcdctl version
    chroot "$work/root" /usr/local/bin/etcdutl version
}

part_unit() {
    needs systemd-analyze
    # The program has to be where the unit says, so that it is looked at where the packages put it.
    mkdir -p "$work/unit"
    sed "s|/usr/local/bin/etcd|$work/archive/etcd|" dist/etcd.service >"$work/unit/etcd.service"
    local found
    found=$(systemd-analyze verify --man=no "$work/unit/etcd.service" 2>&1) || fail "$found"
    # A user that is not there yet is made by the package.
    found=$(grep -v 'Unknown user\|User.*etcd' <<<"$found" | grep 'etcd.service' || true)
    [[ -z $found ]] || fail "$found"
}

# A Debian of its own, without systemd, so that the member is started by hand.
part_deb() {
    needs debootstrap
    needs_root
    local chroot=$work/debian
    debootstrap --variant=minbase --include=adduser bookworm "$chroot" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/debootstrap.log" 2>&1 ||
        fail "debootstrap: $(tail -n 3 "$work/debootstrap.log")"
    cp "$(one 'retcd_*.deb')" "$chroot/root/retcd.deb"
    cat >"$chroot/root/try" <<'END'
set -eux
dpkg -i /root/retcd.deb || apt-get -y -f install
dpkg -s retcd | grep '^Status: install ok installed'
test "$(stat -c %U:%a /var/lib/etcd)" = etcd:700
serve() {
    ETCD_DATA_DIR=/var/lib/etcd/default setpriv --reuid=etcd --regid=etcd --clear-groups etcd \
        --listen-client-urls http://127.0.0.1:42379 --advertise-client-urls http://127.0.0.1:42379 \
        --listen-peer-urls http://127.0.0.1:42380 --initial-advertise-peer-urls http://127.0.0.1:42380 \
        --initial-cluster default=http://127.0.0.1:42380 >/root/log 2>&1 &
    pid=$!
    trap 'kill -9 $pid' EXIT
    until etcdctl --endpoints 127.0.0.1:42379 endpoint health 2>/dev/null; do kill -0 $pid; sleep 0.2; done
}
halt() {
    kill $pid
    wait $pid || true
    trap - EXIT
}
serve
etcdctl --endpoints 127.0.0.1:42379 put a 1
halt
echo '# of the operator' >>/etc/default/etcd
dpkg -i /root/retcd.deb
grep '# of the operator' /etc/default/etcd
serve
etcdctl --endpoints 127.0.0.1:42379 get a | grep 1
halt
dpkg -r retcd
test ! -e /usr/bin/etcd -a -e /etc/default/etcd -a -d /var/lib/etcd/default/member
dpkg -P retcd
test ! -e /etc/default/etcd -a -d /var/lib/etcd/default/member
END
    chroot "$chroot" /bin/bash /root/try >"$work/deb.log" 2>&1 || fail "in the chroot: $(tail -n 20 "$work/deb.log")"
}

part_rpm() {
    needs rpm
    local files
    files=$(rpm -qpl "$(one 'retcd-*.rpm')")
    for file in /usr/bin/etcd /usr/bin/etcdctl /usr/bin/etcdutl /usr/lib/systemd/system/etcd.service /etc/default/etcd; do
        grep -qx "$file" <<<"$files" || fail "$file is not in the package"
    done
    rpm -qpc "$(one 'retcd-*.rpm')" | grep -qx /etc/default/etcd || fail "/etc/default/etcd is no file of settings"
}

for part in "${parts[@]}"; do
    echo "-- $part"
    "part_$part"
done
echo "try.sh: all passed: ${parts[*]}"
