# docs/troubleshooting.md: its commands, and that every line that it explains is one that the programs have.
# shellcheck shell=bash disable=SC2034,SC2154

scenario_troubleshooting() {
    cluster ours m1
    ETCDCTL_ENDPOINTS=$(client_url m1)
    export ETCDCTL_ENDPOINTS
    run operations variables
    run troubleshooting look
    "$here/tools/systemctl" stop etcd
    run troubleshooting look-stopped
}

# What other programs say, or what has a number in it.
foreign='^(error reading server preface: http2: frame too large|version "3\.8\.0" is not supported)$'

scenario_troubleshooting_lines() {
    local text piece sources=$place/sources
    find "$root"/crates/*/src -name '*.rs' -exec cat {} + | tr -s ' \n' ' ' | sed 's/\\ //g' >"$sources"
    awk '/^## It does not start/ { on = 1 } on && /^\| `/' "$root/docs/troubleshooting.md" | cut -d'|' -f2 | grep -o '`[^`]*`' | tr -d '`' |
        grep -Ev "$foreign" | while read -r text; do
        sed 's/…/\n/g; s/\b[NM]\b/\n/g' <<<"$text" | sed 's/^[ :;.()"]*//; s/[ :;.()"]*$//' | while read -r piece; do
            ((${#piece} < 6)) || grep -qF -- "$piece" "$sources" || die "docs/troubleshooting.md explains a line that no program has: $piece"
        done || exit 1
    done
}
