# docs/operations.md, on one member and on three.
# shellcheck shell=bash disable=SC2034,SC2154

put() { "$RETCD_BIN_DIR/etcdctl" put "$1" "$2" >/dev/null; }
is_there() { "$RETCD_BIN_DIR/etcdctl" get "$1" --print-value-only | grep -qx "$2" || die "scenario $scenario: $1 is not $2"; }
on() {
    machine "$1"
    ETCDCTL_ENDPOINTS=$(client_url "$1")
    export ETCDCTL_ENDPOINTS
    rm -f "$place/variables"
    run operations variables
}

scenario_operations_one() {
    cluster ours m1
    on m1
    put a 1
    run operations status
    says 'is healthy'
    run operations backup
    run operations backup-tried
    says '^A start +(serves|replays)'
    put a 2
    given NAME=m1 PEER="$(peer_url m1)" CLUSTER="m1=$(peer_url m1)"
    run operations restore-stop
    run operations restore
    run operations restore-start
    run operations restored
    is_there a 1
    run operations upgrade
    run operations downgrade
    run operations restart
    run operations slow-disk
    says '^etcd_disk_wal_fsync_duration_seconds_count [1-9]'
    is_there a 1
}

# A quota of a few MiB that is used up.
scenario_operations_nospace() {
    machine m1
    echo 'ETCD_QUOTA_BACKEND_BYTES=4194304' >>"$MACHINE/etcd.env"
    cluster ours m1
    on m1
    local n
    head -c 500000 /dev/zero | tr '\0' x >"$place/big"
    for ((n = 0; n < 40; n++)); do
        "$RETCD_BIN_DIR/etcdctl" put big <"$place/big" >/dev/null 2>"$place/refusal" || break
    done
    grep -q 'database space exceeded' "$place/refusal" || die "the quota was not met: $(cat "$place/refusal")"
    run operations nospace
    says 'alarm:NOSPACE'
    put a 1
    is_there a 1
}

# One of three is lost for good, and replaced by a fourth.
scenario_operations_replace() {
    local lost
    cluster ours m1 m2 m3
    on m3
    lost=$("$RETCD_BIN_DIR/etcdctl" member list | grep ' m3,' | cut -d, -f1)
    "$here/tools/systemctl" stop etcd
    on m1
    put a 1
    given LOST="$lost"
    # Members count as connected after five seconds; before, changes are refused.
    sleep 6
    run operations member-remove
    machine m4
    programs ours
    given NAME=m4 PEER="$(peer_url m4)"
    run operations member-add
    sed -n 's/^\(ETCD_INITIAL_CLUSTER[A-Z_]*\)="\(.*\)"$/\1=\2/p' "$place/output" >>"$MACHINE/etcd.env"
    grep -q '^ETCD_INITIAL_CLUSTER_STATE=existing$' "$MACHINE/etcd.env" || die "member add printed no flags"
    run operations member-start
    run operations member-promote
    ETCDCTL_ENDPOINTS=$(client_url m4)
    is_there a 1
}

# Two of three are lost for good.
scenario_operations_lost_quorum() {
    cluster ours m1 m2 m3
    on m1
    put a 1
    local name
    for name in m2 m3; do
        machine "$name"
        "$here/tools/systemctl" stop etcd
        rm -rf "$DATA"
    done
    on m1
    given NAME=m1 PEER="$(peer_url m1)"
    run operations lost-quorum-check
    run operations lost-quorum-force
    run operations lost-quorum-after
    [[ $("$RETCD_BIN_DIR/etcdctl" member list | wc -l) == 1 ]] || die "not alone"
    is_there a 1
    put b 2
}

scenario_operations_certificates() {
    secured
    given FRESH="$place/fresh"
    mkdir "$FRESH"
    cp "$PKI/ca.crt" "$PKI/ca.key" "$FRESH/"
    certificate "$FRESH" server
    run operations certificates
    run operations certificates-dates
}

# A member with TLS that asks for certificates; PKI is made by the page on security.
secured() {
    machine m1
    given PKI="$place/pki" ETCDCTL_ENDPOINTS="https://127.0.0.1:$(cat "$MACHINE/client-port")"
    run security make-certificates
    sed -i 's|=http://|=https://|' "$MACHINE/etcd.env"
    cat >>"$MACHINE/etcd.env" <<END
ETCD_INITIAL_CLUSTER=m1=https://127.0.0.1:$(cat "$MACHINE/peer-port")
ETCD_CERT_FILE=$PKI/server.crt
ETCD_KEY_FILE=$PKI/server.key
ETCD_TRUSTED_CA_FILE=$PKI/ca.crt
ETCD_CLIENT_CERT_AUTH=true
ETCD_PEER_CERT_FILE=$PKI/peer.crt
ETCD_PEER_KEY_FILE=$PKI/peer.key
ETCD_PEER_TRUSTED_CA_FILE=$PKI/ca.crt
ETCD_PEER_CLIENT_CERT_AUTH=true
END
    programs ours
    "$here/tools/systemctl" start etcd
    given ETCDCTL_CACERT="$PKI/ca.crt" ETCDCTL_CERT="$PKI/root.crt" ETCDCTL_KEY="$PKI/root.key"
}
