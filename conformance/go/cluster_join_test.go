package conformance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// hurried lets members join as soon as the previous one votes. By default a member must have been
// connected for five seconds, which dominates the time of these tests; TestClusterReplaced waits
// for it.
const hurried = "--strict-reconfig-check=false"

// join adds a member to a live cluster, as a learner at first, and starts it.
func (c *cluster) join(p program) *member {
	c.t.Helper()
	m := newMember(c.t, append(c.flags, "--initial-cluster-state=existing")...)
	m.catchup = c.catchup
	c.joined++
	m.name = fmt.Sprintf("j%d", c.joined)
	url := "http://" + m.peer
	var added *clientv3.MemberAddResponse
	// A member that has not been connected for five seconds does not count yet.
	insist(c.t, "add a learner", func() (err error) {
		added, err = c.leader().client3().MemberAddAsLearner(ctx(c.t), []string{url})
		return err
	})
	m.id = added.Member.ID
	// The member that the joining one asks first must already know of it: the first answer is
	// trusted.
	for _, other := range c.running() {
		eventually(c.t, other.String()+" to know of a learner", func() bool {
			return page(other.peer, "/members", fmt.Sprint(m.id))
		})
	}
	m.cluster = ""
	for _, other := range added.Members {
		name := other.Name
		if other.ID == m.id {
			name = m.name
		}
		m.cluster += fmt.Sprintf(",%s=%s", name, other.PeerURLs[0])
	}
	m.cluster = m.cluster[1:]
	m.program = p
	m.launch(p)
	eventually(c.t, p.name+" to be a learner that has caught up", func() bool {
		m.mustRun()
		s, leader := m.status(), c.leader().status()
		return s != nil && leader != nil && s.IsLearner && s.Header.Revision > 0 && s.Header.Revision+100 >= leader.Header.Revision
	})
	return m
}

// promote makes a learner a voter, to which clients connect from then on.
func (c *cluster) promote(m *member) {
	c.t.Helper()
	// Any member forwards it to the leader, which knows the learner's progress.
	asked := c.running()[0]
	insist(c.t, "promote "+m.String(), func() error {
		_, err := asked.client3().MemberPromote(ctx(c.t), m.id)
		return err
	})
	m.awaitHealthy()
	c.mu.Lock()
	c.members = append(c.members, m)
	c.mu.Unlock()
}

// remove removes a member from the cluster; its process exits by itself.
func (c *cluster) remove(m *member) {
	c.t.Helper()
	id := m.status().Header.MemberId
	c.mu.Lock()
	for i, other := range c.members {
		if other == m {
			c.members = append(c.members[:i:i], c.members[i+1:]...)
			break
		}
	}
	c.mu.Unlock()
	insist(c.t, "remove "+m.String(), func() error {
		_, err := c.members[0].client3().MemberRemove(ctx(c.t), id)
		return err
	})
	select {
	case <-m.exited:
	case <-time.After(startTimeout):
		c.t.Fatalf("%s was removed and does not end\n%s", m, m.logTail())
	}
	m.up.Store(false)
}

// mustRun fails the test if the process has exited.
func (m *member) mustRun() {
	m.t.Helper()
	select {
	case <-m.exited:
		m.t.Fatalf("%s has ended: %v\n%s", m, m.cmd.ProcessState, m.logTail())
	default:
	}
}

// serves checks what a load does not cover: watches and leases at one member.
func (c *cluster) serves(m *member, h *clusterLoad) {
	c.t.Helper()
	client := m.client3()
	key := fmt.Sprintf("serves/%s/%d", m.name, time.Now().UnixNano())
	watch := client.Watch(ctx(c.t), key)
	lease, err := client.Grant(ctx(c.t), 600)
	if err != nil {
		c.t.Fatalf("%s: grant: %v", m, err)
	}
	put, err := client.Put(ctx(c.t), key, "x", clientv3.WithLease(lease.ID))
	if err != nil {
		c.t.Fatalf("%s: put: %v", m, err)
	}
	got := <-watch
	if got.Err() != nil || len(got.Events) != 1 || got.Events[0].Kv.ModRevision != put.Header.Revision {
		c.t.Fatalf("%s: watch: %+v", m, got)
	}
	// Leases are kept by the leader: other members ask it.
	for _, other := range c.running() {
		if alive, err := other.client3().KeepAliveOnce(ctx(c.t), lease.ID); err != nil || alive.TTL != 600 {
			c.t.Fatalf("%s: keep-alive of a lease of %s: %v, %v", other, m, alive, err)
		}
		left, err := other.client3().TimeToLive(ctx(c.t), lease.ID, clientv3.WithAttachedKeys())
		if err != nil || left.TTL < 500 || len(left.Keys) != 1 || string(left.Keys[0]) != key {
			c.t.Fatalf("%s: time to live of a lease of %s: %+v, %v", other, m, left, err)
		}
	}
	if _, err := client.Revoke(ctx(c.t), lease.ID); err != nil {
		c.t.Fatalf("%s: revoke: %v", m, err)
	}
	if got = <-watch; got.Err() != nil || len(got.Events) != 1 || got.Events[0].Type != clientv3.EventTypeDelete {
		c.t.Fatalf("%s: watch after the lease: %+v", m, got)
	}
	h.await(20)
}

// witness watches the load at one member, across its restarts.
type witness struct {
	m      *member
	cancel context.CancelFunc
	from   int64

	mu   sync.Mutex
	seen map[string]int64
	last int64
	err  error
}

func (h *clusterLoad) watch(m *member) *witness {
	run, cancel := context.WithCancel(context.Background())
	w := &witness{m: m, cancel: cancel, from: h.highest.Load(), seen: map[string]int64{}}
	h.c.t.Cleanup(cancel)
	events := m.client3().Watch(run, "load/", clientv3.WithPrefix(), clientv3.WithRev(w.from+1))
	go func() {
		for r := range events {
			w.mu.Lock()
			if r.Err() != nil && w.err == nil && run.Err() == nil {
				w.err = r.Err()
			}
			for _, e := range r.Events {
				if e.Kv.ModRevision < w.last && w.err == nil {
					w.err = fmt.Errorf("revision %d after %d", e.Kv.ModRevision, w.last)
				}
				w.last = e.Kv.ModRevision
				w.seen[string(e.Kv.Key)] = e.Kv.ModRevision
			}
			w.mu.Unlock()
		}
	}()
	return w
}

// check waits until the witness has seen every acknowledged write.
func (w *witness) check(h *clusterLoad) {
	h.c.t.Helper()
	defer w.cancel()
	h.mu.Lock()
	acked := make(map[string]write, len(h.acked))
	var highest int64
	for key, write := range h.acked {
		acked[key] = write
		highest = max(highest, write.rev)
	}
	h.mu.Unlock()
	eventually(h.c.t, fmt.Sprintf("a watch on %s to reach revision %d", w.m, highest), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.last >= highest || w.err != nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		h.c.t.Fatalf("watch on %s: %v", w.m, w.err)
	}
	for key, write := range acked {
		if write.rev > w.from && w.seen[key] != write.rev {
			h.c.t.Errorf("watch on %s: %s was put at %d, seen at %d", w.m, key, write.rev, w.seen[key])
		}
	}
}

// compact removes the older half of the history.
func (c *cluster) compact(through *member) {
	c.t.Helper()
	s := through.status()
	if s == nil {
		c.t.Fatalf("%s tells no status", through)
	}
	if _, err := through.client3().Compact(ctx(c.t), s.Header.Revision/2+1); err != nil {
		c.t.Fatalf("%s: compact: %v", through, err)
	}
}

// quiet checks that no member has detected a hash mismatch.
func (c *cluster) quiet() {
	c.t.Helper()
	for _, m := range c.running() {
		list, err := m.client3().AlarmList(ctx(c.t))
		if err != nil || len(list.Alarms) != 0 {
			c.t.Fatalf("%s: alarms: %v, %v", m, list, err)
		}
	}
}

// replace replaces a member by one of another program, under load.
func (c *cluster) replace(old *member, p program, h *clusterLoad) *member {
	c.t.Helper()
	replaced := old.String()
	fresh := c.join(p)
	if c.catchup != 0 && old.program.catchup != "" && !fresh.logged("received and saved database snapshot") {
		c.t.Errorf("%s got no snapshot", fresh)
	}
	c.promote(fresh)
	c.sameHash()
	w := h.watch(fresh)
	c.serves(fresh, h)
	c.compact(fresh)
	c.remove(old)
	c.t.Logf("%s replaced %s", fresh, replaced)
	h.await(50)
	c.sameHash()
	// A restart in between.
	fresh.kill()
	h.await(20)
	fresh.start(p)
	c.lead(fresh)
	c.serves(fresh, h)
	c.sameHash()
	w.check(h)
	return fresh
}

// A cluster of the reference is replaced member by member, under load, and back: learners,
// snapshots, votes, leadership of either kind.
func TestClusterReplaced(t *testing.T) {
	t.Parallel()
	// With all corruption checks.
	c := newCluster(t, 3, "--snapshot-count=200", "--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true",
		"--compact-hash-check-time=1s", "--corrupt-check-time=2s")
	c.keep(50)
	c.start(real(), real(), real())
	h := c.load(3, 2)
	h.await(300)
	for _, p := range []program{ours(), real()} {
		for _, m := range append([]*member(nil), c.members...) {
			c.replace(m, p, h)
			c.quiet()
		}
	}
	h.finish()
}

// A lease that is not renewed expires, and not early, whoever leads: also if leadership moved from
// one program to the other meanwhile.
func TestClusterLeaseEnds(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.start(ours(), real(), real())
	key := "leased"
	for _, to := range []*member{c.members[0], c.members[1]} {
		start := time.Now()
		lease, err := c.members[2].client3().Grant(ctx(t), 3)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.members[2].client3().Put(ctx(t), key, "", clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
		c.lead(to)
		eventually(t, "the lease's end under "+to.String(), func() bool {
			r, err := to.client3().Get(ctx(t), key)
			return err == nil && r.Count == 0
		})
		// A new leader extends each lease by its full time to live.
		if took := time.Since(start); took < 3*time.Second || took > 15*time.Second {
			t.Errorf("under %s a lease of 3s ended after %v", to, took)
		}
	}
	c.sameHash()
}

// olderCluster is a cluster of an older line with some data.
func olderCluster(t *testing.T, version string) (*cluster, *clusterLoad, program) {
	t.Helper()
	older := line(t, version)
	c := newCluster(t, 3, "--snapshot-count=200", hurried)
	c.keep(50)
	c.start(older, older, older)
	h := c.load(2, 1)
	h.await(300)
	return c, h, older
}

// A member of an older line remains among two of ours, which keep to the older version meanwhile,
// and is then joined by others again.
func TestOlderClusterReplaced(t *testing.T) {
	for _, version := range lines {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c, h, older := olderCluster(t, version)
			for _, p := range []program{ours(), older} {
				for _, m := range append([]*member(nil), c.members[:2]...) {
					c.replace(m, p, h)
				}
				// The remaining older member leads both kinds.
				c.lead(c.members[0])
				c.serves(c.members[1], h)
				c.version(version + ".0")
			}
			h.finish()
		})
	}
}

// version checks the cluster version reported by every member.
func (c *cluster) version(want string) {
	c.t.Helper()
	for _, m := range c.running() {
		eventually(c.t, fmt.Sprintf("cluster version %s at %s", want, m), func() bool {
			return page(m.client, "/version", `"etcdcluster":"`+want+`"`)
		})
	}
}
