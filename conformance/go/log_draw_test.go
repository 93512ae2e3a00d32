package conformance

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/membershippb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// logDraw draws entries: most of them such that etcd applies them, however odd, so that there is
// something to compare, and occasionally arbitrary ones.
type logDraw struct {
	rng *rand.Rand
	// self is the member whose log it is.
	self uint64
}

func (d *logDraw) entries(n int) []*raftpb.Entry {
	entries := make([]*raftpb.Entry, n)
	for i := range entries {
		entries[i] = d.entry()
	}
	return entries
}

func (d *logDraw) oneIn(n int) bool { return d.rng.IntN(n) == 0 }

func oneOf[T any](d *logDraw, of ...T) T { return of[d.rng.IntN(len(of))] }

func (d *logDraw) entry() *raftpb.Entry {
	e := d.soundEntry()
	if d.oneIn(400) {
		e.Data = damaged(d.rng, e.Data)
	}
	return e
}

func (d *logDraw) soundEntry() *raftpb.Entry {
	switch d.rng.IntN(12) {
	case 0:
		return normal(nil)
	case 1:
		return changeEntry(d.change())
	}
	r := d.request()
	for d.oneIn(8) {
		proto.Merge(r, d.request())
	}
	if d.oneIn(12) {
		proto.Merge(r, d.memberRequest())
	}
	data := marshal(r)
	if d.oneIn(8) {
		data = append(data, oneOf(d, unknownFields()...)...)
	}
	return normal(data)
}

func normal(data []byte) *raftpb.Entry {
	return &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Data: data}
}

func changeEntry(c *raftpb.ConfChange) *raftpb.Entry {
	return &raftpb.Entry{Type: raftpb.EntryConfChange.Enum(), Data: marshal(c)}
}

func marshal(m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

// unknownFields are unknown fields of a request, or known ones of another wire type.
func unknownFields() [][]byte {
	field := func(number protowire.Number, text string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), text)
	}
	return [][]byte{
		field(2, "of API v2"), field(2, "\xff"), field(1400, "later"), field(1<<28, ""),
		{0x20, 1}, // the put as a number
		protowire.AppendFixed64(protowire.AppendTag(nil, 6, protowire.Fixed64Type), 7),
		groups(1), groups(150), groups(5000),
	}
}

func (d *logDraw) number() int64 {
	return oneOf[int64](d, 0, 1, 1, 2, 3, 5, 9, -1, -2, 1<<62, -1<<63)
}

func (d *logDraw) bytes() []byte {
	if d.oneIn(40) {
		return []byte(strings.Repeat("k", 32_700+d.rng.IntN(200)))
	}
	return []byte(oneOf(d, "", "\x00", "\xff\xff\xff", "a", "a", "b", "c", "d", "e"))
}

func (d *logDraw) name() string { return oneOf(d, "", "root", "root", "u", "r", "a", "b", "é") }

func (d *logDraw) lease() int64 { return oneOf[int64](d, 0, 0, 0, 1, 7, -7) }

func (d *logDraw) put() *pb.PutRequest {
	return &pb.PutRequest{Key: d.bytes(), Value: d.bytes(), Lease: d.lease(),
		PrevKv: d.oneIn(2), IgnoreValue: d.oneIn(6), IgnoreLease: d.oneIn(6)}
}

func (d *logDraw) delete() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: d.bytes(), RangeEnd: d.bytes(), PrevKv: d.oneIn(2)}
}

func (d *logDraw) get() *pb.RangeRequest {
	return &pb.RangeRequest{Key: d.bytes(), RangeEnd: d.bytes(), Limit: d.number(), Revision: d.number(),
		SortOrder: pb.RangeRequest_SortOrder(d.rng.IntN(5) - 1), SortTarget: pb.RangeRequest_SortTarget(d.rng.IntN(7) - 1),
		CountOnly: d.oneIn(4), KeysOnly: d.oneIn(4), MaxModRevision: d.number()}
}

func (d *logDraw) txn(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range d.rng.IntN(3) {
		c := &pb.Compare{Result: pb.Compare_CompareResult(d.rng.IntN(6) - 1), Target: pb.Compare_CompareTarget(d.rng.IntN(7) - 1),
			Key: d.bytes(), RangeEnd: d.bytes()}
		switch d.rng.IntN(3) {
		case 0:
			c.TargetUnion = &pb.Compare_Version{Version: d.number()}
		case 1:
			c.TargetUnion = &pb.Compare_Value{Value: d.bytes()}
		}
		r.Compare = append(r.Compare, c)
	}
	for range d.rng.IntN(5) {
		op := &pb.RequestOp{}
		switch n := d.rng.IntN(8); {
		case n < 2 && depth > 0:
			op.Request = &pb.RequestOp_RequestTxn{RequestTxn: d.txn(depth - 1)}
		case n < 4:
			op.Request = &pb.RequestOp_RequestPut{RequestPut: d.put()}
		case n < 6:
			op.Request = &pb.RequestOp_RequestRange{RequestRange: d.get()}
		case n == 6:
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d.delete()}
		}
		if d.oneIn(2) {
			r.Success = append(r.Success, op)
		} else {
			r.Failure = append(r.Failure, op)
		}
	}
	return r
}

// request is one made by clients, or by members on their behalf.
func (d *logDraw) request() *pb.InternalRaftRequest {
	r := &pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: d.rng.Uint64(), Username: d.name(), AuthRevision: d.rng.Uint64N(40)}}
	if d.oneIn(10) {
		r.Header, r.ID = nil, 1+d.rng.Uint64N(1000)
	}
	switch d.rng.IntN(20) {
	case 0, 1, 2, 3:
		r.Put = d.put()
	case 4:
		r.DeleteRange = d.delete()
	case 5:
		r.Range = d.get()
	case 6, 7, 8, 9:
		r.Txn = d.txn(4)
	case 10:
		r.Compaction = &pb.CompactionRequest{Revision: d.number(), Physical: d.oneIn(2)}
	case 11:
		r.LeaseGrant = &pb.LeaseGrantRequest{ID: oneOf[int64](d, 0, 1, 7, -7, -1<<63),
			TTL: oneOf[int64](d, 0, -1, 1, 9000, 9_000_000_000, 9_000_000_001, 1<<63-1)}
	case 12:
		r.LeaseRevoke = &pb.LeaseRevokeRequest{ID: d.lease()}
	case 13:
		r.LeaseCheckpoint = &pb.LeaseCheckpointRequest{}
		for range d.rng.IntN(3) {
			c := &pb.LeaseCheckpoint{ID: d.lease(), Remaining_TTL: oneOf[int64](d, 0, -1, 8000, 1<<62)}
			r.LeaseCheckpoint.Checkpoints = append(r.LeaseCheckpoint.Checkpoints, c)
		}
	case 14:
		r.Alarm = &pb.AlarmRequest{Action: pb.AlarmRequest_AlarmAction(d.rng.IntN(5) - 1), MemberID: d.rng.Uint64N(2),
			Alarm: oneOf(d, pb.AlarmType_NONE, pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT, 7, -1)}
		// While an alarm is raised, most later requests are refused.
		if r.Alarm.Alarm != pb.AlarmType_NONE && r.Alarm.Action == pb.AlarmRequest_ACTIVATE && !d.oneIn(4) {
			r.Alarm.Action = pb.AlarmRequest_DEACTIVATE
		}
	default:
		d.userRequest(r)
	}
	return r
}

func (d *logDraw) userRequest(r *pb.InternalRaftRequest) {
	hashed := func() string { return oneOf(d, "", "JDJh", "bm8gaGFzaA==", "no base64!") }
	switch d.rng.IntN(18) {
	case 0:
		r.AuthEnable = &pb.AuthEnableRequest{}
	case 1:
		r.AuthDisable = &pb.AuthDisableRequest{}
	case 2:
		r.AuthStatus = &pb.AuthStatusRequest{}
	case 3, 4:
		// A password to be hashed at apply would be hashed with random salt.
		r.AuthUserAdd = &pb.AuthUserAddRequest{Name: d.name(), HashedPassword: oneOf(d, "JDJh", "no base64!"),
			Options: oneOf(d, nil, &authpb.UserAddOptions{}, &authpb.UserAddOptions{NoPassword: true})}
	case 5:
		r.AuthUserDelete = &pb.AuthUserDeleteRequest{Name: d.name()}
	case 6:
		r.AuthUserChangePassword = &pb.AuthUserChangePasswordRequest{Name: d.name(), HashedPassword: oneOf(d, "JDJh", "no base64!")}
	case 7, 8, 9:
		r.AuthUserGrantRole = &pb.AuthUserGrantRoleRequest{User: d.name(), Role: d.name()}
	case 10:
		r.AuthUserRevokeRole = &pb.AuthUserRevokeRoleRequest{Name: d.name(), Role: d.name()}
	case 11:
		r.AuthUserGet = &pb.AuthUserGetRequest{Name: d.name()}
	case 12, 13:
		r.AuthRoleAdd = &pb.AuthRoleAddRequest{Name: d.name()}
	case 14:
		r.AuthRoleGrantPermission = &pb.AuthRoleGrantPermissionRequest{Name: d.name(),
			Perm: &authpb.Permission{PermType: authpb.Permission_Type(d.rng.IntN(5) - 1), Key: d.bytes(), RangeEnd: d.bytes()}}
	case 15:
		r.AuthRoleRevokePermission = &pb.AuthRoleRevokePermissionRequest{Role: d.name(), Key: d.bytes(), RangeEnd: d.bytes()}
	case 16:
		r.AuthRoleDelete = &pb.AuthRoleDeleteRequest{Role: d.name()}
	case 17:
		*r = pb.InternalRaftRequest{Header: r.Header, ID: r.ID, Authenticate: &pb.InternalAuthenticateRequest{
			Name: d.name(), Password: hashed(), SimpleToken: oneOf(d, "", "token")}}
	}
	if r.AuthUserGet == nil && d.oneIn(10) {
		r.AuthRoleGet = &pb.AuthRoleGetRequest{Role: d.name()}
	}
}

// memberRequest is one made by members.
func (d *logDraw) memberRequest() *pb.InternalRaftRequest {
	r := &pb.InternalRaftRequest{}
	switch d.rng.IntN(4) {
	case 0:
		r.ClusterVersionSet = &membershippb.ClusterVersionSetRequest{Ver: oneOf(d, "3.6.0", "3.7.0", "3.5.12", "0.0.0")}
	case 1:
		r.DowngradeInfoSet = &membershippb.DowngradeInfoSetRequest{Enabled: d.oneIn(2), Ver: oneOf(d, "3.6.0", "3.7.0")}
	case 2:
		r.DowngradeVersionTest = &pb.DowngradeVersionTestRequest{Ver: "3.8"}
	case 3:
		r.ClusterMemberAttrSet = &membershippb.ClusterMemberAttrSetRequest{Member_ID: d.self,
			MemberAttributes: &membershippb.Attributes{Name: d.name(), ClientUrls: oneOf(d, nil, []string{}, []string{d.name(), "<&>"})}}
	}
	return r
}

// change is a membership change by any member, of any member except the one whose log it is.
func (d *logDraw) change() *raftpb.ConfChange {
	id := d.rng.Uint64N(5)
	kind := oneOf(d, raftpb.ConfChangeAddNode, raftpb.ConfChangeAddLearnerNode, raftpb.ConfChangeAddLearnerNode,
		raftpb.ConfChangeRemoveNode, raftpb.ConfChangeUpdateNode)
	context := map[string]any{"id": id}
	if d.oneIn(5) {
		context["isPromote"] = true
	}
	if kind == raftpb.ConfChangeAddLearnerNode {
		context["isLearner"] = true
	}
	// Nobody listens there.
	url := fmt.Sprintf("http://127.0.0.1:%d", 1+d.rng.IntN(3))
	context["peerURLs"] = []string{url, fmt.Sprint(url, d.rng.IntN(3))}[:1+d.rng.IntN(2)]
	if d.oneIn(4) {
		context["name"], context["clientURLs"] = d.name(), []string{"http://<&>"}
	}
	if d.oneIn(4) {
		context["later"] = []int{1}
	}
	data, err := json.Marshal(context)
	if err != nil {
		panic(err)
	}
	if kind == raftpb.ConfChangeRemoveNode && d.oneIn(2) {
		data = nil
	}
	return &raftpb.ConfChange{Id: proto.Uint64(d.rng.Uint64()), Type: kind.Enum(), NodeId: proto.Uint64(id), Context: data}
}
