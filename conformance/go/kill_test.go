package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// acks records, per key, the newest acknowledged write.
type acks struct {
	mu    sync.Mutex
	value map[string]int
}

// writers is a load that runs until it is stopped.
type writers struct {
	ending atomic.Bool
	cancel context.CancelFunc
	wg     sync.WaitGroup
	client *clientv3.Client
}

// load starts n writers and records acknowledged writes. Each writer owns its keys and writes
// ascending numbers, so that "not older than acknowledged" is a complete check.
func (a *acks) load(m *member, n int) *writers {
	run, cancel := context.WithCancel(context.Background())
	l := &writers{cancel: cancel, client: m.dial()}
	for w := range n {
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			for !l.ending.Load() {
				key := fmt.Sprintf("writer-%02d/%d", w, rand.IntN(8))
				a.mu.Lock()
				next := a.value[key] + 1
				a.mu.Unlock()
				// A write without an answer may or may not have been executed; the writer ends.
				_, err := l.client.Put(run, key, fmt.Sprintf("%d %0100d", next, 0))
				if err != nil {
					return
				}
				a.mu.Lock()
				a.value[key] = next
				a.mu.Unlock()
			}
		}()
	}
	return l
}

// finish stops the load; every write that was started has its answer.
func (l *writers) finish() {
	l.ending.Store(true)
	l.wg.Wait()
	l.cancel()
	l.client.Close()
}

// abandon stops the load of a server that has been killed.
func (l *writers) abandon() {
	l.ending.Store(true)
	l.cancel()
	l.wg.Wait()
	l.client.Close()
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

// check compares a server's state with what was acknowledged. A value may be newer by one: the
// answer to that write was lost with the process.
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

// No acknowledged write is lost when the process is killed, whatever it was doing at that moment.
func TestKillLosesNoAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	m := newMember(t, "--snapshot-count=200")
	a := &acks{value: map[string]int{}}
	for round := range 8 {
		m.start(ours())
		c := m.dial()
		a.check(t, c)
		before := a.total()
		load := a.load(m, 8)
		a.await(t, before+20+rand.IntN(400))
		m.kill()
		load.abandon()
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
