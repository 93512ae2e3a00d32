package conformance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
)

const requestsPerSeed = 500

// The server under test answers a random script as etcd 3.7.1 does: every
// response field, every error code and text, every event, and the final hash.
func TestSameAnswersAsReference(t *testing.T) {
	seeds := uint64(6)
	if n, err := strconv.ParseUint(os.Getenv("CONFORMANCE_SEEDS"), 10, 32); err == nil {
		seeds = n
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			compareServers(t, seed, real(), true)
		})
	}
}

// The same against an older line, for what both support.
func TestSameAnswersAsOlderLine(t *testing.T) {
	if _, err := os.Stat(debianBin); err != nil {
		t.Skipf("no older etcd on this machine: %v", err)
	}
	for seed := uint64(101); seed <= 102; seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			compareServers(t, seed, program{name: "debian", path: debianBin}, false)
		})
	}
}

// side is one of the two servers of a comparison.
type side struct {
	t     testing.TB
	m     *member
	conn  *grpc.ClientConn
	watch []*watcher
}

// answer is a response with everything that may differ normalized.
type answer struct {
	Msg proto.Message
	Err string
}

func compareServers(t *testing.T, seed uint64, reference program, modern bool) {
	sides := []*side{{t: t, m: startMember(t, ours())}, {t: t, m: startMember(t, reference)}}
	for _, s := range sides {
		s.conn = s.m.conn()
		s.openWatches()
	}
	draw := newScript(seed, modern)
	differences := 0
	for i := range requestsPerSeed {
		request := draw.next()
		if _, ok := request.(*pb.CompactionRequest); ok {
			// Previous values and events below the compacted revision are racy for lagging
			// watchers; from here on no watcher lags.
			syncWatches(t, sides, draw)
		}
		if _, ok := request.(history); ok {
			clearAlarm(t, sides)
			draw.rev = syncSentinels(t, sides)
		}
		answers := both(sides, func(s *side) answer { return s.do(request, draw.rev) })
		if alarm, ok := answers[0].Msg.(*pb.AlarmResponse); ok && !modern {
			alarm.Header = nil // the older line sends none
		}
		if diff := difference(answers[1], answers[0]); diff != "" {
			t.Errorf("request %d: %T %v\n(-reference +ours)\n%s", i, request, request, diff)
			if differences++; differences >= 5 {
				t.Fatal("too many differences")
			}
		}
		draw.learn(request, answers[1])
	}
	syncWatches(t, sides, draw)
	for w := range sides[0].watch {
		if diff := difference(answer{Msg: sides[1].watch[w].events}, answer{Msg: sides[0].watch[w].events}); diff != "" {
			t.Errorf("watch %v (-reference +ours)\n%s", sides[0].watch[w].request, diff)
		}
	}
	hashes := both(sides, func(s *side) answer { return s.do(&pb.HashKVRequest{}, 0) })
	if diff := difference(hashes[1], hashes[0]); diff != "" && modern {
		t.Errorf("HashKV at the end (-reference +ours)\n%s", diff)
	}
}

// difference is empty for equal answers. Equality is checked before formatting, because a readable
// diff of large answers takes minutes.
func difference(want, got answer) string {
	if want.Err == got.Err && proto.Equal(want.Msg, got.Msg) {
		return ""
	}
	diff := gocmp.Diff(want, got, protocmp.Transform())
	return diff[:min(len(diff), 3000)]
}

// both queries the two servers concurrently.
func both[T any](sides []*side, ask func(*side) T) []T {
	got := make([]T, len(sides))
	var wg sync.WaitGroup
	for i, s := range sides {
		wg.Add(1)
		go func() {
			defer wg.Done()
			got[i] = ask(s)
		}()
	}
	wg.Wait()
	return got
}

// learn records the revisions around which later requests are drawn.
func (s *script) learn(request any, a answer) {
	if a.Msg == nil {
		return
	}
	if h, ok := a.Msg.(interface{ GetHeader() *pb.ResponseHeader }); ok && h.GetHeader() != nil {
		s.rev = max(s.rev, h.GetHeader().Revision)
	}
	if c, ok := request.(*pb.CompactionRequest); ok {
		s.compacted, s.settled = c.Revision, c.Physical
	}
}

// do sends one request and normalizes its answer.
func (s *side) do(request any, rev int64) answer {
	c, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	msg, err := s.call(c, request, rev)
	if err != nil {
		st := status.Convert(err)
		return answer{Err: fmt.Sprintf("%v: %s", st.Code(), st.Message())}
	}
	normalize(request, msg)
	shorten(msg.ProtoReflect())
	return answer{Msg: msg}
}

func (s *side) call(c context.Context, request any, rev int64) (proto.Message, error) {
	kv, lease, maint := pb.NewKVClient(s.conn), pb.NewLeaseClient(s.conn), pb.NewMaintenanceClient(s.conn)
	switch r := request.(type) {
	case *pb.RangeRequest:
		return kv.Range(c, r)
	case *pb.PutRequest:
		return kv.Put(c, r)
	case *pb.DeleteRangeRequest:
		return kv.DeleteRange(c, r)
	case *pb.TxnRequest:
		return kv.Txn(c, r)
	case *pb.CompactionRequest:
		return kv.Compact(c, r)
	case *pb.LeaseGrantRequest:
		return lease.LeaseGrant(c, r)
	case *pb.LeaseRevokeRequest:
		return lease.LeaseRevoke(c, r)
	case *pb.LeaseTimeToLiveRequest:
		return lease.LeaseTimeToLive(c, r)
	case *pb.LeaseLeasesRequest:
		return lease.LeaseLeases(c, r)
	case *pb.HashKVRequest:
		return maint.HashKV(c, r)
	case *pb.AlarmRequest:
		return maint.Alarm(c, r)
	case rangeStream:
		return readRangeStream(c, kv, r.RangeRequest)
	case history:
		return s.readHistory(c, r.WatchCreateRequest, rev)
	}
	return nil, fmt.Errorf("no such request: %T", request)
}

// readRangeStream joins the chunks of a RangeStream.
func readRangeStream(c context.Context, kv pb.KVClient, r *pb.RangeRequest) (proto.Message, error) {
	stream, err := kv.RangeStream(c, r)
	if err != nil {
		return nil, err
	}
	whole := &pb.RangeResponse{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return nil, err
		}
		proto.Merge(whole, chunk.RangeResponse)
	}
}

// readHistory reads a watch from its start up to the sentinels at rev.
func (s *side) readHistory(c context.Context, r *pb.WatchCreateRequest, rev int64) (proto.Message, error) {
	w, err := openWatch(c, s.conn, r)
	if err != nil {
		return nil, err
	}
	return w.readTo(rev)
}

// normalize removes permitted differences between two clusters: ids and terms (their presence is
// compared), remaining seconds, and unspecified order.
func normalize(request any, msg proto.Message) {
	if h, ok := msg.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		normalizeHeader(h.GetHeader())
	}
	switch m := msg.(type) {
	case *pb.RangeResponse:
		r, ok := request.(*pb.RangeRequest)
		if !ok {
			r = request.(rangeStream).RangeRequest
		}
		normalizeRange(r, m)
	case *pb.TxnResponse:
		normalizeTxn(request.(*pb.TxnRequest), m)
	case *pb.LeaseTimeToLiveResponse:
		if m.TTL > 0 {
			m.TTL = 1
		}
		slices.SortFunc(m.Keys, bytes.Compare)
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(m.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	}
}

// shorten replaces every huge byte string by a checksum.
func shorten(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() != nil && f.IsList():
			for i := range v.List().Len() {
				shorten(v.List().Get(i).Message())
			}
		case f.Message() != nil:
			shorten(v.Message())
		case f.Kind() == protoreflect.BytesKind && !f.IsList() && len(v.Bytes()) > 1000:
			m.Set(f, protoreflect.ValueOfBytes(fmt.Appendf(nil, "%d bytes, %x", len(v.Bytes()), crc32.ChecksumIEEE(v.Bytes()))))
		}
		return true
	})
}

func normalizeHeader(h *pb.ResponseHeader) {
	if h == nil {
		return
	}
	if h.ClusterId != 0 {
		h.ClusterId = 1
	}
	if h.MemberId != 0 {
		h.MemberId = 1
	}
	if h.RaftTerm != 0 {
		h.RaftTerm = 1
	}
}

func normalizeTxn(r *pb.TxnRequest, m *pb.TxnResponse) {
	ops := r.Failure
	if m.Succeeded {
		ops = r.Success
	}
	for i, resp := range m.Responses {
		if sub := resp.GetResponseRange(); sub != nil {
			normalizeRange(ops[i].GetRequestRange(), sub)
		}
		if sub := resp.GetResponseTxn(); sub != nil {
			normalizeTxn(ops[i].GetRequestTxn(), sub)
		}
	}
}

// normalizeRange sorts keys with the same sort value, whose order is unspecified; with a limit even
// the selection among them is, so only the sort values are compared there. etcd 3.7 omits leases
// together with values.
func normalizeRange(r *pb.RangeRequest, m *pb.RangeResponse) {
	if r.KeysOnly {
		for _, kv := range m.Kvs {
			kv.Lease = 0
		}
	}
	if r.SortTarget == pb.RangeRequest_KEY || len(m.Kvs) == 0 {
		return
	}
	same := func(a, b *mvccpb.KeyValue) bool {
		switch r.SortTarget {
		case pb.RangeRequest_VERSION:
			return a.Version == b.Version
		case pb.RangeRequest_CREATE:
			return a.CreateRevision == b.CreateRevision
		case pb.RangeRequest_MOD:
			return a.ModRevision == b.ModRevision
		}
		// keys_only removes the values that determined the order.
		return r.KeysOnly || bytes.Equal(a.Value, b.Value)
	}
	for from := 0; from < len(m.Kvs); {
		to := from + 1
		for to < len(m.Kvs) && same(m.Kvs[from], m.Kvs[to]) {
			to++
		}
		slices.SortFunc(m.Kvs[from:to], func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
		// The last run before the limit may contain other keys than the other server chose.
		if m.More && to == len(m.Kvs) {
			for i := from; i < to; i++ {
				m.Kvs[i] = sortValueOnly(r.SortTarget, m.Kvs[i])
			}
		}
		from = to
	}
}

func sortValueOnly(target pb.RangeRequest_SortTarget, kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	switch target {
	case pb.RangeRequest_VERSION:
		return &mvccpb.KeyValue{Version: kv.Version}
	case pb.RangeRequest_CREATE:
		return &mvccpb.KeyValue{CreateRevision: kv.CreateRevision}
	case pb.RangeRequest_MOD:
		return &mvccpb.KeyValue{ModRevision: kv.ModRevision}
	}
	return &mvccpb.KeyValue{Value: kv.Value}
}

// sentinel is in every interval that the comparison watches.
var sentinel = []byte("d/~sentinel")

// syncSentinels puts and deletes the sentinel, so that every watcher, whatever it filters, has an
// event to wait for. It returns the revision of the put.
func syncSentinels(t testing.TB, sides []*side) int64 {
	t.Helper()
	revs := both(sides, func(s *side) int64 {
		kv := pb.NewKVClient(s.conn)
		if _, err := kv.Put(ctx(t), &pb.PutRequest{Key: sentinel}); err != nil {
			t.Errorf("%s: sentinel: %v", s.m.program.name, err)
			return 0
		}
		r, err := kv.DeleteRange(ctx(t), &pb.DeleteRangeRequest{Key: sentinel})
		if err != nil {
			t.Errorf("%s: sentinel: %v", s.m.program.name, err)
			return 0
		}
		return r.Header.Revision
	})
	if revs[0] != revs[1] || revs[0] == 0 {
		t.Fatalf("revision: ours %d, reference %d", revs[0], revs[1])
	}
	return revs[0]
}

// clearAlarm clears alarms so that the sentinel can be put.
func clearAlarm(t testing.TB, sides []*side) {
	both(sides, func(s *side) error {
		_, err := pb.NewMaintenanceClient(s.conn).Alarm(ctx(t), &pb.AlarmRequest{
			Action: pb.AlarmRequest_DEACTIVATE, MemberID: 7, Alarm: pb.AlarmType_NOSPACE})
		return err
	})
}

// syncWatches waits until every watch of both servers has all events so far.
func syncWatches(t testing.TB, sides []*side, draw *script) {
	t.Helper()
	clearAlarm(t, sides)
	draw.rev = syncSentinels(t, sides)
	for _, s := range sides {
		for _, w := range s.watch {
			if _, err := w.readTo(draw.rev); err != nil {
				t.Fatalf("%s: watch %v: %v", s.m.program.name, w.request, err)
			}
		}
	}
}

// openWatches opens the watches that last for the whole script.
func (s *side) openWatches() {
	all := func() *pb.WatchCreateRequest {
		return &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	}
	prev, puts, deletes, future := all(), all(), all(), all()
	prev.PrevKv = true
	puts.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	deletes.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
	deletes.PrevKv = true
	future.StartRevision = 40
	prefix := &pb.WatchCreateRequest{Key: []byte("d/"), RangeEnd: []byte("d0"), WatchId: 5, Fragment: true}
	for _, r := range []*pb.WatchCreateRequest{all(), prev, puts, deletes, future, prefix} {
		c, cancel := context.WithCancel(context.Background())
		s.t.Cleanup(cancel)
		w, err := openWatch(c, s.conn, r)
		if err != nil {
			s.t.Fatal(err)
		}
		s.watch = append(s.watch, w)
	}
}

// watcher is one watch on its own stream. How events are batched into responses is up to the
// server, their sequence is not.
type watcher struct {
	request *pb.WatchCreateRequest
	stream  pb.Watch_WatchClient
	created bool
	events  *pb.WatchResponse
}

func openWatch(c context.Context, conn *grpc.ClientConn, r *pb.WatchCreateRequest) (*watcher, error) {
	stream, err := pb.NewWatchClient(conn).Watch(c)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
	if err != nil {
		return nil, err
	}
	w := &watcher{request: r, stream: stream, events: &pb.WatchResponse{}}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if !first.Created || len(first.Events) != 0 {
		return nil, fmt.Errorf("first response of a watch: %v", first)
	}
	normalizeHeader(first.Header)
	proto.Merge(w.events, first)
	return w, nil
}

// readTo reads until the events of a pair of sentinels have arrived (rev is the delete, rev-1 the
// put), or the server cancels the watch.
func (w *watcher) readTo(rev int64) (*pb.WatchResponse, error) {
	if slices.Contains(w.request.Filters, pb.WatchCreateRequest_NODELETE) {
		rev--
	}
	for !w.events.Canceled && w.request.StartRevision <= rev {
		if n := len(w.events.Events); n > 0 && w.events.Events[n-1].Kv.ModRevision >= rev {
			break
		}
		r, err := w.stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("%d events, waiting for revision %d: %w", len(w.events.Events), rev, err)
		}
		shorten(r.ProtoReflect())
		w.events.Events = append(w.events.Events, r.Events...)
		w.events.Canceled, w.events.CancelReason = r.Canceled, r.CancelReason
		w.events.CompactRevision = r.CompactRevision
	}
	return w.events, nil
}
