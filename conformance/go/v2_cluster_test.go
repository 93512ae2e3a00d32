package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// v2LagMax is how far the load may be ahead of its watches, in indexes: members keep 1000 events.
const v2LagMax = 400

// v2Load is a load of API v2 on a cluster and its results, as clusterLoad is one of API v3.
type v2Load struct {
	c      *cluster
	dir    string
	ending atomic.Bool
	wg     sync.WaitGroup

	mu       sync.Mutex
	acked    map[string]v2Write
	failed   map[string]int
	highest  uint64
	lastAck  time.Time
	watchers []*v2Follower
}

// v2Write is one acknowledged write.
type v2Write struct {
	value string
	index uint64
}

// loadV2 starts writers that use all running members in turn. Some of what they write expires.
func (c *cluster) loadV2(writers int) *v2Load {
	h := &v2Load{c: c, acked: map[string]v2Write{}, failed: map[string]int{}}
	h.dir = fmt.Sprintf("/load/%08x", rand.Uint32())
	for w := range writers {
		h.wg.Go(func() {
			for i := 0; !h.ending.Load(); i++ {
				if h.isAhead() {
					time.Sleep(5 * time.Millisecond)
					continue
				}
				h.put(w, i)
				time.Sleep(loadPause)
			}
		})
	}
	c.t.Cleanup(h.stop)
	return h
}

func (h *v2Load) stop() {
	h.ending.Store(true)
	h.wg.Wait()
}

func (h *v2Load) isAhead() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.watchers {
		if f.next.Load()+v2LagMax < h.highest {
			return true
		}
	}
	return false
}

// put writes a key of its own, in one of the ways that there are.
func (h *v2Load) put(writer, number int) {
	running := h.c.running()
	m := running[rand.IntN(len(running))]
	value := fmt.Sprintf("%d-%0*d", rand.Uint64(), rand.IntN(100), 0)
	key := fmt.Sprintf("%s/%d/%06d", h.dir, writer, number)
	form := "value=" + value
	request := v2Put(key, form+"&prevExist=false")
	switch number % 8 {
	case 0:
		request = v2Post(fmt.Sprintf("%s/queue-%d", h.dir, writer), form)
	case 1:
		request = v2Put(fmt.Sprintf("%s/_hidden/%d-%d", h.dir, writer, number), form)
	case 2:
		request = v2Put(key, form+"&ttl="+fmt.Sprint(longTTL))
	case 3:
		request = v2Put(fmt.Sprintf("%s/short/%d-%d", h.dir, writer, number), form+"&ttl=1")
	case 4: // no UTF-8, which etcd has in its log as it was sent
		request = v2Put(key, form+"%FF")
		value += "\ufffd"
	}
	c, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	response, err := m.sendV2(c, request)
	if err != nil {
		h.fail("no answer")
		return
	}
	reply, err := readReply(response)
	if err != nil || reply.status != http.StatusCreated {
		h.fail(strings.TrimSpace(fmt.Sprint(reply.status, " ", reply.body)))
		return
	}
	node := reply.event(h.c.t).Node
	if node == nil || node.Value == nil || *node.Value != value {
		h.c.t.Errorf("%s: %v was answered with %s", m, request, reply.body)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked[node.Key] = v2Write{value, node.ModifiedIndex}
	h.highest = max(h.highest, node.ModifiedIndex)
	h.lastAck = time.Now()
}

func (h *v2Load) fail(text string) {
	text = regexp.MustCompile(`"index":[0-9]+`).ReplaceAllString(text, "")
	h.mu.Lock()
	h.failed[text]++
	h.mu.Unlock()
	time.Sleep(5 * time.Millisecond)
}

func (h *v2Load) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.acked)
}

// await waits for n more acknowledged writes.
func (h *v2Load) await(n int) {
	h.c.t.Helper()
	start := h.count()
	eventually(h.c.t, fmt.Sprintf("%d more writes of API v2", n), func() bool { return h.count() >= start+n })
}

// v2Follower sees all writes of a load by one watch after the other, each from the index that
// follows the last event, at whatever member runs.
type v2Follower struct {
	from uint64
	next atomic.Uint64

	mu    sync.Mutex
	seen  map[string]v2Write
	polls int
	err   error
}

// follow watches a load from now on.
func (h *v2Load) follow() *v2Follower {
	f := &v2Follower{seen: map[string]v2Write{}}
	reply := h.c.running()[0].mustV2(v2Get("/?quorum=true"))
	f.from = reply.index() + 1
	f.next.Store(f.from)
	h.mu.Lock()
	h.watchers = append(h.watchers, f)
	h.mu.Unlock()
	run, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for run.Err() == nil {
			running := h.c.running()
			if err := f.poll(run, running[rand.IntN(len(running))], h.dir); err != nil {
				f.mu.Lock()
				f.err = err
				f.mu.Unlock()
				return
			}
		}
	})
	h.c.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return f
}

// poll waits for one event; only an answer that none of the members should give is an error.
func (f *v2Follower) poll(run context.Context, m *member, dir string) error {
	c, cancel := context.WithTimeout(run, 2*time.Second)
	defer cancel()
	next := f.next.Load()
	// Hidden nodes are seen only by who names them, so that the watch is on all that is not.
	response, err := m.sendV2(c, v2Get(fmt.Sprintf("%s?wait=true&recursive=true&waitIndex=%d", dir, next)))
	if err != nil {
		time.Sleep(5 * time.Millisecond)
		return nil
	}
	reply, err := readReply(response)
	if err != nil || reply.body == "" {
		return nil // the member has ended
	}
	if reply.status != http.StatusOK {
		return fmt.Errorf("%s: watch from %d: %d %s", m, next, reply.status, reply.body)
	}
	event := reply.event(m.t)
	if event.Node.ModifiedIndex < next {
		return fmt.Errorf("%s: watch from %d: %s", m, next, reply.body)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls++
	if event.Action != "expire" {
		f.seen[event.Node.Key] = v2Write{*event.Node.Value, event.Node.ModifiedIndex}
	}
	f.next.Store(event.Node.ModifiedIndex + 1)
	return nil
}

// finish stops the load, and compares every running member and every watch with what was
// acknowledged.
func (h *v2Load) finish() {
	h.c.t.Helper()
	h.stop()
	h.expired()
	h.c.sameTree()
	for _, m := range h.c.running() {
		h.check(m)
	}
	for _, f := range h.watchers {
		h.checkFollower(f)
	}
	h.c.t.Logf("%d writes of API v2 acknowledged; errors: %v", len(h.acked), h.failed)
}

// expired waits until what is short-lived is gone everywhere.
func (h *v2Load) expired() {
	h.c.t.Helper()
	for _, m := range h.c.running() {
		eventually(h.c.t, "the end of short-lived nodes on "+m.String(), func() bool {
			reply, err := m.askV2(v2Get(h.dir + "/short"))
			return err == nil && (reply.status == http.StatusNotFound ||
				reply.status == http.StatusOK && len(reply.event(h.c.t).Node.Nodes) == 0)
		})
	}
}

func isShort(key string) bool  { return strings.Contains(key, "/short/") }
func isHidden(key string) bool { return strings.Contains(key, "/_") }

func (h *v2Load) check(m *member) {
	h.c.t.Helper()
	held := map[string]v2Write{}
	for _, path := range []string{h.dir, h.dir + "/_hidden"} {
		collect(m.mustV2(v2Get(path+"?recursive=true")).event(h.c.t).Node, held)
	}
	lost := 0
	for key, want := range h.acked {
		if got := held[key]; !isShort(key) && got != want {
			if lost++; lost < 5 {
				h.c.t.Errorf("%s: %s was acknowledged as %v, found %v", m, key, want, got)
			}
		}
	}
}

// collect adds the files of a tree to a map.
func collect(n *v2Node, files map[string]v2Write) {
	if n.Value != nil {
		files[n.Key] = v2Write{*n.Value, n.ModifiedIndex}
	}
	for _, child := range n.Nodes {
		collect(child, files)
	}
}

func (h *v2Load) checkFollower(f *v2Follower) {
	h.c.t.Helper()
	var last uint64
	for key, write := range h.acked {
		if !isHidden(key) {
			last = max(last, write.index)
		}
	}
	eventually(h.c.t, "a watch to reach the last write", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.err != nil || f.next.Load() > last
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		h.c.t.Fatal(f.err)
	}
	missed := 0
	for key, want := range h.acked {
		if got := f.seen[key]; !isHidden(key) && want.index >= f.from && got != want {
			if missed++; missed < 5 {
				h.c.t.Errorf("%s was written as %v, a watch saw %v", key, want, got)
			}
		}
	}
	h.c.t.Logf("%d events by one watch after the other", f.polls)
}

// v2Tree is everything below some nodes of a member, with its index, as text.
func (m *member) v2Tree(paths ...string) string {
	text := ""
	for _, path := range paths {
		reply, err := m.askV2(v2Get(path + "?recursive=true&sorted=true"))
		if err != nil {
			return err.Error()
		}
		text += fmt.Sprintf("%s: index %d\n%s\n", path, reply.index(), strings.ReplaceAll(reply.body, `},{`, "}\n{"))
	}
	// A member of etcd escapes what is no UTF-8 until it starts on a snapshot, in which it no longer is.
	text = strings.ReplaceAll(text, `\ufffd`, "\ufffd")
	// What is left of a life depends on when it is asked for.
	return v2TTL.ReplaceAllString(text, `"ttl":N`)
}

// sameTree waits until all running members have the same tree at the same index, node by node.
func (c *cluster) sameTree() string {
	c.t.Helper()
	paths := []string{"/"}
	members := c.running()
	load := members[0].mustV2(v2Get("/?recursive=true")).event(c.t)
	for _, child := range load.Node.Nodes {
		if child.Key != "/load" {
			continue
		}
		for _, dir := range child.Nodes {
			paths = append(paths, dir.Key+"/_hidden")
		}
	}
	var trees []string
	isSame := func() bool {
		trees = trees[:0]
		for _, m := range members {
			trees = append(trees, m.v2Tree(paths...))
		}
		for _, tree := range trees {
			if tree != trees[0] {
				return false
			}
		}
		return true
	}
	for deadline := time.Now().Add(10 * time.Second); !isSame(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			for i := range trees {
				if trees[i] != trees[0] {
					a, b := firstDifference(trees[0], trees[i])
					c.t.Fatalf("the trees differ:\n%s: %s\n%s: %s", members[0], a, members[i], b)
				}
			}
		}
	}
	return trees[0]
}

// firstDifference returns the first lines in which two texts differ.
func firstDifference(a, b string) (string, string) {
	left, right := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(left), len(right)) {
		if left[i] != right[i] {
			return left[i], right[i]
		}
	}
	return fmt.Sprint(len(left), " lines"), fmt.Sprint(len(right), " lines")
}

// Leaders of a cluster of ours are killed under a load of API v2: nothing acknowledged is lost, and
// watches that go on by index at any member miss nothing.
func TestV2LeaderKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "--snapshot-count=300", cheap)
	c.keep(50)
	c.start(ours(), ours(), ours())
	h := c.loadV2(4)
	h.follow()
	h.follow()
	for range 4 {
		h.await(150)
		leader := c.leader()
		leader.kill()
		h.await(150)
		leader.start(ours())
	}
	h.finish()
}

// Clusters of ours and of older lines carry writes of API v2 at every member: each leads, one of
// each kind is killed and gets a snapshot of what it has missed. The trees are the same.
func TestV2MixedClusters(t *testing.T) {
	for name, programs := range map[string][]program{
		"ours+ours+3.4": {ours(), ours(), withV2(line(t, "3.4"))},
		"ours+3.4+3.5":  {ours(), withV2(line(t, "3.4")), withV2(line(t, "3.5"))},
		"ours+ours+3.5": {ours(), ours(), withV2(line(t, "3.5"))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, "--snapshot-count=200", cheap)
			c.keep(50)
			c.start(programs...)
			for i, m := range c.members {
				c.lead(m)
				h := c.loadV2(3)
				h.follow()
				h.await(100)
				// The next one misses more than this leader keeps, if it can be told how much.
				next := c.members[(i+1)%len(c.members)]
				next.kill()
				h.await(500)
				next.start(programs[(i+1)%len(c.members)])
				h.await(50)
				h.finish()
				if next.program == ours() && m.program.catchup != "" && !next.logged("received and saved database snapshot") {
					t.Errorf("%s got no snapshot of %s", next, m)
				}
			}
		})
	}
}

// A member that does not know API v2 would end at the first write of it: there is none, and the
// answer names that member, until its program is replaced.
func TestV2WaitsForEveryMember(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, cheap)
	c.start(ours(), ours(), real())
	stranger := c.members[2]
	id := fmt.Sprintf("member %x", stranger.status().Header.MemberId)
	refused := func(text string) {
		t.Helper()
		for _, m := range c.members[:2] {
			for _, r := range []v2Request{v2Put("/a", "value=1"), v2Post("/q", ""), v2Delete("/a"), v2Get("/a?quorum=true")} {
				reply, err := m.askV2(r)
				if err != nil || reply.status != http.StatusInternalServerError || !strings.Contains(reply.body, id+text) {
					t.Errorf("%s: %v: %v, %d %s; want %s%s", m, r, err, reply.status, reply.body, id, text)
				}
			}
			if reply, err := m.askV2(v2Get("/a")); err != nil || reply.status != http.StatusNotFound {
				t.Errorf("%s: a read: %v, %v", m, err, reply)
			}
		}
	}
	refused(" runs etcd 3.7.1")
	stranger.stop()
	// It stays known as what it was, or is nobody who can be asked.
	c.leader()
	for _, m := range c.members[:2] {
		reply, err := m.askV2(v2Put("/a", "value=1"))
		if err != nil || reply.status != http.StatusInternalServerError || !strings.Contains(reply.body, id) {
			t.Errorf("%s: %v, %v", m, err, reply)
		}
	}
	stranger.start(real())
	stranger.mustRun()
	must(t, "put", second(stranger.client3().Put(ctx(t), "a", "b")))
	stranger.stop()
	stranger.start(ours())
	for i, m := range c.members {
		m.mustV2(v2Put(fmt.Sprintf("/a/%d", i), "value=1"))
	}
	c.sameTree()
}
