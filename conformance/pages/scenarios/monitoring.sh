# docs/monitoring.md and docs/tuning.md: what they read is there.
# shellcheck shell=bash disable=SC2034,SC2154

scenario_monitoring() {
    cluster ours m1
    ETCDCTL_ENDPOINTS=$(client_url m1)
    export ETCDCTL_ENDPOINTS
    "$RETCD_BIN_DIR/etcdctl" put a 1 >/dev/null
    run monitoring scrape
    run monitoring names
    run monitoring by-hand
    run tuning latency
    says '^etcd_disk_wal_fsync_duration_seconds_count [1-9]'
    run tuning space
}
