package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// Each program continues with the directory of the other one: after a clean stop and after SIGKILL
// under load, repeatedly, with the same hash, every acknowledged write, the leases and the members.
func TestTakeover(t *testing.T) {
	for _, order := range []struct {
		name          string
		first, second func() program
	}{{"ours-then-reference", ours, real}, {"reference-then-ours", real, ours}} {
		for _, end := range []string{"stopped", "killed"} {
			t.Run(order.name+"/"+end, func(t *testing.T) {
				t.Parallel()
				// Few entries between snapshots, so that the directory contains .snap files and a
				// log that starts after one.
				takeover(t, order.first(), order.second(), end == "killed", "--snapshot-count=150")
			})
		}
	}
}

func takeover(t *testing.T, first, second program, kill bool, flags ...string) {
	m := newMember(t, flags...)
	m.start(first)
	c := m.dial()
	populate(t, c)
	a := &acks{value: map[string]int{}}
	other := map[string]program{first.name: second, second.name: first}

	for turn, next := range []program{second, first, second} {
		load := a.load(m, 4)
		a.await(t, a.total()+300)
		var before snapshotOfState
		if kill {
			m.kill()
			load.abandon()
			// The exact state of a killed server is unknown; but the two programs must read the
			// same from its directory.
			before = m.readBy(other[next.name])
		} else {
			load.finish()
			before = m.state()
			m.stop()
		}
		c.Close()
		checkBolt(t, m.db())

		m.start(next)
		c = m.dial()
		a.check(t, c)
		m.compareState(before)
		if l, err := c.TimeToLive(ctx(t), 77, clientv3.WithAttachedKeys()); err != nil || l.TTL <= 0 || len(l.Keys) != 1 {
			t.Errorf("turn %d, %s: lease 77: %v, %v", turn, next.name, l, err)
		}
		if t.Failed() {
			t.Fatalf("turn %d: %s took over from the other", turn, next.name)
		}
	}
	// The other program still reads the same from what the last one wrote.
	before := m.state()
	m.stop()
	m.start(first)
	m.compareState(before)
	m.stop()
	checkBolt(t, m.db())
}

// readBy starts a program on a copy of a directory that is not in use, and returns the state that
// it reads.
func (m *member) readBy(p program) snapshotOfState {
	m.t.Helper()
	twin := newMember(m.t, m.flags...)
	twin.client, twin.peer, twin.cluster = m.client, m.peer, m.cluster
	if err := os.CopyFS(twin.dir, os.DirFS(m.dir)); err != nil {
		m.t.Fatal(err)
	}
	// etcd requires a directory accessible to its owner only, and writable files.
	if err := os.Chmod(twin.dir, 0o700); err != nil {
		m.t.Fatal(err)
	}
	twin.start(p)
	state := twin.state()
	twin.kill()
	if err := os.RemoveAll(twin.dir); err != nil {
		m.t.Fatal(err)
	}
	return state
}

// populate writes data of every kind: history, tombstones, a compaction, a lease with its key, an
// alarm.
func populate(t testing.TB, c *clientv3.Client) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 3))
	var last int64
	for i := range 400 {
		key := fmt.Sprintf("k/%02d", rng.IntN(40))
		if rng.IntN(4) == 0 {
			r, err := c.Delete(ctx(t), key)
			if err != nil {
				t.Fatal(err)
			}
			last = r.Header.Revision
			continue
		}
		r, err := c.Put(ctx(t), key, fmt.Sprintf("value %d %0*d", i, rng.IntN(2000), 0))
		if err != nil {
			t.Fatal(err)
		}
		last = r.Header.Revision
	}
	kv := pb.NewLeaseClient(c.ActiveConnection())
	if _, err := kv.LeaseGrant(ctx(t), &pb.LeaseGrantRequest{ID: 77, TTL: 5000}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx(t), "leased", "x", clientv3.WithLease(77)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx(t), last/2, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}

// snapshotOfState is what must not change when another program takes over.
type snapshotOfState struct {
	rev, compacted int64
	// hashes of the keyspace, at the last revision and at one in the middle.
	now, middle uint32
	// backend is the hash over all buckets.
	backend uint32
	members string
}

func (m *member) state() snapshotOfState {
	m.t.Helper()
	s := snapshotOfState{}
	now := m.hashKV(0)
	s.rev, s.compacted, s.now = now.HashRevision, now.CompactRevision, now.Hash
	s.middle = m.hashKV(s.compacted + (s.rev-s.compacted)/2).Hash
	c := m.dial()
	defer c.Close()
	list, err := c.MemberList(ctx(m.t))
	if err != nil {
		m.t.Fatal(err)
	}
	s.members = fmt.Sprintf("%x %v", list.Header.ClusterId, list.Members)
	hash, err := pb.NewMaintenanceClient(c.ActiveConnection()).Hash(ctx(m.t), &pb.HashRequest{})
	if err != nil {
		m.t.Fatal(err)
	}
	s.backend = hash.Hash
	return s
}

func (m *member) compareState(want snapshotOfState) {
	m.t.Helper()
	if got := m.state(); got != want {
		m.t.Errorf("%s: state after the takeover\n got %+v\nwant %+v", m.program.name, got, want)
	}
}

// A snapshot saved by one and restored by the other's tool has the same keyspace.
func TestSnapshotRestore(t *testing.T) {
	// Our etcdctl and etcdutl, and the library of the reference's tools.
	ourSave := func(m *member, path string) {
		tool(t, "etcdctl", "--endpoints", m.client, "snapshot", "save", path)
	}
	realSave := func(m *member, path string) {
		cfg := clientv3.Config{Endpoints: []string{m.client}, Logger: zap.NewNop()}
		if _, err := snapshot.NewV3(zap.NewNop()).Save(ctx(t), cfg, path); err != nil {
			t.Fatal(err)
		}
	}
	ourRestore := func(m *member, path string) {
		tool(t, "etcdutl", "snapshot", "restore", path, "--name=default", "--data-dir="+m.dir,
			"--initial-cluster=default=http://"+m.peer, "--initial-advertise-peer-urls=http://"+m.peer)
	}
	realRestore := func(m *member, path string) {
		err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
			SnapshotPath: path, Name: "default", OutputDataDir: m.dir, PeerURLs: []string{"http://" + m.peer},
			InitialCluster: "default=http://" + m.peer, InitialClusterToken: "etcd-cluster",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, source := range map[string]program{"ours": ours(), "reference": real()} {
		m := startMember(t, source)
		populate(t, m.dial())
		want := m.hashKV(0)
		dir := t.TempDir()
		for saver, save := range map[string]func(*member, string){"ours": ourSave, "reference": realSave} {
			path := filepath.Join(dir, name+"-"+saver)
			save(m, path)
			status, err := snapshot.NewV3(zap.NewNop()).Status(path)
			if err != nil || status.Revision != want.HashRevision {
				t.Fatalf("status of a snapshot of %s: %+v, %v; want revision %d", name, status, err, want.HashRevision)
			}
			line := fmt.Sprintf("%x, %d, %d, ", status.Hash, status.Revision, status.TotalKey)
			if got := tool(t, "etcdutl", "snapshot", "status", path); len(got) < len(line) || got[:len(line)] != line {
				t.Errorf("etcdutl snapshot status: %q, want %q", got, line)
			}
			for restorer, restore := range map[string]func(*member, string){"ours": ourRestore, "reference": realRestore} {
				for server, p := range map[string]program{"ours": ours(), "reference": real()} {
					t.Run(fmt.Sprintf("of-%s/saved-by-%s/restored-by-%s/served-by-%s", name, saver, restorer, server), func(t *testing.T) {
						restored := newMember(t)
						restore(restored, path)
						restored.start(p)
						got := restored.hashKV(0)
						if got.Hash != want.Hash || got.HashRevision != want.HashRevision || got.CompactRevision != want.CompactRevision {
							t.Errorf("HashKV %v, want %v", got, want)
						}
						if _, err := restored.dial().Put(ctx(t), "after", "restore"); err != nil {
							t.Error(err)
						}
						restored.stop()
						checkBolt(t, restored.db())
					})
				}
			}
		}
	}
}

// tool runs a command line tool under test and returns what it printed.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx(t), filepath.Join(binDir, name), args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if e, ok := err.(*exec.ExitError); ok {
			stderr = string(e.Stderr)
		}
		t.Fatalf("%s %v: %v\n%s%s", name, args, err, out, stderr)
	}
	return string(out)
}

// bbolt's own check passes on the file after load, defragmentation under load, and SIGKILL during
// it.
func TestBoltCheckAfterDefragUnderLoad(t *testing.T) {
	t.Parallel()
	m := startMember(t, ours())
	c := m.dial()
	populate(t, c)
	a := &acks{value: map[string]int{}}
	load := a.load(m, 4)
	for round := range 3 {
		a.await(t, 100*(round+1))
		if _, err := c.Defragment(ctx(t), m.client); err != nil {
			t.Fatal(err)
		}
	}
	defrag, cancel := context.WithCancel(ctx(t))
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Defragment(defrag, m.client) // the kill may meet it at work
	}()
	m.kill()
	cancel()
	<-done
	load.abandon()
	checkBolt(t, m.db())
	m.start(ours())
	a.check(t, m.dial())
	m.stop()
	checkBolt(t, m.db())
	m.start(real())
	a.check(t, m.dial())
}
