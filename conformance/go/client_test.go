package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
)

// onEach runs a test against the server under test and against the reference: this suite must not
// require what the reference does not do.
func onEach(t *testing.T, test func(t *testing.T, m *member), flags ...string) {
	for _, p := range []program{ours(), real()} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(t, startMember(t, p, flags...))
		})
	}
}

// need unwraps an answer without which the test cannot continue.
func need[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func keys(r *clientv3.GetResponse) string {
	var all []string
	for _, kv := range r.Kvs {
		all = append(all, string(kv.Key))
	}
	return strings.Join(all, " ")
}

func wantError(t testing.TB, what string, got, want error) {
	t.Helper()
	g, w := status.Convert(got), status.Convert(want)
	var e rpctypes.EtcdError
	if errors.As(got, &e) {
		g = status.New(e.Code(), e.Error())
	}
	if got == nil || g.Code() != w.Code() || g.Message() != w.Message() {
		t.Errorf("%s: got %v %q, want %v %q", what, g.Code(), g.Message(), w.Code(), w.Message())
	}
}

func TestGetOptions(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		// Revisions 2 to 7; b is written twice, so its version is 2.
		for _, kv := range []string{"a=5", "b=4", "c=3", "d=2", "b=1", "e=0"} {
			need(c.Put(ctx(t), kv[:1], kv[2:]))(t)
		}
		for _, test := range []struct {
			name string
			key  string
			opts []clientv3.OpOption
			want string
			// count is set where it differs from the number of keys.
			count int64
			more  bool
		}{
			{"one", "a", nil, "a", 1, false},
			{"absent", "zz", nil, "", 0, false},
			{"range", "b", []clientv3.OpOption{clientv3.WithRange("d")}, "b c", 2, false},
			{"reversed", "d", []clientv3.OpOption{clientv3.WithRange("b")}, "", 0, false},
			{"prefix", "", []clientv3.OpOption{clientv3.WithPrefix()}, "a b c d e", 5, false},
			{"from key", "c", []clientv3.OpOption{clientv3.WithFromKey()}, "c d e", 3, false},
			{"limit", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithLimit(2)}, "a b", 5, true},
			{"limit of all", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithLimit(5)}, "a b c d e", 5, false},
			{"revision", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithRev(3)}, "a b", 2, false},
			{"descending", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)}, "e d c b a", 5, false},
			{"by value", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)}, "e b d c a", 5, false},
			{"by mod", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(2)}, "e b", 5, true},
			{"by create", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend)}, "e d c b a", 5, false},
			{"by version", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend), clientv3.WithLimit(1)}, "b", 5, true},
			{"count only", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithCountOnly()}, "", 5, false},
			{"serializable", "b", []clientv3.OpOption{clientv3.WithSerializable()}, "b", 1, false},
			{"min mod", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithMinModRev(6)}, "b e", 5, false},
			{"max mod", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithMaxModRev(4)}, "a c", 5, false},
			{"min create", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithMinCreateRev(4)}, "c d e", 5, false},
			{"max create and limit", "a", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithMaxCreateRev(4), clientv3.WithLimit(2)}, "a b", 5, true},
		} {
			r := need(c.Get(ctx(t), test.key, test.opts...))(t)
			if keys(r) != test.want || r.Count != test.count || r.More != test.more {
				t.Errorf("%s: keys %q, count %d, more %v; want %q, %d, %v", test.name, keys(r), r.Count, r.More, test.want, test.count, test.more)
			}
			if r.Header.Revision != 7 || r.Header.ClusterId == 0 || r.Header.MemberId == 0 || r.Header.RaftTerm == 0 {
				t.Errorf("%s: header %v", test.name, r.Header)
			}
		}
		r := need(c.Get(ctx(t), "b", clientv3.WithKeysOnly()))(t)
		if kv := r.Kvs[0]; kv.Value != nil || kv.CreateRevision != 3 || kv.ModRevision != 6 || kv.Version != 2 {
			t.Errorf("keys only: %v", kv)
		}
	})
}

func TestPutAndDeleteOptions(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		lease := need(c.Grant(ctx(t), 1000))(t).ID
		put := need(c.Put(ctx(t), "k", "1", clientv3.WithLease(lease), clientv3.WithPrevKV()))(t)
		if put.PrevKv != nil || put.Header.Revision != 2 {
			t.Errorf("first put: %v", put)
		}
		put = need(c.Put(ctx(t), "k", "2", clientv3.WithPrevKV(), clientv3.WithIgnoreLease()))(t)
		if put.PrevKv == nil || string(put.PrevKv.Value) != "1" || put.PrevKv.Lease != int64(lease) {
			t.Errorf("second put: %v", put)
		}
		need(c.Put(ctx(t), "k", "", clientv3.WithIgnoreValue()))(t)
		kv := need(c.Get(ctx(t), "k"))(t).Kvs[0]
		if string(kv.Value) != "2" || kv.Lease != 0 || kv.Version != 3 || kv.CreateRevision != 2 || kv.ModRevision != 4 {
			t.Errorf("after ignore_value without a lease: %v", kv)
		}
		need(c.Put(ctx(t), "l", "x"))(t)
		del := need(c.Delete(ctx(t), "", clientv3.WithPrefix(), clientv3.WithPrevKV()))(t)
		if del.Deleted != 2 || len(del.PrevKvs) != 2 || del.Header.Revision != 6 {
			t.Errorf("delete: %v", del)
		}
		if del := need(c.Delete(ctx(t), "k"))(t); del.Deleted != 0 || del.Header.Revision != 6 {
			t.Errorf("delete of nothing: %v", del)
		}
		need(c.Put(ctx(t), "k", "again"))(t)
		if kv := need(c.Get(ctx(t), "k"))(t).Kvs[0]; kv.Version != 1 || kv.CreateRevision != 7 {
			t.Errorf("after re-creation: %v", kv)
		}
	})
}

// Every error has etcd's code and text: clients match on both.
func TestErrors(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		conn := m.conn()
		kv, lease, maint := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewMaintenanceClient(conn)
		for i := range 10 {
			need(kv.Put(ctx(t), &pb.PutRequest{Key: []byte("k"), Value: []byte{byte(i)}}))(t)
		}
		need(kv.Compact(ctx(t), &pb.CompactionRequest{Revision: 5, Physical: true}))(t)
		need(lease.LeaseGrant(ctx(t), &pb.LeaseGrantRequest{ID: 7, TTL: 1000}))(t)

		put := func(r *pb.PutRequest) error { _, err := kv.Put(ctx(t), r); return err }
		rng := func(r *pb.RangeRequest) error { _, err := kv.Range(ctx(t), r); return err }
		txn := func(ops ...*pb.RequestOp) error {
			_, err := kv.Txn(ctx(t), &pb.TxnRequest{Success: ops})
			return err
		}
		opPut := func(r *pb.PutRequest) *pb.RequestOp {
			return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
		}
		second := func(_ any, err error) error { return err }
		k, v := []byte("k"), []byte("v")
		many := slices.Repeat([]*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: k}}}}, 129)
		dup := opPut(&pb.PutRequest{Key: k})

		for _, test := range []struct {
			name      string
			got, want error
		}{
			{"put without key", put(&pb.PutRequest{Value: v}), rpctypes.ErrGRPCEmptyKey},
			{"range without key", rng(&pb.RangeRequest{}), rpctypes.ErrGRPCEmptyKey},
			{"delete without key", second(kv.DeleteRange(ctx(t), &pb.DeleteRangeRequest{})), rpctypes.ErrGRPCEmptyKey},
			{"ignore_value with value", put(&pb.PutRequest{Key: k, Value: v, IgnoreValue: true}), rpctypes.ErrGRPCValueProvided},
			{"ignore_lease with lease", put(&pb.PutRequest{Key: k, Lease: 7, IgnoreLease: true}), rpctypes.ErrGRPCLeaseProvided},
			{"ignore_value of nothing", put(&pb.PutRequest{Key: []byte("none"), IgnoreValue: true}), rpctypes.ErrGRPCKeyNotFound},
			{"unknown lease", put(&pb.PutRequest{Key: k, Lease: 99}), rpctypes.ErrGRPCLeaseNotFound},
			{"huge value", put(&pb.PutRequest{Key: k, Value: make([]byte, 1572864)}), rpctypes.ErrGRPCRequestTooLarge},
			{"compacted", rng(&pb.RangeRequest{Key: k, Revision: 4}), rpctypes.ErrGRPCCompacted},
			{"future", rng(&pb.RangeRequest{Key: k, Revision: 100}), rpctypes.ErrGRPCFutureRev},
			{"sort target", rng(&pb.RangeRequest{Key: k, SortTarget: 9}), rpctypes.ErrGRPCInvalidSortOption},
			{"sort order", rng(&pb.RangeRequest{Key: k, SortOrder: 9}), rpctypes.ErrGRPCInvalidSortOption},
			{"compact compacted", second(kv.Compact(ctx(t), &pb.CompactionRequest{Revision: 5})), rpctypes.ErrGRPCCompacted},
			{"compact future", second(kv.Compact(ctx(t), &pb.CompactionRequest{Revision: 100})), rpctypes.ErrGRPCFutureRev},
			{"txn too long", txn(many...), rpctypes.ErrGRPCTooManyOps},
			{"txn duplicate", txn(dup, dup), rpctypes.ErrGRPCDuplicateKey},
			{"txn empty op", txn(&pb.RequestOp{}), rpctypes.ErrGRPCKeyNotFound},
			{"txn lease", txn(opPut(&pb.PutRequest{Key: k, Lease: 99})), rpctypes.ErrGRPCLeaseNotFound},
			{"lease exists", second(lease.LeaseGrant(ctx(t), &pb.LeaseGrantRequest{ID: 7, TTL: 10})), rpctypes.ErrGRPCLeaseExist},
			{"lease too long", second(lease.LeaseGrant(ctx(t), &pb.LeaseGrantRequest{TTL: 9_000_000_001})), rpctypes.ErrGRPCLeaseTTLTooLarge},
			{"revoke unknown", second(lease.LeaseRevoke(ctx(t), &pb.LeaseRevokeRequest{ID: 99})), rpctypes.ErrGRPCLeaseNotFound},
			{"hash compacted", second(maint.HashKV(ctx(t), &pb.HashKVRequest{Revision: 1000})), rpctypes.ErrGRPCFutureRev},
			{"move leader", second(maint.MoveLeader(ctx(t), &pb.MoveLeaderRequest{TargetID: 123})), rpctypes.ErrGRPCBadLeaderTransferee},
			{"health of nothing", second(grpc_health_v1.NewHealthClient(conn).Check(ctx(t), &grpc_health_v1.HealthCheckRequest{Service: "x"})), status.Error(codes.NotFound, "unknown service")},
			{"unknown service", conn.Invoke(ctx(t), "/no.Such/Method", &pb.PutRequest{}, &pb.PutResponse{}), status.Error(codes.Unimplemented, "unknown service no.Such")},
			{"unknown method", conn.Invoke(ctx(t), "/etcdserverpb.KV/Nope", &pb.PutRequest{}, &pb.PutResponse{}), status.Error(codes.Unimplemented, "unknown method Nope for service etcdserverpb.KV")},
			{"message too large", put(&pb.PutRequest{Key: k, Value: make([]byte, 3_145_728)}), status.Error(codes.ResourceExhausted, "grpc: received message larger than max (3145736 vs. 2097152)")},
		} {
			wantError(t, test.name, test.got, test.want)
		}
	})
}

func TestRangeStream(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		for i := range 100 {
			need(c.Put(ctx(t), fmt.Sprintf("s/%03d", i), strings.Repeat("v", i)))(t)
		}
		for _, opts := range [][]clientv3.OpOption{
			{}, {clientv3.WithLimit(37)}, {clientv3.WithKeysOnly()}, {clientv3.WithCountOnly()},
			{clientv3.WithRev(50)}, {clientv3.WithSerializable()}, {clientv3.WithLimit(1000)},
		} {
			opts = append(opts, clientv3.WithPrefix())
			whole := need(clientv3.GetStreamToGetResponse(need(c.GetStream(ctx(t), "s/", opts...))(t)))(t)
			plain := need(c.Get(ctx(t), "s/", opts...))(t)
			if diff := gocmp.Diff((*pb.RangeResponse)(plain), (*pb.RangeResponse)(whole), protocmp.Transform()); diff != "" {
				t.Errorf("stream differs from Range (-range +stream):\n%s", diff)
			}
		}
		chunks := 0
		for chunk := range need(c.GetStream(ctx(t), "s/", clientv3.WithPrefix()))(t) {
			if chunks++; chunk.Err() != nil {
				t.Fatal(chunk.Err())
			}
		}
		if chunks < 2 {
			t.Errorf("100 keys came in %d chunk", chunks)
		}
		refusal := func(opts ...clientv3.OpOption) error {
			_, err := clientv3.GetStreamToGetResponse(need(c.GetStream(ctx(t), "s/", opts...))(t))
			return err
		}
		wantError(t, "sorted", refusal(clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend)),
			status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders"))
		wantError(t, "filtered", refusal(clientv3.WithMinModRev(2)),
			status.Error(codes.Unimplemented, "RangeStream does not support revision filters"))
		wantError(t, "future", refusal(clientv3.WithRev(1000)), rpctypes.ErrGRPCFutureRev)
	})
}

func TestTxn(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		need(c.Put(ctx(t), "a", "1"))(t)
		need(c.Put(ctx(t), "b", "2"))(t)
		for _, test := range []struct {
			name string
			cmp  clientv3.Cmp
			want bool
		}{
			{"value", clientv3.Compare(clientv3.Value("a"), "=", "1"), true},
			{"value of nothing", clientv3.Compare(clientv3.Value("zz"), "!=", "1"), false},
			{"version", clientv3.Compare(clientv3.Version("a"), ">", 0), true},
			{"version of nothing", clientv3.Compare(clientv3.Version("zz"), "=", 0), true},
			{"create", clientv3.Compare(clientv3.CreateRevision("b"), "<", 3), false},
			{"mod", clientv3.Compare(clientv3.ModRevision("b"), "!=", 4), true},
			{"lease", clientv3.Compare(clientv3.LeaseValue("a"), "=", 0), true},
			{"range", clientv3.Compare(clientv3.Version("a").WithRange("c"), "=", 1), true},
			{"range, one not", clientv3.Compare(clientv3.Value("a").WithRange("c"), "=", "1"), false},
			{"empty range", clientv3.Compare(clientv3.Version("x").WithRange("z"), "=", 0), true},
		} {
			if r := need(c.Txn(ctx(t)).If(test.cmp).Commit())(t); r.Succeeded != test.want || r.Header.Revision != 3 {
				t.Errorf("%s: %v", test.name, r)
			}
		}
		// Later operations see earlier ones, an explicit revision reads the past, and the nested
		// txn is decided by the state before the transaction.
		r := need(c.Txn(ctx(t)).Then(
			clientv3.OpPut("a", "new"),
			clientv3.OpGet("a"),
			clientv3.OpGet("a", clientv3.WithRev(2)),
			clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value("a"), "=", "1")},
				[]clientv3.Op{clientv3.OpDelete("b", clientv3.WithPrevKV()), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("c", "deep")}, nil)},
				[]clientv3.Op{clientv3.OpPut("never", "")}),
		).Commit())(t)
		if v := r.Responses[1].GetResponseRange().Kvs[0].Value; string(v) != "new" {
			t.Errorf("read of the own write: %q", v)
		}
		if v := r.Responses[2].GetResponseRange().Kvs[0].Value; string(v) != "1" {
			t.Errorf("read of the past: %q", v)
		}
		nested := r.Responses[3].GetResponseTxn()
		if !nested.Succeeded || nested.Responses[0].GetResponseDeleteRange().Deleted != 1 || !nested.Responses[1].GetResponseTxn().Succeeded {
			t.Errorf("nested: %v", nested)
		}
		for _, kv := range need(c.Get(ctx(t), "", clientv3.WithPrefix()))(t).Kvs {
			if kv.ModRevision != 4 {
				t.Errorf("not of the txn's revision: %v", kv)
			}
		}
	})
}

func TestLease(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		short := need(c.Grant(ctx(t), 1))(t)
		if short.TTL != 2 {
			t.Errorf("a TTL of 1 became %d, want the floor of 2", short.TTL)
		}
		long := need(c.Grant(ctx(t), 1000))(t)
		need(c.Put(ctx(t), "short", "", clientv3.WithLease(short.ID)))(t)
		put := need(c.Put(ctx(t), "long/a", "", clientv3.WithLease(long.ID)))(t)
		need(c.Put(ctx(t), "long/b", "", clientv3.WithLease(long.ID)))(t)

		// The short lease expires and deletes its key.
		events := c.Watch(ctx(t), "short", clientv3.WithRev(put.Header.Revision))
		if e := need(next(t, events))(t).Events[0]; e.Type != clientv3.EventTypeDelete {
			t.Errorf("expiry sent %v", e)
		}
		if l := need(c.TimeToLive(ctx(t), short.ID))(t); l.TTL != -1 {
			t.Errorf("TTL of an expired lease: %d", l.TTL)
		}
		_, err := c.KeepAliveOnce(ctx(t), short.ID)
		wantError(t, "keep-alive of an expired lease", err, rpctypes.ErrGRPCLeaseNotFound)

		l := need(c.TimeToLive(ctx(t), long.ID, clientv3.WithAttachedKeys()))(t)
		if l.GrantedTTL != 1000 || l.TTL < 900 || len(l.Keys) != 2 {
			t.Errorf("time to live: %+v", l)
		}
		if r := need(c.KeepAliveOnce(ctx(t), long.ID))(t); r.TTL != 1000 {
			t.Errorf("keep-alive: %+v", r)
		}
		stream, cancel := context.WithCancel(ctx(t))
		if r := <-need(c.KeepAlive(stream, long.ID))(t); r == nil || r.TTL != 1000 {
			t.Errorf("keep-alive stream: %+v", r)
		}
		cancel()
		if all := need(c.Leases(ctx(t)))(t).Leases; len(all) != 1 || all[0].ID != long.ID {
			t.Errorf("leases: %v", all)
		}
		need(c.Revoke(ctx(t), long.ID))(t)
		if r := need(c.Get(ctx(t), "", clientv3.WithPrefix()))(t); r.Count != 0 {
			t.Errorf("left after revocation: %v", r.Kvs)
		}
	})
}

func TestMembersAndHealth(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		r := need(c.MemberList(ctx(t)))(t)
		if len(r.Members) != 1 || r.Header.Revision != 0 || r.Header.MemberId != r.Members[0].ID {
			t.Fatalf("members: %v", r)
		}
		got := r.Members[0]
		if got.Name != "default" || got.IsLearner || !slices.Equal(got.ClientURLs, []string{"http://" + m.client}) ||
			!slices.Equal(got.PeerURLs, []string{"http://" + m.peer}) {
			t.Errorf("member: %v", got)
		}
		health := grpc_health_v1.NewHealthClient(m.conn())
		if r := need(health.Check(ctx(t), &grpc_health_v1.HealthCheckRequest{}))(t); r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health: %v", r)
		}
		watch := need(health.Watch(ctx(t), &grpc_health_v1.HealthCheckRequest{}))(t)
		if r := need(watch.Recv())(t); r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health watch: %v", r)
		}
	})
}

// The client's concurrency package: session, mutex and election are based on leases, txns and
// watches, ordered by create revision.
func TestConcurrency(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		one := need(concurrency.NewSession(c, concurrency.WithTTL(60)))(t)
		two := need(concurrency.NewSession(c, concurrency.WithTTL(60)))(t)

		first, second := concurrency.NewMutex(one, "lock"), concurrency.NewMutex(two, "lock")
		if err := first.Lock(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if err := second.TryLock(ctx(t)); !errors.Is(err, concurrency.ErrLocked) {
			t.Errorf("second lock: %v", err)
		}
		locked := make(chan error, 1)
		go func() { locked <- second.Lock(ctx(t)) }()
		if err := first.Unlock(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-locked; err != nil {
			t.Fatal(err)
		}

		e1, e2 := concurrency.NewElection(one, "seat"), concurrency.NewElection(two, "seat")
		if err := e1.Campaign(ctx(t), "one"); err != nil {
			t.Fatal(err)
		}
		elected := make(chan error, 1)
		go func() { elected <- e2.Campaign(ctx(t), "two") }()
		if r := need(e1.Leader(ctx(t)))(t); string(r.Kvs[0].Value) != "one" {
			t.Errorf("leader: %v", r.Kvs)
		}
		// Closing the leader's session elects the next candidate.
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-elected; err != nil {
			t.Fatal(err)
		}
		if r := need(e2.Leader(ctx(t)))(t); string(r.Kvs[0].Value) != "two" {
			t.Errorf("leader: %v", r.Kvs)
		}

		// A counter incremented concurrently misses no step.
		const raises = 20
		done := make(chan error, raises)
		for range raises {
			go func() {
				_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
					s.Put("counter", s.Get("counter")+"x")
					return nil
				})
				done <- err
			}()
		}
		for range raises {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if v := need(c.Get(ctx(t), "counter"))(t).Kvs[0].Value; len(v) != raises {
			t.Errorf("counter %d, want %d", len(v), raises)
		}
	})
}
