package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// cluster is a set of members, some of which may be down.
type cluster struct {
	t testing.TB
	// flags are passed to every member; so is catchup.
	flags   []string
	catchup int
	joined  int

	mu      sync.Mutex
	members []*member
}

// newCluster prepares n members that found a cluster together.
func newCluster(t testing.TB, n int, flags ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, flags: flags}
	var initial []string
	for i := range n {
		m := newMember(t, flags...)
		m.name = fmt.Sprintf("m%d", i+1)
		initial = append(initial, m.name+"=http://"+m.peer)
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		m.cluster = strings.Join(initial, ",")
	}
	return c
}

// keep sets how many entries leaders retain for slow followers.
func (c *cluster) keep(entries int) {
	c.catchup = entries
	for _, m := range c.members {
		m.catchup = entries
	}
}

// start starts all members, each with its program, and waits until they serve.
func (c *cluster) start(programs ...program) {
	c.t.Helper()
	for i, m := range c.members {
		m.launch(programs[i])
	}
	for _, m := range c.members {
		m.awaitHealthy()
	}
}

// running are the members whose processes run.
func (c *cluster) running() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var running []*member
	for _, m := range c.members {
		if m.up.Load() {
			running = append(running, m)
		}
	}
	return running
}

// status returns the member's status, or nil while it is not available.
func (m *member) status() *clientv3.StatusResponse {
	c := m.client3()
	deadline, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s, err := c.Status(deadline, m.client)
	if err != nil {
		return nil
	}
	return s
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startTimeout); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", startTimeout, what)
		}
	}
}

// insist repeats an action until it succeeds; a timeout reports its last error.
func insist(t testing.TB, what string, action func() error) {
	t.Helper()
	var said []string
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(50 * time.Millisecond) {
		err := action()
		if err == nil {
			return
		}
		if text := err.Error(); len(said) == 0 || said[len(said)-1] != text {
			said = append(said, text)
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v to %s: %s", startTimeout, what, strings.Join(said, "; "))
		}
	}
}

// leader waits until all running members agree on a running leader.
func (c *cluster) leader() *member {
	c.t.Helper()
	var leader *member
	eventually(c.t, "an agreed leader", func() bool {
		leader = nil
		var agreed uint64
		for i, m := range c.running() {
			s := m.status()
			if s == nil || s.Leader == 0 || (i > 0 && s.Leader != agreed) {
				return false
			}
			agreed = s.Leader
			if s.Header.MemberId == agreed {
				leader = m
			}
		}
		return leader != nil
	})
	return leader
}

// lead makes a member the leader by asking the current one.
func (c *cluster) lead(to *member) {
	c.t.Helper()
	insist(c.t, "make "+to.String()+" lead", func() error {
		leader := c.leader()
		if leader == to {
			return nil
		}
		s := to.status()
		if s == nil {
			return errors.New("no status")
		}
		if _, err := leader.client3().MoveLeader(ctx(c.t), s.Header.MemberId); err != nil {
			return err
		}
		if now := c.leader(); now != to {
			return fmt.Errorf("%s leads", now)
		}
		return nil
	})
}

// sameHash compares the hashes of all running members at one revision, which may be in the middle
// of a load.
func (c *cluster) sameHash() {
	c.t.Helper()
	members := c.running()
	r, err := members[0].client3().Get(ctx(c.t), "any")
	if err != nil {
		c.t.Fatal(err)
	}
	rev := r.Header.Revision
	var first *clientv3.HashKVResponse
	for _, m := range members {
		eventually(c.t, fmt.Sprintf("revision %d on %s", rev, m), func() bool {
			s := m.status()
			return s != nil && s.Header.Revision >= rev
		})
		h := m.hashKV(rev)
		if first == nil {
			first = h
		}
		if h.Hash != first.Hash || h.CompactRevision != first.CompactRevision {
			c.t.Fatalf("at revision %d %s has hash %d (compacted %d), %s has %d (compacted %d)",
				rev, members[0], first.Hash, first.CompactRevision, m, h.Hash, h.CompactRevision)
		}
	}
}

// loadPause is between two requests of one client: several clusters share the machine.
const loadPause = 2 * time.Millisecond

// write is one acknowledged put.
type write struct {
	value string
	rev   int64
}

// clusterLoad is a load on a cluster and its results.
//
// Every put has a distinct key, so every acknowledged key must exist at its revision, and no other
// key may exist.
type clusterLoad struct {
	c      *cluster
	ending atomic.Bool
	wg     sync.WaitGroup
	// highest is the highest revision in any response.
	highest atomic.Int64

	mu        sync.Mutex
	acked     map[string]write
	keys      []string // of acked
	attempted map[string]string
	failed    map[string]int // errors by text
	lastAck   time.Time
}

// load starts writers and readers that use all running members in turn.
func (c *cluster) load(writers, readers int) *clusterLoad {
	h := &clusterLoad{c: c, acked: map[string]write{}, attempted: map[string]string{}, failed: map[string]int{}}
	// Successive loads of one test must not share keys.
	name := fmt.Sprintf("load/%08x", rand.Uint32())
	for w := range writers {
		h.wg.Go(func() {
			for i := 0; !h.ending.Load(); i++ {
				h.put(fmt.Sprintf("%s/%d/%06d", name, w, i))
				time.Sleep(loadPause)
			}
		})
	}
	for range readers {
		h.wg.Go(func() {
			for !h.ending.Load() {
				h.get()
				time.Sleep(loadPause)
			}
		})
	}
	c.t.Cleanup(func() {
		h.ending.Store(true)
		h.wg.Wait()
	})
	return h
}

func (h *clusterLoad) someone() *member {
	running := h.c.running()
	return running[rand.IntN(len(running))]
}

func (h *clusterLoad) put(key string) {
	value := fmt.Sprintf("%d %0*d", rand.Uint64(), rand.IntN(300), 0)
	h.mu.Lock()
	h.attempted[key] = value
	h.mu.Unlock()
	before := h.highest.Load()
	m := h.someone()
	deadline, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	r, err := m.client3().Put(deadline, key, value)
	if err != nil {
		h.fail(err)
		return
	}
	if r.Header.Revision <= before {
		h.c.t.Errorf("%s: put %s at revision %d, but %d was seen before", m, key, r.Header.Revision, before)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked[key] = write{value, r.Header.Revision}
	h.keys = append(h.keys, key)
	h.lastAck = time.Now()
	h.seen(r.Header.Revision)
}

// get reads an acknowledged key at some member.
func (h *clusterLoad) get() {
	h.mu.Lock()
	if len(h.keys) == 0 {
		h.mu.Unlock()
		time.Sleep(time.Millisecond)
		return
	}
	key := h.keys[len(h.keys)-1]
	if rand.IntN(2) == 0 {
		key = h.keys[rand.IntN(len(h.keys))]
	}
	want := h.acked[key]
	h.mu.Unlock()
	before := h.highest.Load()
	m := h.someone()
	deadline, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	r, err := m.client3().Get(deadline, key)
	if err != nil {
		h.fail(err)
		return
	}
	if r.Header.Revision < before {
		h.c.t.Errorf("%s: a read shows revision %d, but %d was seen before", m, r.Header.Revision, before)
	}
	if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != want.value || r.Kvs[0].ModRevision != want.rev {
		h.c.t.Errorf("%s: %s was acknowledged at %d, read at %d: %v", m, key, want.rev, r.Header.Revision, r.Kvs)
	}
	h.seen(r.Header.Revision)
}

func (h *clusterLoad) seen(rev int64) {
	for old := h.highest.Load(); old < rev && !h.highest.CompareAndSwap(old, rev); old = h.highest.Load() {
	}
}

func (h *clusterLoad) fail(err error) {
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		text = "deadline exceeded"
	}
	h.mu.Lock()
	h.failed[text]++
	h.mu.Unlock()
	time.Sleep(5 * time.Millisecond)
}

func (h *clusterLoad) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.acked)
}

// await waits for n more acknowledged writes.
func (h *clusterLoad) await(n int) {
	h.c.t.Helper()
	start := h.count()
	eventually(h.c.t, fmt.Sprintf("%d more writes", n), func() bool { return h.count() >= start+n })
}

// resumed waits for a write acknowledged after now, and returns how long that took.
func (h *clusterLoad) resumed() time.Duration {
	h.c.t.Helper()
	now := time.Now()
	var last time.Time
	eventually(h.c.t, "a write", func() bool {
		h.mu.Lock()
		last = h.lastAck
		h.mu.Unlock()
		return last.After(now)
	})
	return last.Sub(now)
}

// finish stops the load and compares every running member with its results.
func (h *clusterLoad) finish() {
	h.c.t.Helper()
	h.ending.Store(true)
	h.wg.Wait()
	for _, m := range h.c.running() {
		h.check(m)
	}
	h.c.sameHash()
	h.c.t.Logf("%d writes acknowledged of %d; errors: %v", len(h.acked), len(h.attempted), h.failed)
}

// check reads everything back from one member.
func (h *clusterLoad) check(m *member) {
	h.c.t.Helper()
	held := map[string]write{}
	for from, more := "load/", true; more; {
		r, err := m.client3().Get(ctx(h.c.t), from, clientv3.WithRange("load0"), clientv3.WithLimit(2000))
		if err != nil {
			h.c.t.Fatalf("%s: %v", m, err)
		}
		for _, kv := range r.Kvs {
			held[string(kv.Key)] = write{string(kv.Value), kv.ModRevision}
			from = string(kv.Key) + "\x00"
		}
		more = r.More
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	lost := 0
	for key, want := range h.acked {
		if got, ok := held[key]; !ok || got != want {
			if lost++; lost < 5 {
				h.c.t.Errorf("%s: %s was acknowledged as %v, found %v", m, key, want, got)
			}
		}
	}
	for key, value := range h.attempted {
		if got, ok := held[key]; ok && got.value != value {
			h.c.t.Errorf("%s: %s holds %q, was sent %q", m, key, got.value, value)
		}
	}
}

// returns starts a stopped member that has missed more entries than leaders retain, so that it
// needs a snapshot.
func (c *cluster) returns(m *member, p program, h *clusterLoad) {
	c.t.Helper()
	c.t.Logf("without %s writes resume after %v", m, h.resumed())
	h.await(500)
	m.start(p)
	h.await(50)
	c.sameHash()
}
