#!/usr/bin/env bash
# man.sh BIN_DIR OUT: man pages, made of what the programs say of themselves, which comes from their tables of flags and commands:
# etcd(1), etcdctl(1), etcdutl(1), and one page per command, as git has them: etcdctl-snapshot-save(1).
set -euo pipefail
bin=$1 out=$2
mkdir -p "$out"
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)
version=$("$bin/etcd" --version | sed -n 's/^etcd Version: //p')

# Text as roff shows it: as it stands.
escaped() { sed -e 's/\\/\\e/g' -e "s/^\([.']\)/\\\\\&\1/" -e 's/-/\\-/g'; }

# page NAME SUMMARY: a page with the text on stdin as it is laid out.
page() {
    local upper=${1^^}
    {
        printf '.TH "%s" "1" "%s" "retcd %s" "etcd"\n.SH NAME\n%s \\- %s\n.SH DESCRIPTION\n.nf\n' \
            "${upper//-/\\-}" "$date" "$version" "${1//-/\\-}" "$(escaped <<<"$2")"
        escaped
        printf '.fi\n'
        [[ $# -lt 3 ]] || printf '.SH SEE ALSO\n%s\n' "$3"
    } >"$out/$1.1"
}

"$bin/etcd" --help 2>&1 | page etcd "a distributed, reliable key-value store" '.BR etcdctl (1),
.BR etcdutl (1)'

# walk WORD…: the page of a command, and those of the commands below it.
walk() {
    local name help child
    name=$(IFS=-; echo "$*")
    help=$("$bin/$1" "${@:2}" --help)
    page "$name" "$(sed -n '/./{p;q}' <<<"$help")" <<<"$help"
    while read -r child; do
        case $child in
            help | completion | options) ;;
            *) walk "$@" "$child" ;;
        esac
    done < <(children <<<"$help")
}

# The commands that a help lists: below headings that end in "ommands", with two spaces in front.
children() { awk '/ommands:?$/ { on = 1; next } /^[^ ]/ || /^$/ { if (on && /^[^ ]/) on = 0 } on && /^  [a-z]/ { print $1 }'; }

walk etcdctl
walk etcdutl
[[ -f $out/etcdctl-snapshot-save.1 && -f $out/etcdutl-snapshot-restore.1 ]] || { echo "man.sh: the helps have changed" >&2 && exit 1; }
