#!/usr/bin/env bash
# The operator's pages as they are read: each block of shell on them is run, in an order that a scenario gives, on members of
# this program and of Go's etcd. A block that no scenario runs is a failure.
#
#   run.sh [SCENARIO…]    all scenarios, or those whose name begins with one of the words; with words, blocks may be left out
#
#   RETCD_BIN_DIR         directory with etcd, etcdctl and etcdutl (default: target/debug)
#   REAL_ETCD35_BIN …     etcd 3.5, 3.6 and 3.7 in Go (REAL_ETCD36_BIN, REAL_ETCD_BIN); built from conformance/ where they are not given
#   ETCD33_DIR            directory with etcd and etcdctl 3.3, if there is one: without, the way to it is tried with 3.4
#   PAGES_KEEP=1          leaves the working directory
#
# On a page a block is fenced as "```sh NAME"; fences without a name, or with another language, are not run. All blocks of a page
# share their variables, as they do in a shell that somebody types them into. What a page says with `systemctl`, `journalctl`
# and `crictl` is done by stand-ins (tools/), which run the programs of the machine that the scenario is on, on loopback addresses.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
RETCD_BIN_DIR=$(cd "${RETCD_BIN_DIR:-$root/target/debug}" && pwd)
work=$(mktemp -d)
export PAGES_WORK=$work

# end_machines PLACE…: kills what runs on the machines of these scenarios. One that has ended already is no failure.
end_machines() {
    local place pid
    for place in "$@"; do
        for pid in "$place"/machines/*/*pid; do
            [[ -f $pid ]] && kill -9 "$(cat "$pid")" 2>/dev/null || true
        done
    done
}

# Who was killed just now may be writing still; that is no failure of a scenario.
remove() { rm -rf "$1" 2>/dev/null || rm -rf "$1" || true; }

cleanup() {
    end_machines "$work"/*
    if [[ -n ${PAGES_KEEP:-} ]]; then
        echo "left: $work"
    else
        remove "$work"
    fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

die() {
    echo "pages: $*" >&2
    exit 1
}

# What etcd 3.4 to 3.7 are made of.
prepare_references() {
    [[ -x /usr/bin/etcd && -x /usr/bin/etcdctl ]] || die "install the packages etcd-server and etcd-client"
    local version
    for version in 35:go35:. 36:go36:. '':go:./cmd/realetcd; do
        local name=${version%%:*} rest=${version#*:}
        local variable=REAL_ETCD${name}_BIN
        if [[ -z ${!variable:-} ]]; then
            export "$variable=$work/realetcd$name"
            (cd "$root/conformance/${rest%%:*}" && go build -buildvcs=false -o "${!variable}" "${rest#*:}") ||
                die "etcd of conformance/${rest%%:*} does not build"
        fi
    done
}

# blocks PAGE: the page's blocks as files $work/blocks/PAGE/NAME.
blocks() {
    mkdir -p "$work/blocks/$1"
    awk -v to="$work/blocks/$1" '
        /^ *```sh [a-z0-9-]+$/ { name = $2; file = to "/" name; indent = index($0, "`") - 1
            if (seen[name]++) { print "block " name " is there twice" > "/dev/stderr"; exit 1 }
            printf "" > file; next }
        /^ *```/ { file = ""; next }
        file { print substr($0, indent + 1) > file }
    ' "$root/docs/$1.md"
}

# run PAGE NAME: runs a block where the scenario is now, and keeps its variables. The shell that it runs in is one that somebody
# types into: a command that fails ends it here, though.
run() {
    local page=$1 name=$2 block=$work/blocks/$1/$2
    [[ -f $block ]] || die "$page has no block $name"
    touch "$work/ran/$page.$name"
    echo "-- $page: $name${machine:+ on $machine}"
    local before=$place/variables
    {
        cat "$before" 2>/dev/null || true
        echo "cd $place"
        cat "$block"
        echo "declare -px >$before.next"
    } >"$place/block.sh"
    local code=0
    PATH="${BIN:-/none}:$here/tools:$PATH" timeout 180 bash -euo pipefail "$place/block.sh" >"$place/output" 2>&1 || code=$?
    if ((code)); then
        sed 's/^/   | /' "$place/output" >&2
        # A full disk takes the message that says so, too.
        [[ -s $place/output ]] || echo "   | no output; free on the disk: $(df -h --output=avail "$work" | tail -n 1)" >&2
        die "scenario $scenario: $page: $name ended with $code"
    fi
    sed 's/^/   | /' "$place/output"
    grep -av '^declare -x \(PATH\|PWD\|OLDPWD\|SHLVL\|MACHINE\|BIN\|DATA\|PAGES_[A-Z]*\)=\|^declare -x [A-Z_]*$' "$before.next" >"$before" || true
}

# given NAME=VALUE…: what the reader of a page fills in; counts before what blocks have left.
given() {
    local pair
    for pair in "$@"; do
        printf 'declare -x %s=%q\n' "${pair%%=*}" "${pair#*=}" >>"$place/variables"
        export "${pair?}"
    done
}

# Fails unless the last block's output has a line that matches.
says() {
    grep -aEq -- "$1" "$place/output" || die "scenario $scenario: no line like: $1"
}

# refused PAGE NAME PATTERN: a block that must fail, and say why.
refused() {
    if (trap - EXIT && run "$1" "$2") >/dev/null 2>&1; then
        die "scenario $scenario: $1: $2 did not fail"
    fi
    touch "$work/ran/$1.$2"
    says "$3"
    echo "   | $(grep -aE -m1 -- "$3" "$place/output")"
}

# A port that is free now, and was not given out before.
free_port() {
    local port
    while :; do
        port=$((12000 + RANDOM % 18000))
        [[ -e $work/ports/$port ]] && continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue
        touch "$work/ports/$port"
        echo "$port"
        return
    done
}

# machine NAME: a machine of the scenario, made where there is none: $BIN, $DATA, and a unit file's environment.
machine() {
    machine=$1
    MACHINE=$place/machines/$machine
    BIN=$MACHINE/bin
    DATA=$MACHINE/data
    export MACHINE BIN DATA
    [[ -d $MACHINE ]] && return
    mkdir -p "$BIN"
    local client peer
    client=$(free_port)
    peer=$(free_port)
    echo "$client" >"$MACHINE/client-port"
    echo "$peer" >"$MACHINE/peer-port"
    cat >"$MACHINE/etcd.env" <<END
ETCD_NAME=$machine
ETCD_DATA_DIR=$DATA
ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:$client
ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:$client
ETCD_LISTEN_PEER_URLS=http://127.0.0.1:$peer
ETCD_INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:$peer
END
}

client_url() { echo "http://127.0.0.1:$(cat "$place/machines/$1/client-port")"; }
peer_url() { echo "http://127.0.0.1:$(cat "$place/machines/$1/peer-port")"; }

# programs VERSION: the machine's programs are of that version: 3.3 to 3.7 in Go, or ours.
programs() {
    rm -f "$BIN"/*
    case $1 in
        3.3) install -m 0755 "${ETCD33_DIR:-/usr/bin}/etcd" "${ETCD33_DIR:-/usr/bin}/etcdctl" "$BIN/" ;;
        3.4) install -m 0755 /usr/bin/etcd /usr/bin/etcdctl "$BIN/" ;;
        # The tools of 3.4 do for 3.5.
        3.5) install -m 0755 "$REAL_ETCD35_BIN" "$BIN/etcd" && install -m 0755 /usr/bin/etcdctl "$BIN/" ;;
        3.6) install -m 0755 "$REAL_ETCD36_BIN" "$BIN/etcd" ;;
        3.7) install -m 0755 "$REAL_ETCD_BIN" "$BIN/etcd" ;;
        ours) install -m 0755 "$RETCD_BIN_DIR"/{etcd,etcdctl,etcdutl} "$BIN/" ;;
    esac
}

# cluster VERSION NAME…: these machines run one cluster of that version.
cluster() {
    local version=$1 name initial=
    shift
    for name in "$@"; do
        machine "$name"
        programs "$version"
        initial+=${initial:+,}$name=$(peer_url "$name")
    done
    for name in "$@"; do
        machine "$name"
        printf 'ETCD_INITIAL_CLUSTER=%s\nETCD_INITIAL_CLUSTER_TOKEN=pages\n' "$initial" >>"$MACHINE/etcd.env"
        "$here/tools/systemctl" start --no-block etcd
    done
    for name in "$@"; do
        machine "$name"
        "$here/tools/systemctl" is-serving etcd || die "scenario $scenario: $name does not serve: $(tail -3 "$MACHINE/log")"
    done
}

# authority DIR: an authority of certificates, as DIR/ca.crt and DIR/ca.key.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=etcd-ca" \
        -keyout "$1/ca.key" -out "$1/ca.crt" 2>/dev/null
}

# certificate DIR NAME: one for both ends of connections on this machine.
certificate() {
    printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n' >"$1/ext"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$2" -keyout "$1/$2.key" -out "$1/$2.csr" 2>/dev/null
    openssl x509 -req -in "$1/$2.csr" -CA "$1/ca.crt" -CAkey "$1/ca.key" -CAcreateserial -days 365 -extfile "$1/ext" \
        -out "$1/$2.crt" 2>/dev/null
}

# scenario NAME: a place of its own for what follows.
begin() {
    scenario=$1
    place=$work/$scenario
    machine=
    mkdir -p "$place/machines" "$place/saved"
    # Variables of the pages, which their defaults give way to.
    export NEW=$RETCD_BIN_DIR OLD=$place/old SAVED=$place/saved
    echo "== $scenario"
}

mkdir -p "$work/ports" "$work/ran" "$work/blocks"
pages=()
scenarios=()
for file in "$here"/scenarios/*.sh; do
    page=$(basename "$file" .sh)
    pages+=("$page")
    blocks "$page"
    # shellcheck source=/dev/null
    source "$file"
done
mapfile -t scenarios < <(declare -F | sed -n 's/^declare -f scenario_//p')

prepare_references
for name in "${scenarios[@]}"; do
    wanted=$(($# == 0))
    for word in "$@"; do
        [[ $name == "$word"* ]] && wanted=1
    done
    ((wanted)) || continue
    # Variables of one scenario are not those of the next.
    (
        begin "${name//_/-}"
        "scenario_$name"
    )
    end_machines "$work/${name//_/-}"
    # Programs, logs and copies of a scenario take up to 2 GB: together more than the disk may have.
    [[ -n ${PAGES_KEEP:-} ]] || remove "$work/${name//_/-}"
done

if (($# == 0)); then
    for page in "${pages[@]}"; do
        for block in "$work/blocks/$page"/*; do
            [[ -e $work/ran/$page.$(basename "$block") ]] || die "docs/$page.md: no scenario runs the block $(basename "$block")"
        done
    done
fi
echo "pages: all blocks passed"
