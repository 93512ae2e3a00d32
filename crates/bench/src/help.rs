//! What follows the flags in `--help`: names, limits, examples.

/// `retcd-bench hostile`.
pub(crate) const HOSTILE: &str = "\
For a scratch server: keys are written and deleted. The table is in Markdown.

Example:
  retcd-bench hostile --endpoint 127.0.0.1:2379";

/// `retcd-bench plot`.
pub(crate) const PLOT: &str = "\
Charts: processor time and p99 of put and get, memory at rest (rss), time to the first get of a start (restart); both axes are
logarithmic. Each legend names the exponent of growth: n^1 doubles with the number of keys, n^0 stays as it is. A chart needs two
numbers of keys, of one result file or of several.

Example:
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --keys 10000,100000,1000000 --workloads put,get,rss,restart --json growth.json
  retcd-bench plot growth.json --dir charts";

/// `retcd-bench load`.
pub(crate) const LOAD: &str = "\
Workloads: put, get, get-zipf, get-serializable, list[-KEYS], stream[-KEYS], page[-KEYS], txn, watch[-WATCHERS], lease-grant, lease-keepalive, connect,
  and of API v2, over HTTP/1.1 with 64 clients and a connection for each: v2-set, v2-get, v2-quorum-get, v2-watch[-POLLS];
  likewise through the JSON gateway: json-put, json-list[-KEYS], json-watch[-WATCHERS].
Append @CLIENTS for another number of clients (for watch, v2-watch and json-watch: of writers).
Keys that a workload reads are written first if they are missing. Keys and leases stay on the server.

Examples:
  retcd-bench load --endpoint 127.0.0.1:2379 put
  retcd-bench load --endpoint 127.0.0.1:2379 get list-1000@16 txn --duration 30
  retcd-bench load --endpoint 127.0.0.1:2379 put@1 --ops 1000
  retcd-bench load --endpoint 127.0.0.1:2379 stream-100000@64 --read-rate 1 --duration 60
  retcd-bench load --endpoint 127.0.0.1:2379 watch-1000 --streams 10 --writers 4
  retcd-bench load --endpoint 10.0.0.1:2379,10.0.0.2:2379 --cacert ca.pem --cert me.pem --key me-key.pem --user me:secret put connect";

/// `retcd-bench compare`.
pub(crate) const COMPARE: &str = "\
Scenarios: the workloads of `retcd-bench load`, and
  latency  puts of one client, and what they cannot avoid: round trips and fdatasync, each measured by turns with them
  mixed    puts while lists, compactions and defragmentations go on
  churn    --churn-updates updates of --churn-keys keys with steady compaction: does the file grow, is memory flat, how long is a pause
  connections[-CONNECTIONS]         memory of clients that rest (10,000), each with a watch and a lease, after --duration
  watches[-WATCHES][@CONNECTIONS]   memory of watches (100,000) on few connections (100)
  large    --large-keys values of --large-value-size bytes, which may be more than --memory-max: fill, gets, pages, puts, a watch of all
           history, compaction, defragmentation, snapshot and restart, a row for each, and the pauses of a paced writer
  rss      memory that the key space takes
  restart  time from exec to the first answered get, with --restart-keys keys
and with --members=3 or more
  leader-kill  puts while the leader is killed: how long nothing is acknowledged, and when the rate is back
  catch-up     a follower comes back that has missed --catch-up-mib and needs a snapshot
  tail         puts at a fixed rate, alone and while lists, compactions, defragmentations, snapshots and a catch-up go on; the slowest
               one by one. --duration 60 or more, so that p99.9 is not a few puts
Each measurement starts a server on free loopback ports with a new data directory in --dir, which should lie on a real disk.

Examples:
  retcd-bench compare --ours target/release/etcd --other /usr/local/bin/etcd
  retcd-bench compare --ours target/release/etcd --other /usr/bin/etcd --workloads put,put@1,list-1000 --rounds 5
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --members 3 --workloads put,get,leader-kill,catch-up
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --members 3 --workloads latency,tail --duration 60
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --tls --auth --workloads put,get,connect
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --workloads churn --clients 32 --rounds 1
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --workloads list-100000@64,stream-100000@64 --read-rate 1 --duration 60
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --workloads connections-10000,watches-100000@100 --duration 30
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --keys 10000,100000,1000000 --workloads put,get,rss,restart --json growth.json
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --workloads large --large-keys 200000 --large-value-size 65536 \\
      --memory-max 4GiB --ours-args '--value-cache-bytes=1073741824' --rounds 1
  retcd-bench compare --ours ./etcd --other ./etcd-old --other-args '--snapshot-count=10000' --markdown results.md
  retcd-bench compare --ours ./etcd --other /usr/bin/etcd --other-args '--enable-v2=true' --workloads v2-set,v2-get,v2-quorum-get,v2-watch";
