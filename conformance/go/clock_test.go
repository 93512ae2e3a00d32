package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// faketime is the library of the package libfaketime, which interposes C library calls;
// FAKETIME_LIBRARY names another file. Go programs read the clock without the C library, so the
// reference cannot be tested with it.
const faketime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"

// jumpingClock is a wall clock set by the test.
type jumpingClock struct {
	t             testing.TB
	library, path string
}

func newJumpingClock(t testing.TB) *jumpingClock {
	t.Helper()
	library := os.Getenv("FAKETIME_LIBRARY")
	if library == "" {
		library = faketime
	}
	if _, err := os.Stat(library); err != nil {
		t.Fatalf("install the package libfaketime: %v", err)
	}
	c := &jumpingClock{t, library, filepath.Join(t.TempDir(), "clock")}
	c.jump("+0")
	return c
}

// run starts a program with this clock; its monotonic clock is the machine's.
func (c *jumpingClock) run(p program) program {
	script := filepath.Join(c.t.TempDir(), "etcd")
	text := fmt.Sprintf("#!/bin/sh\nexec env LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=%s FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 %s \"$@\"\n",
		c.library, c.path, p.path)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		c.t.Fatal(err)
	}
	p.path = script
	return p
}

// jump sets the clock to an offset from the machine's, such as +10y.
func (c *jumpingClock) jump(offset string) {
	c.t.Helper()
	next := c.path + ".next"
	if err := os.WriteFile(next, []byte(offset+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(next, c.path); err != nil {
		c.t.Fatal(err)
	}
}

// The wall clock jumps by years, forward and back, at the leader and at a follower: no lease
// expires early or late, no leadership or token is lost, and no acknowledged write is lost.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	clocks := []*jumpingClock{newJumpingClock(t), newJumpingClock(t)}
	c := newCluster(t, 3, cheap)
	c.start(clocks[0].run(ours()), clocks[1].run(ours()), ours())
	c.lead(c.members[0])
	h := c.load(2, 2)
	h.await(50)
	long, err := c.members[2].client3().Grant(ctx(t), 300)
	must(t, "grant", err)
	must(t, "put", second(c.members[2].client3().Put(ctx(t), "long", "", clientv3.WithLease(long.ID))))
	term := c.members[0].status().RaftTerm
	for _, offset := range []string{"+1h", "+10y", "-1h", "-10y", "+0"} {
		begin := time.Now()
		short, err := c.members[2].client3().Grant(ctx(t), 2)
		must(t, "grant", err)
		for _, clock := range clocks {
			clock.jump(offset)
		}
		h.await(50)
		eventually(t, "the short lease to end at "+offset, func() bool {
			left, err := c.members[1].client3().TimeToLive(ctx(t), short.ID)
			return err == nil && left.TTL == -1
		})
		if took := time.Since(begin); took < 2*time.Second {
			t.Errorf("at %s a lease of 2s ended after %v", offset, took)
		}
		for _, m := range c.members {
			left, err := m.client3().TimeToLive(ctx(t), long.ID)
			if err != nil || left.TTL < 100 {
				t.Errorf("at %s %s says of a lease of 300s: %+v, %v", offset, m, left, err)
			}
		}
	}
	if s := c.members[0].status(); s == nil || s.RaftTerm != term || s.Leader != s.Header.MemberId {
		t.Logf("leadership moved: term %d, then %+v", term, s)
	}
	h.finish()
}
