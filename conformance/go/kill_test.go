package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// acks records, per key, the newest write that the server acknowledged.
type acks struct {
	mu    sync.Mutex
	value map[string]int
}

// load runs writers until the returned stop is called (or their server dies),
// and records what was acknowledged. Each writer owns its keys and writes
// ascending numbers, so that "not older than acknowledged" is the whole check.
func (a *acks) load(m *member, writers int) (stop func()) {
	run, cancel := context.WithCancel(context.Background())
	c := m.dial()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for run.Err() == nil {
				key := fmt.Sprintf("writer-%02d/%d", w, rand.IntN(8))
				a.mu.Lock()
				next := a.value[key] + 1
				a.mu.Unlock()
				// A write without an answer may or may not have happened; the number
				// is not used again, for the next attempt to this key writes the same.
				_, err := c.Put(run, key, fmt.Sprintf("%d %0100d", next, 0))
				if err != nil {
					return
				}
				a.mu.Lock()
				a.value[key] = next
				a.mu.Unlock()
			}
		}()
	}
	return func() {
		cancel()
		wg.Wait()
		c.Close()
	}
}

func (a *acks) total() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, v := range a.value {
		n += v
	}
	return n
}

// await waits until at least n writes were acknowledged.
func (a *acks) await(t testing.TB, n int) {
	t.Helper()
	deadline := time.Now().Add(callTimeout)
	for a.total() < n {
		if time.Now().After(deadline) {
			t.Fatalf("only %d of %d writes acknowledged after %v", a.total(), n, callTimeout)
		}
		time.Sleep(time.Millisecond)
	}
}

// check compares what a server holds with what was acknowledged. A value may be
// one newer: the answer to that write was lost with the process.
func (a *acks) check(t testing.TB, c *clientv3.Client) {
	t.Helper()
	r, err := c.Get(ctx(t), "writer-", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]int{}
	for _, kv := range r.Kvs {
		var n int
		fmt.Sscanf(string(kv.Value), "%d", &n)
		held[string(kv.Key)] = n
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, acked := range a.value {
		if got := held[key]; got != acked && got != acked+1 {
			t.Errorf("%s: acknowledged %d, found %d", key, acked, got)
		}
	}
	for key, got := range held {
		a.value[key] = got
	}
}

// No write that was acknowledged is lost when the process is killed, whatever
// it was doing at that moment.
func TestKillLosesNoAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	m := newMember(t, "--snapshot-count=200")
	a := &acks{value: map[string]int{}}
	for round := range 8 {
		m.start(ours())
		c := m.dial()
		a.check(t, c)
		before := a.total()
		stop := a.load(m, 8)
		a.await(t, before+20+rand.IntN(400))
		m.kill()
		stop()
		c.Close()
		if t.Failed() {
			t.Fatalf("lost in round %d", round)
		}
		checkBolt(t, m.db())
	}
	m.start(ours())
	a.check(t, m.dial())
	m.stop()
	checkBolt(t, m.db())
}
