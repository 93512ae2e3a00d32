package conformance

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// frozenFor is longer than the time to live of the leases below.
const frozenFor = 20 * time.Second

// renewal keeps leases alive through members that the test has not stopped.
type renewal struct {
	t       testing.TB
	ids     []clientv3.LeaseID
	through []*member
	ending  atomic.Bool
	wg      sync.WaitGroup
}

// renew grants leases of a few seconds with a key each and renews each of them every second.
func renew(t testing.TB, n int, ttl int64, through []*member) *renewal {
	r := &renewal{t: t, through: through}
	for i := range n {
		c := through[i%len(through)].client3()
		lease, err := c.Grant(ctx(t), ttl)
		must(t, "grant", err)
		must(t, "put", second(c.Put(ctx(t), fmt.Sprintf("renewed/%03d", i), "", clientv3.WithLease(lease.ID))))
		r.ids = append(r.ids, lease.ID)
	}
	for i, id := range r.ids {
		r.wg.Go(func() {
			for !r.ending.Load() {
				within, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				// Without a leader there is no response; a lost lease is detected in the end.
				through[i%len(through)].client3().KeepAliveOnce(within, id)
				cancel()
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	t.Cleanup(r.end)
	return r
}

func (r *renewal) end() {
	r.ending.Store(true)
	r.wg.Wait()
}

// check queries every lease at every member.
func (r *renewal) check(members []*member) {
	r.t.Helper()
	for _, m := range members {
		for _, id := range r.ids {
			left, err := m.client3().TimeToLive(ctx(r.t), id)
			if err != nil || left.TTL <= 0 {
				r.t.Errorf("%s: lease %x, which was renewed all the time: %+v, %v", m, id, left, err)
			}
		}
		got, err := m.client3().Get(ctx(r.t), "renewed/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || got.Count != int64(len(r.ids)) {
			r.t.Errorf("%s: %d keys of renewed leases, want %d: %v", m, got.Count, len(r.ids), err)
		}
	}
}

// A leader suspended for longer than the time to live of leases revokes nothing when it resumes:
// leases that look expired to it have been renewed at the next leader. It serves no stale reads,
// and its watchers miss nothing. (Go's leader does revoke leases then now and then, so it is not
// tested.)
func TestLeaderFrozen(t *testing.T) {
	for name, programs := range map[string][]program{
		"ours": {ours(), ours(), ours()}, "mixed": {ours(), real(), ours()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3)
			c.start(programs...)
			c.lead(c.members[0])
			frozen, others := c.members[0], c.members[1:]
			h := c.load(3, 3)
			w := h.watch(frozen)
			h.await(100)
			r := renew(t, 24, 6, others)
			unrenewed, err := others[0].client3().Grant(ctx(t), 6)
			must(t, "grant", err)

			since := time.Now()
			must(t, "freeze", frozen.cmd.Process.Signal(syscall.SIGSTOP))
			frozen.up.Store(false)
			t.Logf("writes resume %v after %s was frozen", h.resumed(), frozen)
			next := c.leader()
			// The duration itself is under test.
			time.Sleep(time.Until(since.Add(frozenFor)))
			must(t, "thaw", frozen.cmd.Process.Signal(syscall.SIGCONT))
			frozen.up.Store(true)
			h.await(100)
			if now := c.leader(); now != next {
				t.Logf("%s leads, %s did before", now, next)
			}
			eventually(t, "the lease that nobody renews to end", func() bool {
				left, err := frozen.client3().TimeToLive(ctx(t), unrenewed.ID)
				return err == nil && left.TTL == -1
			})
			r.check(c.members)
			r.end()
			w.check(h)
			h.finish()
		})
	}
}
