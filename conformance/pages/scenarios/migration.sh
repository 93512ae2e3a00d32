# docs/migration.md: to this program and back, from each version.
# shellcheck shell=bash disable=SC2034,SC2154

# Some data: overwritten and deleted keys, a lease.
fill() {
    local n lease
    for n in {1..30}; do
        "$NEW/etcdctl" put "app/$((n % 20))" "value $n" >/dev/null
    done
    "$NEW/etcdctl" del app/3 >/dev/null
    lease=$("$NEW/etcdctl" lease grant 3600 | cut -d' ' -f2)
    "$NEW/etcdctl" put --lease="$lease" app/leased here >/dev/null
}

# Keys and values as they are now.
content() { "$NEW/etcdctl" get --prefix app/; }

# lone VERSION: one machine with data.
lone() {
    cluster "$1" m1
    ETCDCTL_ENDPOINTS=$(client_url m1)
    export ETCDCTL_ENDPOINTS
    fill
    content >"$place/content"
}

to_ours() {
    run migration variables
    run migration before
    run migration backup
    run migration stop
    says '^A start +(serves|replays)'
    run migration swap
    run migration after
    says '^the same data$'
}

# What was written with ours has to be there, too.
written_since() {
    "$NEW/etcdctl" put app/since ours >/dev/null
    content >"$place/content"
}

same_content() {
    content | diff "$place/content" - || die "scenario $scenario: the keys are others"
}

is_version() {
    curl -s "$ETCDCTL_ENDPOINTS/version" | grep -q "\"etcdserver\":\"$1" || die "scenario $scenario: $(curl -s "$ETCDCTL_ENDPOINTS/version")"
}

# Back with a backup, which the old etcdctl restores.
back_from_backup() {
    run migration back-backup
    given NAME=m1 PEER="$(peer_url m1)" CLUSTER="m1=$(peer_url m1)"
    run migration back-restore
    same_content
}

scenario_migration_lone_37() {
    lone 3.7
    to_ours
    written_since
    run migration back-same
    is_version 3.7
    same_content
}

scenario_migration_lone_36() {
    lone 3.6
    to_ours
    written_since
    run migration downgrade-36
    run migration back-same
    is_version 3.6
    same_content
    run migration downgrade-35
    systemctl_ stop etcd
    programs 3.5
    systemctl_ start etcd
    is_version 3.5
    same_content
}

systemctl_() { "$here/tools/systemctl" "$@"; }

scenario_migration_lone_35() {
    lone 3.5
    to_ours
    written_since
    # Without a downgrade it is refused, and unharmed.
    refused migration back-same 'invalid downgrade'
    programs ours
    systemctl_ start etcd
    same_content
    back_from_backup
    is_version 3.5
}

scenario_migration_lone_34() {
    lone 3.4
    to_ours
    written_since
    back_from_backup
    is_version 3.4
}

# A directory of 3.3.25 with data of both APIs.
scenario_migration_lone_33() {
    machine m1
    programs 3.3
    mkdir "$DATA"
    tar -xzf "$root/crates/server/tests/data/dirs-v2/3.3.25-v2-and-v3.tar.gz" -C "$DATA"
    ETCDCTL_ENDPOINTS=$(client_url m1)
    export ETCDCTL_ENDPOINTS
    run migration variables
    run migration from-33
    says '^API v2 +[1-9][0-9]* keys'
    cp -a "$BIN"/etcd* "$OLD/"
    programs ours
    systemctl_ start etcd
    "$NEW/etcdctl" get --prefix '' >"$place/content"
    [[ $(wc -l <"$place/content") == 64 ]] || die "scenario $scenario: $(wc -l <"$place/content") lines"
    ETCDCTL_API=2 "$NEW/etcdctl" get /dir/a | grep -qx 1
    content() { "$NEW/etcdctl" get --prefix ''; }
    back_from_backup
    same_content
}

# Three members of VERSION, one by one; each goes back once, and comes again.
three() {
    local name
    cluster "$1" m1 m2 m3
    ETCDCTL_ENDPOINTS=$(client_url m1)
    export ETCDCTL_ENDPOINTS
    fill
    content >"$place/content"
    for name in m1 m2 m3; do
        machine "$name"
        ETCDCTL_ENDPOINTS=$(client_url "$name")
        OLD=$place/old-$name SAVED=$place/saved-$name
        rm -f "$place/variables"
        to_ours
        run migration in-step
        run migration in-step-hash
        [[ $(wc -l <"$place/output") == 1 ]] || die "scenario $scenario: hashes differ: $(cat "$place/output")"
        if [[ $name == m1 ]]; then
            run migration member-back
            is_version "$1"
            same_content
            to_ours
        fi
    done
    same_content
}

scenario_migration_three_35() { three 3.5; }
scenario_migration_three_37() { three 3.7; }
scenario_migration_three_34() { three 3.4; }

# A control-plane node: a static pod as kubeadm writes it, its certificates, and who runs it.
scenario_migration_kubeadm() {
    machine node
    local client peer pki
    client=$(cat "$MACHINE/client-port") peer=$(cat "$MACHINE/peer-port")
    export MANIFESTS=$place/manifests PKI=$place/pki KUBE_DATA=$place/etcd IMAGE=retcd:3.7.1
    pki=$PKI
    mkdir -p "$MANIFESTS" "$pki" "$place/old-image" "$place/our-image"
    authority "$pki"
    certificate "$pki" server
    certificate "$pki" peer
    certificate "$pki" healthcheck-client
    install -m 0755 "$REAL_ETCD35_BIN" "$place/old-image/etcd"
    install -m 0755 "$RETCD_BIN_DIR/etcd" "$place/our-image/etcd"
    printf '%s %s\n' registry.example/etcd:3.5.24-0 "$place/old-image" "$IMAGE" "$place/our-image" >"$place/images"
    sed -e "s|@PKI@|$pki|g; s|@DATA@|$KUBE_DATA|g; s|@CLIENT@|$client|g; s|@PEER@|$peer|g" \
        "$here/kubeadm-etcd.yaml" >"$place/etcd.yaml"
    "$here/tools/kubelet" "$MANIFESTS" "$place/images" "$MACHINE" &
    echo $! >"$place/machines/node/kubelet.pid"
    mv "$place/etcd.yaml" "$MANIFESTS/"
    ETCDCTL_ENDPOINTS=https://127.0.0.1:$client
    export ETCDCTL_ENDPOINTS
    run migration variables
    export ETCDCTL_CACERT=$pki/ca.crt ETCDCTL_CERT=$pki/healthcheck-client.crt ETCDCTL_KEY=$pki/healthcheck-client.key
    until "$NEW/etcdctl" endpoint health >/dev/null 2>&1; do sleep 0.2; done
    fill
    content >"$place/content"
    run migration kubeadm-variables
    run migration kubeadm-backup
    run migration kubeadm-stop
    run migration kubeadm-swap
    says '3\.7\.1'
    same_content
    # It has raised the cluster's version, so that 3.5 refuses; another node's member would not have.
    "$NEW/etcdctl" downgrade enable 3.6 >/dev/null
    until "$NEW/etcdctl" endpoint status -w fields | grep -q '^"StorageVersion" : "3.6.0"'; do sleep 0.2; done
    install -m 0755 "$REAL_ETCD36_BIN" "$place/old-image/etcd"
    run migration kubeadm-back
    same_content
    kill "$(cat "$place/machines/node/kubelet.pid")"
}
