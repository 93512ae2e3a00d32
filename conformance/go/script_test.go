package conformance

import (
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// script draws requests from a seed. It depends only on the seed and the revisions in the answers,
// so that a seed determines the script.
type script struct {
	rng *rand.Rand
	// rev and compacted are the newest and the compacted revision, as far as known.
	rev, compacted int64
	// settled reports whether the last compaction has been waited for. Until a compaction is
	// complete, the hash at its revision depends on its progress.
	settled bool
	// modern allows what only 3.7 supports or answers alike.
	modern bool
}

func newScript(seed uint64, modern bool) *script {
	return &script{rng: rand.New(rand.NewPCG(seed, 7)), rev: 1, modern: modern}
}

func (s *script) one(in int) bool { return s.rng.IntN(in) == 0 }

func pick[T any](s *script, from ...T) T { return from[s.rng.IntN(len(from))] }

// key draws from few keys, so that requests interact; some are odd on purpose.
func (s *script) key() []byte {
	switch s.rng.IntN(40) {
	case 0:
		return []byte{0}
	case 1:
		return []byte{0xff}
	case 2:
		return []byte{0xff, 0xfe, 0x80}
	case 3:
		return nil
	}
	return fmt.Appendf(nil, "%c/%d", 'a'+rune(s.rng.IntN(4)), s.rng.IntN(6))
}

// interval draws a key and every form of range end.
func (s *script) interval() (key, end []byte) {
	switch s.rng.IntN(8) {
	case 0, 1, 2:
		return s.key(), nil
	case 3:
		return s.key(), []byte{0}
	case 4:
		return []byte{0}, []byte{0}
	case 5:
		prefix := byte('a' + s.rng.IntN(4))
		return []byte{prefix}, []byte{prefix + 1}
	case 6: // often empty or reversed
		return s.key(), s.key()
	default:
		return []byte("a"), []byte("z")
	}
}

func (s *script) value() []byte {
	if s.one(10) {
		return nil
	}
	return fmt.Appendf(nil, "value-%d", s.rng.IntN(5))
}

// lease draws from few ids; zero is none.
func (s *script) lease() int64 {
	if !s.one(4) {
		return 0
	}
	return pick[int64](s, 11, 12, 13, 14, 99, -5)
}

// revision draws near the relevant boundaries.
func (s *script) revision() int64 {
	switch s.rng.IntN(8) {
	case 0:
		return s.rev
	case 1:
		return s.rev + 1
	case 2:
		return s.compacted
	case 3:
		return s.compacted - 1
	case 4:
		return -3
	default:
		return s.compacted + s.rng.Int64N(max(1, s.rev-s.compacted))
	}
}

func (s *script) rangeRequest() *pb.RangeRequest {
	key, end := s.interval()
	r := &pb.RangeRequest{Key: key, RangeEnd: end, Serializable: s.one(3), CountOnly: s.one(10)}
	if s.one(3) {
		r.Limit = pick[int64](s, 1, 2, 3, 7, 100, -1)
	}
	if s.one(3) {
		r.Revision = s.revision()
	}
	if s.one(3) {
		r.SortOrder = pb.RangeRequest_SortOrder(s.rng.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(s.rng.IntN(5))
	}
	if s.modern {
		r.KeysOnly = s.one(5)
		if s.one(50) {
			r.SortTarget = 9
		}
		if s.one(50) {
			r.SortOrder = 7
		}
	}
	bound := func() int64 {
		if !s.one(8) {
			return 0
		}
		return s.rng.Int64N(s.rev+2) - 1
	}
	r.MinModRevision, r.MaxModRevision = bound(), bound()
	r.MinCreateRevision, r.MaxCreateRevision = bound(), bound()
	return r
}

func (s *script) putRequest() *pb.PutRequest {
	r := &pb.PutRequest{Key: s.key(), Value: s.value(), Lease: s.lease(), PrevKv: s.one(3)}
	if s.one(10) {
		r.IgnoreValue = true
		if !s.one(5) {
			r.Value = nil
		}
	}
	if s.one(10) {
		r.IgnoreLease = true
		if !s.one(5) {
			r.Lease = 0
		}
	}
	return r
}

func (s *script) deleteRequest() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: s.key(), PrevKv: s.one(2)}
	if s.one(4) {
		r.Key, r.RangeEnd = s.interval()
	}
	return r
}

func (s *script) compare() *pb.Compare {
	c := &pb.Compare{Key: s.key(), Result: pb.Compare_CompareResult(s.rng.IntN(4))}
	if s.one(4) {
		c.Key, c.RangeEnd = s.interval()
	}
	n := pick[int64](s, 0, 1, 2, s.rev, s.rev/2)
	switch s.rng.IntN(6) {
	case 0:
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: n}
	case 1:
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: n}
	case 2:
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: n}
	case 3:
		c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: s.value()}
	case 4:
		c.Target, c.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: s.lease()}
	case 5: // a target without its operand
		c.Target = pb.Compare_CompareTarget(s.rng.IntN(5))
	}
	return c
}

func (s *script) txnRequest(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range s.rng.IntN(3) {
		t.Compare = append(t.Compare, s.compare())
	}
	branch := func() (ops []*pb.RequestOp) {
		for range s.rng.IntN(4) {
			ops = append(ops, s.op(depth))
		}
		return ops
	}
	t.Success, t.Failure = branch(), branch()
	return t
}

func (s *script) op(depth int) *pb.RequestOp {
	switch s.rng.IntN(7) {
	case 0, 1:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: s.rangeRequest()}}
	case 2, 3, 4:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: s.putRequest()}}
	case 5:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: s.deleteRequest()}}
	}
	if depth == 0 {
		return &pb.RequestOp{}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: s.txnRequest(depth - 1)}}
}

// huge is a txn or a value at the limit of what a server accepts.
func (s *script) huge() proto.Message {
	if s.one(2) {
		return &pb.PutRequest{Key: []byte("a/0"), Value: make([]byte, pick(s, 1572864, 1572864-100))}
	}
	t := &pb.TxnRequest{}
	for i := range pick(s, 128, 129) {
		t.Success = append(t.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "d/%d", i)}}})
	}
	return t
}

// rangeStream is a Range sent as a RangeStream.
type rangeStream struct{ *pb.RangeRequest }

// history requests the events of an interval since a revision.
type history struct{ *pb.WatchCreateRequest }

func (s *script) history() history {
	w := &pb.WatchCreateRequest{StartRevision: s.revision(), PrevKv: s.one(2), Fragment: s.one(3)}
	// Zero would mean now, which is after the expected events.
	if w.StartRevision == 0 {
		w.StartRevision = max(1, s.compacted)
	}
	// The older line answers a negative one differently, and omits a deletion at the compacted
	// revision itself.
	if !s.modern && w.StartRevision <= s.compacted && w.StartRevision != s.compacted-1 {
		w.StartRevision = s.compacted + 1
	}
	w.Key, w.RangeEnd = []byte("a"), []byte("e")
	if s.one(3) {
		w.Key, w.RangeEnd = []byte{0}, []byte{0}
	}
	switch s.rng.IntN(4) {
	case 0:
		w.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
	case 1:
		w.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	}
	return history{w}
}

// next draws one request.
func (s *script) next() any {
	switch n := s.rng.IntN(100); {
	case n < 30:
		return s.rangeRequest()
	case n < 55:
		return s.putRequest()
	case n < 65:
		return s.deleteRequest()
	case n < 82:
		return s.txnRequest(2)
	case n < 85:
		return &pb.CompactionRequest{Revision: s.revision(), Physical: s.one(2)}
	case n < 90:
		ttl := pick[int64](s, 1000, 2000, 9_000_000_001)
		return &pb.LeaseGrantRequest{ID: pick[int64](s, 11, 12, 13, 14), TTL: ttl}
	case n < 92:
		return &pb.LeaseRevokeRequest{ID: pick[int64](s, 11, 12, 13, 14, 99)}
	case n < 94:
		return &pb.LeaseTimeToLiveRequest{ID: pick[int64](s, 11, 12, 13, 14, 99), Keys: s.one(2)}
	case n < 95:
		return &pb.LeaseLeasesRequest{}
	case n < 96 && s.modern:
		r := &pb.HashKVRequest{Revision: s.revision()}
		if !s.settled && r.Revision <= s.compacted {
			r.Revision = s.rev
		}
		return r
	case n < 97:
		return s.huge()
	case n < 98:
		return s.history()
	case n < 99 && s.modern:
		r := s.rangeRequest()
		// Other targets without an order are answered with repeated keys by 3.7.1.
		if r.SortTarget <= pb.RangeRequest_VALUE && r.SortOrder == pb.RangeRequest_NONE {
			r.SortTarget = pb.RangeRequest_KEY
		}
		return rangeStream{r}
	default:
		action := pick(s, pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE, pb.AlarmRequest_DEACTIVATE, pb.AlarmRequest_GET)
		return &pb.AlarmRequest{Action: action, MemberID: 7, Alarm: pb.AlarmType_NOSPACE}
	}
}
