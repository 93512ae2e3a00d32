#!/bin/sh
# Conformance: the built binaries against the official Go client, the reference
# server and the reference tools. Everything listens on loopback only; the Go
# module proxy is the only thing that may be downloaded from.
#
#   RETCD_BIN_DIR   directory with etcd, etcdctl and etcdutl (default: target/debug)
#   DEBIAN_ETCDCTL  etcdctl of an older line (default: /usr/bin/etcdctl, package etcd-client)
set -u

here=$(cd "$(dirname "$0")" && pwd)
RETCD_BIN_DIR=$(cd "${RETCD_BIN_DIR:-$here/../target/debug}" && pwd) || exit 1
DEBIAN_ETCDCTL=${DEBIAN_ETCDCTL:-/usr/bin/etcdctl}
GOFLAGS=${GOFLAGS:--buildvcs=false}
export RETCD_BIN_DIR GOFLAGS

work=$(mktemp -d)
servers=
failed=
passed=

cleanup() {
	for pid in $servers; do
		kill -9 "$pid" 2>/dev/null
	done
	wait
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

die() {
	echo "conformance: $*" >&2
	exit 1
}

# step NAME COMMAND...: runs a command and remembers how it ended.
step() {
	step=$1
	shift
	echo "== $step"
	if "$@"; then
		passed="$passed
  ok    $step"
	else
		failed="$failed
  FAIL  $step"
	fi
}

check_tools() {
	command -v go >/dev/null || die "go is missing"
	command -v protoc >/dev/null || die "protoc is missing: install the packages protobuf-compiler and libprotobuf-dev"
	for binary in etcd etcdctl etcdutl; do
		[ -x "$RETCD_BIN_DIR/$binary" ] || die "$RETCD_BIN_DIR/$binary is missing: build the workspace first"
	done
	[ -x "$DEBIAN_ETCDCTL" ] || die "$DEBIAN_ETCDCTL is missing: install the package etcd-client"
	[ -x /usr/bin/etcd ] || die "/usr/bin/etcd is missing: install the package etcd-server"
}

# The reference server and tool are built once, from the modules in go.mod; the
# servers of older lines from modules of their own.
build_reference() {
	REAL_ETCD_BIN=$work/realetcd
	REAL_ETCD35_BIN=$work/etcd35
	REAL_ETCD36_BIN=$work/etcd36
	REAL_ETCDCTL=$work/realetcdctl
	export REAL_ETCD_BIN REAL_ETCD35_BIN REAL_ETCD36_BIN
	(cd "$here/go" && go build -o "$REAL_ETCD_BIN" ./cmd/realetcd &&
		go build -o "$REAL_ETCDCTL" go.etcd.io/etcd/etcdctl/v3) || die "the reference does not build"
	(cd "$here/go35" && go build -o "$REAL_ETCD35_BIN" .) || die "etcd 3.5 does not build"
	(cd "$here/go36" && go build -o "$REAL_ETCD36_BIN" .) || die "etcd 3.6 does not build"
}

go_vet() { (cd "$here/go" && go vet ./...); }
# Clusters spend most of their time waiting for elections and for members to
# count as connected, so more of them run at a time than there are processors.
go_test() { (cd "$here/go" && go test -count=1 -parallel 6 -timeout 30m ./...); }

# What concerns values, again of members that keep none in memory. The reference
# would complain of a variable that it does not know.
go_test_without_values() {
	bin=$work/without-values
	mkdir "$bin" && ln -s "$RETCD_BIN_DIR/etcdctl" "$RETCD_BIN_DIR/etcdutl" "$bin" || return 1
	printf '#!/bin/sh\nETCD_VALUE_CACHE_BYTES=0 exec "%s/etcd" "$@"\n' "$RETCD_BIN_DIR" >"$bin/etcd"
	chmod +x "$bin/etcd"
	tests='GetOptions|PutAndDeleteOptions|Txn|NestedTxnOfAnyDepth|RangeStream|Watch[A-Za-z]*|ManyWatchersOnOneStream|Concurrency'
	tests="$tests|SameAnswersAsReference|SameAnswersToEveryUser|SameHeadersAsReference|HostileRequests"
	tests="$tests|HashAndSnapshot|SnapshotRestore|Takeover|DefragmentDuringWrites|KillLosesNoAcknowledgedWrite"
	(cd "$here/go" && RETCD_BIN_DIR=$bin go test -count=1 -parallel 6 -timeout 15m -run "^Test($tests)\$" .)
}

rust_test() { (cd "$here/rust" && cargo test --locked); }

# The commands on the operator's pages, as somebody would type them.
pages() { bash "$here/pages/run.sh" >"$work/pages.log" 2>&1 || { tail -40 "$work/pages.log" && return 1; }; }

# start_server NAME BINARY FLAGS...: starts a server on ports of its own and sets
# $endpoint, once it serves.
start_server() {
	name=$1
	binary=$2
	shift 2
	for try in 1 2 3 4 5; do
		port=$((10000 + ($(od -An -N2 -tu2 /dev/urandom) % 10000) * 2))
		endpoint=127.0.0.1:$port
		peer=http://127.0.0.1:$((port + 1))
		"$binary" --data-dir "$work/$name-$try" --listen-client-urls "http://$endpoint" \
			--advertise-client-urls "http://$endpoint" --listen-peer-urls "$peer" \
			--initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" "$@" \
			>"$work/$name.log" 2>&1 &
		server=$!
		servers="$servers $server"
		tries=0
		while kill -0 "$server" 2>/dev/null && [ $tries -lt 300 ]; do
			"$REAL_ETCDCTL" --endpoints "$endpoint" --dial-timeout 1s endpoint health >/dev/null 2>&1 && return 0
			tries=$((tries + 1))
			sleep 0.1
		done
		grep -q 'address already in use' "$work/$name.log" || break
	done
	tail -3 "$work/$name.log" >&2
	die "$name does not serve"
}

# ctl ARGS...: one command of the transcript, with its result. What comes from
# the client's own log is not part of the answer.
ctl() {
	echo "\$ etcdctl $*"
	# The older etcdctl speaks version 2 unless it is told.
	ETCDCTL_API=3 timeout 30 "$tool" --endpoints "$endpoint" "$@" >"$work/out" 2>"$work/err"
	code=$?
	cat "$work/out"
	grep -v '^{"level"\|^[0-9-]* [0-9:.]* [A-Z] |' "$work/err" | sed 's/^/stderr: /'
	echo "exit $code"
}

# watched LINES ARGS...: a watch, until it has printed so many lines.
watched() {
	lines=$1
	shift
	echo "\$ etcdctl watch $*"
	: >"$work/watch"
	ETCDCTL_API=3 "$tool" --endpoints "$endpoint" watch "$@" >"$work/watch" 2>/dev/null </dev/null &
	watch=$!
	tries=0
	while [ "$(wc -l <"$work/watch")" -lt "$lines" ] && [ $tries -lt 300 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	kill "$watch"
	wait "$watch" 2>/dev/null
	cat "$work/watch"
}

# Ids, terms, raft indexes, ports, sizes and times differ from run to run; nothing
# else may.
same_everywhere() {
	sed -E -e "s/127\.0\.0\.1:[0-9]+/ADDRESS/g" -e 's/"(cluster_id|member_id|ID|leader)":[0-9]+/"\1":N/g' \
		-e 's/"(raft_term|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse)":[0-9]+/"\1":N/g' \
		-e 's/"(ClusterID|MemberID|RaftTerm)" : [0-9]+/"\1" : N/g' \
		-e 's/"(cluster_id|member_id|raft_term|leader)" ?: ?[0-9]+/"\1" : N/g' \
		-e 's/[0-9.]+[mµ]?s\b/TIME/g' -e 's/\b[0-9a-f]{12,16}\b/ID/g' -e 's/[0-9.]+ [kM]B/SIZE/g' -e 's/[0-9]+%/N%/g' \
		-e 's/((true|false), (true|false), )[0-9]+, [0-9]+, [0-9]+/\1N, N, N/' \
		-e "s#$work/[a-z0-9.-]*#FILE#g"
}

# transcript TOOL: what a script does with a cluster, on the server at $endpoint.
transcript() {
	tool=$1
	ctl put a 1
	ctl put a 2 --prev-kv
	ctl put b/1 one
	ctl put b/2 two
	ctl put b/3 three
	ctl put a --ignore-value
	ctl put none --ignore-value
	ctl put
	ctl get a
	ctl get a -w json
	ctl get a -w fields
	ctl get b/ --prefix
	ctl get b/ --prefix --keys-only
	ctl get b/ --prefix --limit 2 -w json
	ctl get b/ --prefix --count-only -w fields
	ctl get b/1 b/3
	ctl get b/2 --from-key --print-value-only
	ctl get b/ --prefix --sort-by value --order descend
	ctl get a --rev 2
	ctl get a --rev 1000
	ctl get absent
	ctl get a --hex
	ctl del b/1
	ctl del b/ --prefix --prev-kv
	ctl del absent
	ctl del a -w json
	ctl put a 3
	printf 'value("a") = "3"\nmod("a") > "1"\n\nput a 4\nget a\n\nput a never\n\n' | ctl txn
	printf 'ver("a") = "100"\n\nput a never\n\nget a\ndel a --prev-kv\n\n' | ctl txn -w json
	printf 'value("a") = "3"\n\nput a x\nput a y\n\n\n' | ctl txn
	watched 6 a --rev 2 --prefix
	watched 4 --prefix b/ --rev 4 --prev-kv
	ctl compaction 5
	ctl compaction 5
	ctl compaction 1000
	ctl compaction 8 --physical
	ctl get a --rev 3
	ctl endpoint hashkv
	# The server chooses the lease's id, so that from here on the hashes differ.
	echo '$ etcdctl lease grant 1000'
	lease=$(ETCDCTL_API=3 "$tool" --endpoints "$endpoint" lease grant 1000 2>/dev/null | awk '{print $2}')
	ctl put leased x --lease="$lease"
	ctl get leased --print-value-only
	ctl lease timetolive "$lease" --keys
	ctl lease list
	ctl lease keep-alive "$lease" --once
	ctl lease revoke "$lease"
	ctl lease revoke "$lease"
	ctl lease timetolive "$lease"
	ctl get leased
	ctl put a 1 --lease=1234
	ctl member list
	ctl member list -w json
	ctl endpoint health
	ctl endpoint status
	ctl alarm list
	ctl alarm disarm
	ctl defrag
	ctl snapshot save "$work/snapshot.db"
	rm -f "$work/snapshot.db"
	ctl get a
}

# compare NAME EXPECTED GOT: shows how two transcripts differ, if they do.
compare() {
	grep -c '^\$' "$2" | sed "s/\$/ commands/"
	diff -u "$2" "$3" >"$work/diff" && return 0
	head -60 "$work/diff"
	return 1
}

# The same tool of the older line, on our server and on the reference.
older_etcdctl() {
	start_server ours "$RETCD_BIN_DIR/etcd"
	transcript "$DEBIAN_ETCDCTL" | same_everywhere >"$work/got"
	start_server reference "$REAL_ETCD_BIN"
	transcript "$DEBIAN_ETCDCTL" | same_everywhere >"$work/want"
	compare older "$work/want" "$work/got"
}

# Our etcdctl and the reference's, each on a fresh reference server.
our_etcdctl() {
	start_server for-ours "$REAL_ETCD_BIN"
	transcript "$RETCD_BIN_DIR/etcdctl" | same_everywhere >"$work/got"
	start_server for-reference "$REAL_ETCD_BIN"
	transcript "$REAL_ETCDCTL" | same_everywhere >"$work/want"
	compare ours "$work/want" "$work/got"
}

check_tools
build_reference
step "go vet" go_vet
step "Go client, reference server, files and SIGKILL (go test)" go_test
step "the same of members that keep no value in memory (go test)" go_test_without_values
step "the crate etcd-client (cargo test)" rust_test
step "the commands on the operator's pages" pages
step "etcdctl of an older line on this server, as on the reference" older_etcdctl
step "this etcdctl on the reference server, as the reference's" our_etcdctl

echo
echo "conformance:$passed$failed"
[ -z "$failed" ]
