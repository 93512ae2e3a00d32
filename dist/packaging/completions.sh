#!/usr/bin/env bash
# completions.sh BIN_DIR OUT: completions for shells. The tools print theirs; those of `etcd` are made of the flags in its help,
# which come from the one table of flags.
set -euo pipefail
bin=$1 out=$2
mkdir -p "$out"/{bash,zsh,fish}
for tool in etcdctl etcdutl; do
    "$bin/$tool" completion bash >"$out/bash/$tool"
    "$bin/$tool" completion zsh >"$out/zsh/_$tool"
    "$bin/$tool" completion fish >"$out/fish/$tool.fish"
done

help=$("$bin/etcd" --help 2>&1)
flags=$(sed -n "s/^  \(--[a-z0-9-]*\).*/\1/p" <<<"$help" | sort -u)
[[ $(wc -l <<<"$flags") -gt 50 ]] || { echo "completions.sh: etcd's help has changed" >&2 && exit 1; }
# With the line below each flag, as zsh and fish show it.
described=$(awk '/^  --[a-z]/ { flag = $1; next } flag && /^    / { sub(/^ +/, ""); print flag "\t" $0; flag = "" }' <<<"$help")

cat >"$out/bash/etcd" <<END
# bash completion for etcd
_etcd() {
    local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
    case \$previous in
        --data-dir | --wal-dir) mapfile -t COMPREPLY < <(compgen -d -- "\$current") && return ;;
        --*-file | --*-logfile) mapfile -t COMPREPLY < <(compgen -f -- "\$current") && return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$(tr '\n' ' ' <<<"$flags")" -- "\$current")
}
complete -F _etcd etcd
END
{
    printf '#compdef etcd\n_arguments \\\n'
    awk -F'\t' '{ gsub(/[\[\]:\047"`\\$]/, " ", $2); printf "  \047%s=[%s]:value:_files\047 \\\n", $1, $2 }' <<<"$described"
    printf '  && return 0\n'
} >"$out/zsh/_etcd"
awk -F'\t' '{ sub(/^--/, "", $1); gsub(/[\047\\]/, " ", $2); printf "complete -c etcd -l %s -r -d \047%s\047\n", $1, $2 }' \
    <<<"$described" >"$out/fish/etcd.fish"
