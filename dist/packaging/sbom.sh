#!/usr/bin/env bash
# sbom.sh VERSION: the crates that the three programs are made of, as CycloneDX 1.5 on stdout. Names and licences are cargo's
# (`cargo tree`), checksums those of Cargo.lock.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cargo tree --locked --offline -e normal -p retcd-server -p retcd-ctl --prefix none --no-dedupe --format '{p}|{l}' |
    sed 's/ (\/[^)]*)//; s/ (proc-macro)//' | sort -u |
    awk -F'|' -v version="$1" -v time="$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" '
        function quoted(text) { gsub(/["\\]/, "\\\\&", text); return "\"" text "\"" }
        FILENAME == "Cargo.lock" {
            if ($0 ~ /^name = /) { split($0, part, "\""); name = part[2] }
            if ($0 ~ /^version = /) { split($0, part, "\""); of = part[2] }
            if ($0 ~ /^checksum = /) { split($0, part, "\""); sum[name " v" of] = part[2] }
            next
        }
        FNR == 1 {
            printf "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.5\",\"version\":1,\"metadata\":{\"timestamp\":%s,", quoted(time)
            printf "\"component\":{\"type\":\"application\",\"name\":\"retcd\",\"version\":%s,", quoted(version)
            printf "\"licenses\":[{\"expression\":\"Apache-2.0\"}]}},\"components\":["
        }
        $1 !~ /^retcd-/ && NF {
            split($1, part, " v")
            licence = $2
            gsub(/\//, " OR ", licence)
            printf "%s\n{\"type\":\"library\",\"bom-ref\":%s,\"name\":%s,\"version\":%s,\"purl\":%s", comma, \
                quoted("pkg:cargo/" part[1] "@" part[2]), quoted(part[1]), quoted(part[2]), quoted("pkg:cargo/" part[1] "@" part[2])
            if ($1 in sum) printf ",\"hashes\":[{\"alg\":\"SHA-256\",\"content\":%s}]", quoted(sum[$1])
            if (licence != "") printf ",\"licenses\":[{\"expression\":%s}]", quoted(licence)
            printf "}"
            comma = ","
            count++
        }
        END { if (!count) exit 1; print "\n]}" }
    ' Cargo.lock -
