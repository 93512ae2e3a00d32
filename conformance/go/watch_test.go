package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

// next waits for one response of a watch.
func next(t testing.TB, events clientv3.WatchChan) (clientv3.WatchResponse, error) {
	t.Helper()
	select {
	case r, ok := <-events:
		if !ok {
			return r, errors.New("the watch ended")
		}
		return r, r.Err()
	case <-time.After(callTimeout):
		return clientv3.WatchResponse{}, errors.New("nothing came")
	}
}

// read waits for n events and formats them.
func read(t testing.TB, events clientv3.WatchChan, n int) string {
	t.Helper()
	var all []string
	for len(all) < n {
		for _, e := range need(next(t, events))(t).Events {
			line := fmt.Sprintf("%v %s=%s@%d", e.Type, e.Kv.Key, e.Kv.Value, e.Kv.ModRevision)
			if e.PrevKv != nil {
				line += fmt.Sprintf("(%s)", e.PrevKv.Value)
			}
			all = append(all, line)
		}
	}
	return strings.Join(all, " ")
}

func TestWatch(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		live := c.Watch(ctx(t), "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		if r := need(next(t, live))(t); !r.Created || r.Header.Revision != 1 {
			t.Errorf("created: %+v", r)
		}
		need(c.Put(ctx(t), "a", "1"))(t)
		need(c.Put(ctx(t), "b", "2"))(t)
		need(c.Put(ctx(t), "a", "3"))(t)
		need(c.Delete(ctx(t), "", clientv3.WithPrefix()))(t)
		const all = "PUT a=1@2 PUT b=2@3 PUT a=3@4 DELETE a=@5 DELETE b=@5"
		for _, test := range []struct {
			name   string
			events clientv3.WatchChan
			want   string
		}{
			{"live", live, all},
			{"past", c.Watch(ctx(t), "", clientv3.WithPrefix(), clientv3.WithRev(1)), all},
			{"past of one key", c.Watch(ctx(t), "b", clientv3.WithRev(2)), "PUT b=2@3 DELETE b=@5"},
			{"from the middle", c.Watch(ctx(t), "a", clientv3.WithRev(4)), "PUT a=3@4 DELETE a=@5"},
			{"range", c.Watch(ctx(t), "a", clientv3.WithRange("b"), clientv3.WithRev(1)), "PUT a=1@2 PUT a=3@4 DELETE a=@5"},
			{"from key", c.Watch(ctx(t), "b", clientv3.WithFromKey(), clientv3.WithRev(1)), "PUT b=2@3 DELETE b=@5"},
			{"no puts", c.Watch(ctx(t), "", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithFilterPut()), "DELETE a=@5 DELETE b=@5"},
			{"no deletes", c.Watch(ctx(t), "", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithFilterDelete()), "PUT a=1@2 PUT b=2@3 PUT a=3@4"},
			{"previous", c.Watch(ctx(t), "a", clientv3.WithRev(1), clientv3.WithPrevKV()), "PUT a=1@2 PUT a=3@4(1) DELETE a=@5(3)"},
		} {
			if got := read(t, test.events, strings.Count(test.want, "@")); got != test.want {
				t.Errorf("%s: %s\nwant %s", test.name, got, test.want)
			}
		}

		// A start before the compacted revision is told where it may start.
		need(c.Compact(ctx(t), 4, clientv3.WithCompactPhysical()))(t)
		r, err := next(t, c.Watch(ctx(t), "a", clientv3.WithRev(2)))
		if !errors.Is(err, rpctypes.ErrCompacted) || r.CompactRevision != 4 || !r.Canceled {
			t.Errorf("compacted: %v, %+v", err, r)
		}
		if got := read(t, c.Watch(ctx(t), "a", clientv3.WithRev(4)), 2); got != "PUT a=3@4 DELETE a=@5" {
			t.Errorf("at the compacted revision: %s", got)
		}
	})
}

// A previous value is the value at the preceding revision, unless the event creates its key or that
// revision is compacted.
func TestWatchPreviousValues(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		need(c.Put(ctx(t), "k", "old"))(t)
		live := c.Watch(ctx(t), "k", clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
		need(next(t, live))(t)
		r := need(c.Txn(ctx(t)).Then(clientv3.OpDelete("k", clientv3.WithFromKey()), clientv3.OpPut("k", "new")).Commit())(t)
		rev := r.Header.Revision
		past := c.Watch(ctx(t), "k", clientv3.WithRev(rev), clientv3.WithPrevKV())
		want := fmt.Sprintf("DELETE k=@%d(old) PUT k=new@%d", rev, rev)
		for _, events := range []clientv3.WatchChan{live, past} {
			if got := read(t, events, 2); got != want {
				t.Errorf("deleted and created at once: %s, want %s", got, want)
			}
		}
		// The old row may not have been removed yet: that must not show.
		for i := range 20 {
			need(c.Put(ctx(t), "c", "old"))(t)
			rev := need(c.Put(ctx(t), "c", "new"))(t).Header.Revision
			need(c.Compact(ctx(t), rev))(t)
			events := c.Watch(ctx(t), "c", clientv3.WithRev(rev), clientv3.WithPrevKV())
			want := fmt.Sprintf("PUT c=new@%d", rev)
			if got := read(t, events, 1); got != want {
				t.Fatalf("round %d, at the compacted revision: %s, want %s", i, got, want)
			}
		}
	})
}

// One revision is one response, however many of its events a watcher sees.
func TestWatchIsAtomic(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		for round := range 2 {
			events := c.Watch(ctx(t), "t/", clientv3.WithPrefix(), clientv3.WithRev(int64(2+round)))
			var ops []clientv3.Op
			for i := range 100 {
				ops = append(ops, clientv3.OpPut(fmt.Sprintf("t/%03d", i), ""))
			}
			need(c.Txn(ctx(t)).Then(ops...).Commit())(t)
			r := need(next(t, events))(t)
			if len(r.Events) != 100 || string(r.Events[99].Kv.Key) != "t/099" {
				t.Errorf("round %d: %d events of a txn of 100", round, len(r.Events))
			}
		}
	})
}

func TestManyWatchersOnOneStream(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		const watchers = 300
		run, cancel := context.WithCancel(ctx(t))
		defer cancel()
		var all []clientv3.WatchChan
		for i := range watchers {
			// A third watch one key each, the others overlap.
			key, opts := fmt.Sprintf("w/%03d", i), []clientv3.OpOption{clientv3.WithCreatedNotify()}
			if i%3 != 0 {
				key, opts = "w/", append(opts, clientv3.WithPrefix())
			}
			all = append(all, c.Watch(run, key, opts...))
		}
		for i, w := range all {
			if r := need(next(t, w))(t); !r.Created {
				t.Fatalf("watcher %d: %+v", i, r)
			}
		}
		for i := range watchers {
			need(c.Put(ctx(t), fmt.Sprintf("w/%03d", i), "x"))(t)
		}
		for i, w := range all {
			want := 1
			if i%3 != 0 {
				want = watchers
			}
			got := strings.Split(read(t, w, want), " ")
			if last := got[len(got)-1]; len(got) != 2*want || want == watchers && !strings.HasPrefix(last, "w/299=") {
				t.Errorf("watcher %d: %d events, last %s", i, len(got)/2, last)
			}
		}
	})
}

func TestWatchProgress(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		put := need(c.Put(ctx(t), "other", ""))(t)
		events := c.Watch(ctx(t), "quiet", clientv3.WithCreatedNotify())
		need(next(t, events))(t)
		// A request that arrives before the watch is synced is ignored.
		for asked := false; !asked; {
			if err := c.RequestProgress(ctx(t)); err != nil {
				t.Fatal(err)
			}
			select {
			case r := <-events:
				if !r.IsProgressNotify() || r.Header.Revision != put.Header.Revision {
					t.Errorf("progress on demand: %+v", r)
				}
				asked = true
			case <-time.After(200 * time.Millisecond):
			}
		}
		periodic := c.Watch(ctx(t), "quiet", clientv3.WithProgressNotify())
		if r := need(next(t, periodic))(t); !r.IsProgressNotify() || r.Header.Revision != put.Header.Revision {
			t.Errorf("periodic progress: %+v", r)
		}
	}, "--watch-progress-notify-interval=300ms")
}

// What the client hides: ids, errors, cancellation and fragments.
func TestWatchStream(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		stream := need(pb.NewWatchClient(m.conn()).Watch(ctx(t)))(t)
		create := func(r *pb.WatchCreateRequest) *pb.WatchResponse {
			t.Helper()
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}); err != nil {
				t.Fatal(err)
			}
			return need(stream.Recv())(t)
		}
		k := []byte("k")
		for _, test := range []struct {
			name   string
			create *pb.WatchCreateRequest
			id     int64
			reason string
		}{
			{"own id", &pb.WatchCreateRequest{Key: k, WatchId: 1}, 1, ""},
			{"first free", &pb.WatchCreateRequest{Key: k}, 0, ""},
			{"next free", &pb.WatchCreateRequest{Key: k}, 2, ""},
			{"taken", &pb.WatchCreateRequest{Key: k, WatchId: 1}, -1, "mvcc: duplicate watch ID provided on the WatchStream"},
			{"empty range", &pb.WatchCreateRequest{Key: k, RangeEnd: []byte("a")}, -1, "mvcc: watcher range is empty"},
			{"negative start", &pb.WatchCreateRequest{Key: k, StartRevision: -1}, -1, "etcdserver: mvcc: required revision has been compacted"},
		} {
			r := create(test.create)
			if !r.Created || r.WatchId != test.id || r.Canceled != (test.reason != "") || r.CancelReason != test.reason {
				t.Errorf("%s: %v", test.name, r)
			}
		}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 2}}}); err != nil {
			t.Fatal(err)
		}
		if r := need(stream.Recv())(t); !r.Canceled || r.WatchId != 2 || r.CancelReason != "" {
			t.Errorf("cancel: %v", r)
		}
		need(m.dial().Put(ctx(t), "k", "v"))(t)
		seen := map[int64]bool{}
		for range 2 {
			seen[need(stream.Recv())(t).WatchId] = true
		}
		if !seen[0] || !seen[1] {
			t.Errorf("events for %v, want the watches 0 and 1", seen)
		}
	})
}

// A revision larger than the client's limit is sent in fragments to clients that request them. Only
// deletions with their previous values get that large.
func TestWatchFragments(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		const events = 8
		var last int64
		for i := range events {
			last = need(c.Put(ctx(t), fmt.Sprintf("big/%d", i), strings.Repeat("x", 1_000_000)))(t).Header.Revision
		}
		need(c.Delete(ctx(t), "big/", clientv3.WithPrefix()))(t)

		stream := need(pb.NewWatchClient(m.conn()).Watch(ctx(t)))(t)
		request := &pb.WatchCreateRequest{Key: []byte("big/"), RangeEnd: []byte("big0"), StartRevision: last + 1, PrevKv: true, Fragment: true}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}); err != nil {
			t.Fatal(err)
		}
		need(stream.Recv())(t)
		seen, fragments := 0, 0
		for seen < events {
			r := need(stream.Recv())(t)
			seen += len(r.Events)
			if size := proto.Size(r); size > 1572864+512*1024 {
				t.Errorf("a fragment of %d bytes", size)
			}
			if r.Fragment {
				fragments++
			}
			if r.Fragment != (seen < events) {
				t.Errorf("%d of %d events, fragment %v", seen, events, r.Fragment)
			}
		}
		if fragments == 0 {
			t.Error("8 MB in one piece")
		}
		opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(last + 1), clientv3.WithPrevKV()}
		for _, fragment := range [][]clientv3.OpOption{nil, {clientv3.WithFragment()}} {
			r := need(next(t, c.Watch(ctx(t), "big/", append(opts, fragment...)...)))(t)
			if len(r.Events) != events || len(r.Events[events-1].PrevKv.Value) != 1_000_000 {
				t.Errorf("the client sees %d of %d events", len(r.Events), events)
			}
		}
	})
}
