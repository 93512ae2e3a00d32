package conformance

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// asBytes is a codec that sends and receives messages as raw bytes.
type asBytes struct{}

func (asBytes) Name() string                    { return "proto" }
func (asBytes) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (asBytes) Unmarshal(b []byte, v any) error { *v.(*[]byte) = bytes.Clone(b); return nil }

// call makes a call with an arbitrary body; it returns code and text, and the answer.
func (m *member) call(conn *grpc.ClientConn, method string, body []byte) (string, []byte) {
	var answer []byte
	err := conn.Invoke(ctx(m.t), method, &body, &answer, grpc.ForceCodec(asBytes{}))
	if s := status.Convert(err); s.Code() != codes.OK {
		// Go's protobuf randomly uses one of two kinds of space in its errors, fixed per build.
		text := strings.ReplaceAll(s.Message(), "\u00a0", " ")
		return fmt.Sprintf("%v: %s", s.Code(), text), nil
	}
	return "ok", answer
}

// nestedTxn is depth nested transactions, around a put if there is a key.
func nestedTxn(depth int, key string) []byte {
	// Built in reverse from the inside out, in linear time.
	var reversed []byte
	prepend := func(b []byte) {
		for _, c := range b {
			reversed = append(reversed, c)
		}
	}
	wrap := func(field protowire.Number) {
		head := protowire.AppendTag(nil, field, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(reversed)))
		prepend(backwards(head))
	}
	if key != "" {
		put, _ := proto.Marshal(&pb.PutRequest{Key: []byte(key), Value: []byte("v")})
		prepend(backwards(put))
		wrap(2) // RequestOp.request_put
		wrap(2) // TxnRequest.success
	}
	for range depth - 1 {
		wrap(4) // RequestOp.request_txn
		wrap(2)
	}
	return backwards(reversed)
}

func backwards(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[len(b)-1-i] = c
	}
	return out
}

// nestedDepth is the nesting depth of transactions in an answer.
func nestedDepth(t testing.TB, answer []byte) int {
	var r pb.TxnResponse
	if err := proto.Unmarshal(answer, &r); err != nil {
		t.Fatalf("an answer that Go cannot read: %v", err)
	}
	depth := 1
	for txn := &r; len(txn.Responses) == 1 && txn.Responses[0].GetResponseTxn() != nil; depth++ {
		txn = txn.Responses[0].GetResponseTxn()
	}
	return depth
}

// Nested transactions are treated alike at every depth, and each program continues with the log in
// which the other one has them.
func TestNestedTxnOfAnyDepth(t *testing.T) {
	sides := []*member{startMember(t, ours()), startMember(t, real())}
	var depths []int
	for depth := 1; depth <= 200; depth++ {
		depths = append(depths, depth)
	}
	depths = append(depths, 1000, 4999, 5000, 5001, 10000, 100000)
	for _, depth := range depths {
		for _, key := range []string{"", fmt.Sprintf("d%d", depth)} {
			var told [2]string
			for i, m := range sides {
				answer, body := m.call(m.conn(), "/etcdserverpb.KV/Txn", nestedTxn(depth, key))
				if answer == "ok" && nestedDepth(t, body) != depth {
					answer = fmt.Sprintf("an answer of depth %d", nestedDepth(t, body))
				}
				told[i] = answer
			}
			if told[0] != told[1] {
				t.Fatalf("depth %d, key %q: ours says %s, the reference %s", depth, key, told[0], told[1])
			}
		}
	}
	exchange(t, sides)
}

// exchange compares two members, swaps their programs, and compares them again.
func exchange(t *testing.T, sides []*member) {
	t.Helper()
	programs := []program{sides[0].program, sides[1].program}
	for turn := range 2 {
		first, second := sides[0].hashKV(0), sides[1].hashKV(0)
		if first.Hash != second.Hash || first.HashRevision != second.HashRevision {
			t.Fatalf("turn %d: hash %d at %d and %d at %d", turn, first.Hash, first.HashRevision, second.Hash, second.HashRevision)
		}
		for i, m := range sides {
			// After SIGKILL, the latest entries are in the log only.
			if turn == 0 {
				m.kill()
			} else {
				m.stop()
			}
			m.start(programs[(turn+i+1)%2])
		}
	}
}

// A Go member accepts from its clients what ours has to apply, and vice versa.
func TestHostileRequestsInMixedCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.start(real(), ours(), real())
	for _, m := range c.members {
		conn := m.conn()
		for depth := 1; depth <= 200; depth++ {
			want := "ok"
			if depth > 128 {
				want = "InvalidArgument: etcdserver: too many operations in txn request"
			}
			if told, _ := m.call(conn, "/etcdserverpb.KV/Txn", nestedTxn(depth, "deep")); told != want {
				t.Fatalf("depth %d through %s: %s", depth, m, told)
			}
		}
		for _, strange := range strangePuts() {
			if told, _ := m.call(conn, "/etcdserverpb.KV/Put", strange); told != "ok" {
				t.Fatalf("%.40x through %s: %s", strange, m, told)
			}
		}
	}
	c.sameHash()
	for _, m := range c.members {
		m.kill()
		m.start(m.program)
	}
	c.sameHash()
}

// strangePuts are puts with unknown fields, or known ones of another wire type.
func strangePuts() [][]byte {
	honest := []byte("\x0a\x01k\x12\x01v")
	var all [][]byte
	for _, unknown := range [][]byte{
		[]byte("\x1a\x011"),            // the lease as text
		[]byte("\x08\x01"),             // the key as a number
		[]byte("\x25\x00\x00\x00\x00"), // prev_kv as four bytes
		[]byte("\x98\x06\x01"),         // a field that is not there
		groups(1), groups(101), groups(10001),
	} {
		all = append(all, append(bytes.Clone(honest), unknown...))
	}
	return all
}

func groups(levels int) []byte {
	return append(bytes.Repeat([]byte{0x93, 0x03}, levels), bytes.Repeat([]byte{0x94, 0x03}, levels)...)
}

// Random requests, most of them damaged, get the same answers from both programs, code and text,
// and lead to the same state.
func TestHostileRequests(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 0))
			// The shortest lease is one and a half election timeouts long, and must not expire
			// here.
			flags := []string{"--heartbeat-interval=1000", "--election-timeout=50000"}
			sides := []*member{startMember(t, ours(), flags...), startMember(t, real(), flags...)}
			conns := []*grpc.ClientConn{sides[0].conn(), sides[1].conn()}
			for i := range 800 {
				method, body := hostileRequest(rng)
				first, _ := sides[0].call(conns[0], method, body)
				second, _ := sides[1].call(conns[1], method, body)
				if first != second {
					t.Errorf("request %d, %s %.80x:\nours      %s\nreference %s", i, method, body, first, second)
				}
			}
			exchange(t, sides)
		})
	}
}

// hostileRequest is a method and an arbitrary request to it.
func hostileRequest(rng *rand.Rand) (string, []byte) {
	some := func(of ...string) string { return of[rng.IntN(len(of))] }
	key := func() []byte { return []byte(some("", "\x00", "a", "b", "c", "\xff\xff")) }
	number := func() int64 { return []int64{0, 1, 2, 3, 7, -1, 1 << 62, -1 << 63}[rng.IntN(8)] }
	put := func() *pb.PutRequest {
		return &pb.PutRequest{Key: key(), Value: key(), Lease: []int64{0, 0, 0, 7, -7}[rng.IntN(5)],
			PrevKv: rng.IntN(2) == 0, IgnoreValue: rng.IntN(6) == 0, IgnoreLease: rng.IntN(6) == 0}
	}
	del := func() *pb.DeleteRangeRequest { return &pb.DeleteRangeRequest{Key: key(), RangeEnd: key()} }
	get := func() *pb.RangeRequest {
		return &pb.RangeRequest{Key: key(), RangeEnd: key(), Limit: number(), Revision: number(),
			SortOrder: pb.RangeRequest_SortOrder(rng.IntN(4)), SortTarget: pb.RangeRequest_SortTarget(rng.IntN(6))}
	}
	var txn func(depth int) *pb.TxnRequest
	txn = func(depth int) *pb.TxnRequest {
		r := &pb.TxnRequest{}
		for range rng.IntN(2) {
			r.Compare = append(r.Compare, &pb.Compare{Result: pb.Compare_CompareResult(rng.IntN(5)),
				Target: pb.Compare_CompareTarget(rng.IntN(6)), Key: key(), RangeEnd: key()})
		}
		for range rng.IntN(3) {
			op := &pb.RequestOp{}
			switch n := rng.IntN(6); {
			case n < 2 && depth > 0:
				op.Request = &pb.RequestOp_RequestTxn{RequestTxn: txn(depth - 1)}
			case n < 3:
				op.Request = &pb.RequestOp_RequestPut{RequestPut: put()}
			case n == 3:
				op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: del()}
			case n == 4:
				op.Request = &pb.RequestOp_RequestRange{RequestRange: get()}
			}
			if rng.IntN(2) == 0 {
				r.Success = append(r.Success, op)
			} else {
				r.Failure = append(r.Failure, op)
			}
		}
		return r
	}
	name := func() string { return some("", "root", "a", "b", "c") }
	kv, lease, auth := "/etcdserverpb.KV/", "/etcdserverpb.Lease/", "/etcdserverpb.Auth/"
	requests := []struct {
		method  string
		request proto.Message
	}{
		{kv + "Put", put()}, {kv + "Put", put()}, {kv + "DeleteRange", del()}, {kv + "Range", get()},
		{kv + "Txn", txn(4)}, {kv + "Txn", txn(4)}, {kv + "Txn", txn(4)},
		{kv + "Compact", &pb.CompactionRequest{Revision: number()}},
		{lease + "LeaseGrant", &pb.LeaseGrantRequest{ID: []int64{7, -7, -1 << 63}[rng.IntN(3)], TTL: []int64{-1 << 63, -1, 0, 9000, 9000000001}[rng.IntN(5)]}},
		{lease + "LeaseRevoke", &pb.LeaseRevokeRequest{ID: number()}},
		{auth + "UserAdd", &pb.AuthUserAddRequest{Name: name(), Options: &authpb.UserAddOptions{NoPassword: true}}},
		{auth + "UserDelete", &pb.AuthUserDeleteRequest{Name: name()}},
		{auth + "UserGrantRole", &pb.AuthUserGrantRoleRequest{User: name(), Role: name()}},
		{auth + "RoleAdd", &pb.AuthRoleAddRequest{Name: name()}},
		{auth + "RoleDelete", &pb.AuthRoleDeleteRequest{Role: name()}},
		{auth + "RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: name(), Perm: &authpb.Permission{Key: key(), RangeEnd: key()}}},
		{auth + "UserGet", &pb.AuthUserGetRequest{Name: name()}},
	}
	chosen := requests[rng.IntN(len(requests))]
	body, err := proto.Marshal(chosen.request)
	if err != nil {
		panic(err)
	}
	return chosen.method, damaged(rng, body)
}

// damaged returns b, possibly damaged.
func damaged(rng *rand.Rand, b []byte) []byte {
	at := rng.IntN(len(b) + 1)
	switch rng.IntN(14) {
	case 0:
		return b[:at]
	case 1:
		if at < len(b) {
			b[at] = byte(rng.UintN(256))
		}
	case 2:
		return append(b[:at:at], append([]byte{byte(rng.UintN(256))}, b[at:]...)...)
	case 3:
		return append(b, b...)
	case 4:
		return append(b, groups(1+rng.IntN(300))...)
	case 5:
		return append(b, 0x1a, 1, '1')
	case 6:
		return append(b, 0x08, 1)
	}
	return b
}

// The last voter cannot be removed; etcd stops permanently when asked to without strict checks.
func TestLastVoterStays(t *testing.T) {
	t.Parallel()
	m := startMember(t, ours(), "--strict-reconfig-check=false")
	c := m.client3()
	members := need(c.MemberList(ctx(t)))(t)
	_, err := c.MemberRemove(ctx(t), members.Members[0].ID)
	if s := status.Convert(err); err == nil || s.Message() == "" {
		t.Fatalf("the last voter was removed: %v", err)
	}
	need(c.Put(context.Background(), "k", "v"))(t)
	m.stop()
	m.start(real())
	need(m.client3().Get(ctx(t), "k", clientv3.WithSerializable()))(t)
}
