package conformance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// join adds a member to a live cluster, as a learner at first, and starts it.
func (c *cluster) join(p program) *member {
	c.t.Helper()
	m := newMember(c.t, append(c.flags, "--initial-cluster-state=existing")...)
	m.catchup = c.catchup
	c.joined++
	m.name = fmt.Sprintf("j%d", c.joined)
	url := "http://" + m.peer
	var added *clientv3.MemberAddResponse
	// Members that have not been connected for five seconds do not count yet.
	eventually(c.t, "a learner to be added", func() bool {
		var err error
		added, err = c.leader().client3().MemberAddAsLearner(ctx(c.t), []string{url})
		if err != nil {
			c.t.Logf("add %s: %v", p.name, err)
			time.Sleep(200 * time.Millisecond)
		}
		return err == nil
	})
	m.id = added.Member.ID
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

// promote makes a learner a voter, which clients ask from then on.
func (c *cluster) promote(m *member) {
	c.t.Helper()
	// Any member passes it on to the leader, who knows how far the learner is.
	asked := c.running()[0]
	eventually(c.t, m.program.name+" to be promoted", func() bool {
		_, err := asked.client3().MemberPromote(ctx(c.t), m.id)
		if err != nil {
			c.t.Logf("promote %s: %v", m.program.name, err)
			time.Sleep(50 * time.Millisecond)
		}
		return err == nil
	})
	m.awaitHealthy()
	c.mu.Lock()
	c.members = append(c.members, m)
	c.mu.Unlock()
}

// remove takes a member out of the cluster; it ends by itself.
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
	eventually(c.t, m.String()+" to be removed", func() bool {
		_, err := c.members[0].client3().MemberRemove(ctx(c.t), id)
		if err != nil {
			c.t.Logf("remove %s: %v", m, err)
			time.Sleep(200 * time.Millisecond)
		}
		return err == nil
	})
	select {
	case <-m.exited:
	case <-time.After(startTimeout):
		c.t.Fatalf("%s was removed and does not end\n%s", m, m.logTail())
	}
	m.up.Store(false)
}

// mustRun fails the test if the process has ended.
func (m *member) mustRun() {
	m.t.Helper()
	select {
	case <-m.exited:
		m.t.Fatalf("%s has ended: %v\n%s", m, m.cmd.ProcessState, m.logTail())
	default:
	}
}

// serves checks what a load does not: watches and leases of one member.
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
	// Leases are the leader's: others ask it.
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

// witness watches the load through one member, over its restarts.
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

// check waits until the witness has seen everything that was acknowledged.
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

// replace lets a member of another program take a member's place, under load.
func (c *cluster) replace(old *member, p program, h *clusterLoad) *member {
	c.t.Helper()
	replaced := old.String()
	fresh := c.join(p)
	c.promote(fresh)
	c.sameHash()
	w := h.watch(fresh)
	c.serves(fresh, h)
	c.remove(old)
	c.t.Logf("%s replaced %s", fresh, replaced)
	h.await(50)
	c.sameHash()
	// A restart in the middle of it.
	fresh.kill()
	h.await(20)
	fresh.start(p)
	c.lead(fresh)
	c.serves(fresh, h)
	c.sameHash()
	w.check(h)
	return fresh
}

// A cluster of the reference is replaced member by member, under load, and back
// again: learners, snapshots, votes, leadership of either kind.
func TestClusterReplaced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "--snapshot-count=200")
	c.keep(50)
	c.start(real(), real(), real())
	h := c.load(3, 2)
	h.await(300)
	for _, p := range []program{ours(), real()} {
		for _, m := range append([]*member(nil), c.members...) {
			c.replace(m, p, h)
		}
	}
	h.finish()
}
