package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// For every method and the same requests in the same order, the header equals that of etcd 3.7.1:
// the same revision, and ids and the term where etcd sets them. Every method of the API must be
// among the steps.
func TestSameHeadersAsReference(t *testing.T) {
	sides := []*side{{t: t, m: startMember(t, ours(), cheap)}, {t: t, m: startMember(t, real(), cheap)}}
	for _, s := range sides {
		s.conn = s.m.conn()
	}
	asked := map[string]bool{}
	callers := []*caller{{side: sides[0]}, {side: sides[1]}}
	for _, step := range headerSteps() {
		asked[step.method] = true
		var told [2]string
		for i, c := range callers {
			told[i] = c.ask(step)
		}
		if told[0] != told[1] {
			t.Errorf("%s (%s)\n  reference: %s\n  ours:      %s", step.method, step.name, told[1], told[0])
		}
		t.Logf("%-22s %-12s %s", step.method, step.name, told[0])
	}
	services := pb.File_rpc_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			if name := string(methods.Get(j).Name()); !asked[name] {
				t.Errorf("%s.%s is not among the steps", services.Get(i).Name(), name)
			}
		}
	}
}

// caller calls one server, and remembers what later steps need.
type caller struct {
	*side
	token  string
	member uint64
	added  uint64
	second *member
	watch  pb.Watch_WatchClient
	alive  pb.Lease_LeaseKeepAliveClient
}

// headerStep is one request; the headers of its answers are compared.
type headerStep struct {
	method string
	name   string
	call   func(ctx context.Context, c *caller) ([]proto.Message, error)
}

func (c *caller) ask(step headerStep) string {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", c.token)
	}
	answers, err := step.call(ctx, c)
	if err != nil {
		s := status.Convert(err)
		return fmt.Sprintf("%v: %s", s.Code(), s.Message())
	}
	text := ""
	for _, answer := range answers {
		text += headerText(answer) + " "
	}
	return text
}

// headerText formats the header, and those of the answers inside of a transaction.
func headerText(answer proto.Message) string {
	text := "has none"
	if a, ok := answer.(interface{ GetHeader() *pb.ResponseHeader }); ok && a.GetHeader() != nil {
		h := a.GetHeader()
		text = fmt.Sprintf("revision %d", h.Revision)
		for _, field := range []struct {
			name string
			n    uint64
		}{{"cluster", h.ClusterId}, {"member", h.MemberId}, {"term", h.RaftTerm}} {
			if field.n == 0 {
				text += ", no " + field.name
			}
		}
	}
	txn, ok := answer.(*pb.TxnResponse)
	if !ok {
		return text
	}
	for _, op := range txn.Responses {
		switch {
		case op.GetResponseRange() != nil:
			text += ", range: " + headerText(op.GetResponseRange())
		case op.GetResponsePut() != nil:
			text += ", put: " + headerText(op.GetResponsePut())
		case op.GetResponseDeleteRange() != nil:
			text += ", delete: " + headerText(op.GetResponseDeleteRange())
		case op.GetResponseTxn() != nil:
			text += ", txn: (" + headerText(op.GetResponseTxn()) + ")"
		}
	}
	return text
}

// one makes a step of a unary call.
func one[Q any, A proto.Message](method, name string, call func(*caller) func(context.Context, Q) (A, error), request Q) headerStep {
	return headerStep{method, name, func(ctx context.Context, c *caller) ([]proto.Message, error) {
		answer, err := call(c)(ctx, request)
		return []proto.Message{answer}, err
	}}
}

// all reads a stream to its end.
func all[A proto.Message](recv func() (A, error)) ([]proto.Message, error) {
	var answers []proto.Message
	for {
		answer, err := recv()
		if errors.Is(err, io.EOF) {
			return answers, nil
		}
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer)
	}
}

func headerSteps() []headerStep {
	steps := kvHeaders()
	steps = append(steps, watchHeaders()...)
	steps = append(steps, leaseHeaders()...)
	steps = append(steps, clusterHeaders()...)
	steps = append(steps, maintenanceHeaders()...)
	return append(steps, authHeaders()...)
}

func get(key, end string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func getOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: get(key, end)}}
}

func putOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func deleteOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

func txnOp(ops ...*pb.RequestOp) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: ops}}}
}

func kvHeaders() []headerStep {
	kv := func(c *caller) pb.KVClient { return pb.NewKVClient(c.conn) }
	put := func(c *caller) func(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
		return func(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) { return kv(c).Put(ctx, r) }
	}
	list := func(c *caller) func(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
		return func(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) { return kv(c).Range(ctx, r) }
	}
	remove := func(c *caller) func(context.Context, *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
		return func(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
			return kv(c).DeleteRange(ctx, r)
		}
	}
	txn := func(c *caller) func(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
		return func(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) { return kv(c).Txn(ctx, r) }
	}
	compact := func(c *caller) func(context.Context, *pb.CompactionRequest) (*pb.CompactionResponse, error) {
		return func(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
			return kv(c).Compact(ctx, r)
		}
	}
	stream := func(name string, r *pb.RangeRequest) headerStep {
		return headerStep{"RangeStream", name, func(ctx context.Context, c *caller) ([]proto.Message, error) {
			s, err := kv(c).RangeStream(ctx, proto.Clone(r).(*pb.RangeRequest))
			if err != nil {
				return nil, err
			}
			// The number of chunks is up to the server: the last one has the header.
			chunks, err := all(s.Recv)
			if err != nil {
				return nil, err
			}
			return []proto.Message{chunks[len(chunks)-1].(*pb.RangeStreamResponse).RangeResponse}, nil
		}}
	}
	count, keys, old := get("\x00", "\x00"), get("\x00", "\x00"), get("\x00", "\x00")
	limited, sorted := get("\x00", "\x00"), get("\x00", "\x00")
	count.CountOnly, keys.KeysOnly, old.Revision, limited.Limit = true, true, 2, 1
	sorted.SortTarget, sorted.SortOrder = pb.RangeRequest_MOD, pb.RangeRequest_DESCEND
	forms := map[string]*pb.RangeRequest{
		"nothing": get("none", ""), "key": get("a", ""), "keys": get("\x00", "\x00"), "count": count, "keys only": keys,
		"old": old, "limited": limited, "sorted": sorted,
	}
	steps := []headerStep{
		one("Range", "empty store", list, get("a", "")),
		one("DeleteRange", "empty store", remove, &pb.DeleteRangeRequest{Key: []byte("a")}),
	}
	for _, key := range []string{"a", "b", "c", "a"} {
		steps = append(steps, one("Put", key, put, &pb.PutRequest{Key: []byte(key), PrevKv: true}))
	}
	for name, form := range forms {
		steps = append(steps, one("Range", name, list, form), stream(name, form))
	}
	return append(steps,
		one("DeleteRange", "a key", remove, &pb.DeleteRangeRequest{Key: []byte("b")}),
		one("DeleteRange", "nothing", remove, &pb.DeleteRangeRequest{Key: []byte("b")}),
		one("Txn", "nothing", txn, &pb.TxnRequest{}),
		one("Txn", "reads", txn, &pb.TxnRequest{Success: []*pb.RequestOp{getOp("a", ""), getOp("\x00", "\x00")}}),
		one("Txn", "writes", txn, &pb.TxnRequest{Success: []*pb.RequestOp{
			getOp("a", ""), putOp("a"), getOp("a", ""), deleteOp("c"), deleteOp("none"), getOp("\x00", "\x00")}}),
		one("Txn", "no change", txn, &pb.TxnRequest{Success: []*pb.RequestOp{getOp("a", ""), deleteOp("none")}}),
		one("Txn", "nested", txn, &pb.TxnRequest{Success: []*pb.RequestOp{
			getOp("a", ""), txnOp(putOp("d"), getOp("d", ""), txnOp(getOp("d", ""))), getOp("d", "")}}),
		one("Compact", "", compact, &pb.CompactionRequest{Revision: 3}),
		one("Compact", "physical", compact, &pb.CompactionRequest{Revision: 4, Physical: true}),
		one("Compact", "compacted", compact, &pb.CompactionRequest{Revision: 2}),
		one("Range", "compacted", list, old),
	)
}

func watchHeaders() []headerStep {
	step := func(name string, answers int, request *pb.WatchRequest) headerStep {
		return headerStep{"Watch", name, func(ctx context.Context, c *caller) (got []proto.Message, err error) {
			if c.watch == nil {
				if c.watch, err = pb.NewWatchClient(c.conn).Watch(context.Background()); err != nil {
					return nil, err
				}
			}
			if request != nil {
				if err := c.watch.Send(request); err != nil {
					return nil, err
				}
			} else if _, err := pb.NewKVClient(c.conn).Put(ctx, &pb.PutRequest{Key: []byte("w")}); err != nil {
				return nil, err
			}
			for range answers {
				answer, err := c.watch.Recv()
				if err != nil {
					return nil, err
				}
				got = append(got, answer)
			}
			return got, nil
		}}
	}
	create := func(key string, id, start int64) *pb.WatchRequest {
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
			CreateRequest: &pb.WatchCreateRequest{Key: []byte(key), WatchId: id, StartRevision: start}}}
	}
	progress := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
		ProgressRequest: &pb.WatchProgressRequest{}}}
	cancel := func(id int64) *pb.WatchRequest {
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
			CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
	}
	return []headerStep{
		step("created", 1, create("w", 1, 0)),
		step("progress", 1, progress),
		step("event", 1, nil),
		step("progress", 1, progress),
		step("duplicate", 1, create("w", 1, 0)),
		step("negative", 1, create("w", 2, -1)),
		step("history", 2, create("a", 3, 5)),
		step("cancelled", 1, cancel(3)),
		step("compacted", 2, create("a", 4, 1)),
		step("future", 1, create("w", 5, 1000)),
	}
}

func leaseHeaders() []headerStep {
	lease := func(c *caller) pb.LeaseClient { return pb.NewLeaseClient(c.conn) }
	grant := func(c *caller) func(context.Context, *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
		return func(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
			return lease(c).LeaseGrant(ctx, r)
		}
	}
	revoke := func(c *caller) func(context.Context, *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
		return func(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
			return lease(c).LeaseRevoke(ctx, r)
		}
	}
	left := func(c *caller) func(context.Context, *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
		return func(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
			return lease(c).LeaseTimeToLive(ctx, r)
		}
	}
	leases := func(c *caller) func(context.Context, *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
		return func(ctx context.Context, r *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
			return lease(c).LeaseLeases(ctx, r)
		}
	}
	keepAlive := func(name string, id int64) headerStep {
		return headerStep{"LeaseKeepAlive", name, func(ctx context.Context, c *caller) (got []proto.Message, err error) {
			if c.alive == nil {
				if c.alive, err = lease(c).LeaseKeepAlive(context.Background()); err != nil {
					return nil, err
				}
			}
			if err := c.alive.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				return nil, err
			}
			answer, err := c.alive.Recv()
			return []proto.Message{answer}, err
		}}
	}
	attach := headerStep{"Put", "with a lease", func(ctx context.Context, c *caller) ([]proto.Message, error) {
		answer, err := pb.NewKVClient(c.conn).Put(ctx, &pb.PutRequest{Key: []byte("l"), Lease: 7})
		return []proto.Message{answer}, err
	}}
	return []headerStep{
		one("LeaseLeases", "none", leases, &pb.LeaseLeasesRequest{}),
		one("LeaseGrant", "", grant, &pb.LeaseGrantRequest{ID: 7, TTL: 1000}),
		one("LeaseGrant", "again", grant, &pb.LeaseGrantRequest{ID: 7, TTL: 1000}),
		attach,
		one("LeaseTimeToLive", "", left, &pb.LeaseTimeToLiveRequest{ID: 7}),
		one("LeaseTimeToLive", "keys", left, &pb.LeaseTimeToLiveRequest{ID: 7, Keys: true}),
		one("LeaseTimeToLive", "unknown", left, &pb.LeaseTimeToLiveRequest{ID: 8}),
		one("LeaseLeases", "one", leases, &pb.LeaseLeasesRequest{}),
		keepAlive("", 7),
		keepAlive("unknown", 8),
		one("LeaseRevoke", "with a key", revoke, &pb.LeaseRevokeRequest{ID: 7}),
		one("LeaseRevoke", "unknown", revoke, &pb.LeaseRevokeRequest{ID: 7}),
		keepAlive("revoked", 7),
	}
}

func clusterHeaders() []headerStep {
	cluster := func(c *caller) pb.ClusterClient { return pb.NewClusterClient(c.conn) }
	step := func(method, name string, call func(context.Context, *caller) (proto.Message, error)) headerStep {
		return headerStep{method, name, func(ctx context.Context, c *caller) ([]proto.Message, error) {
			answer, err := call(ctx, c)
			return []proto.Message{answer}, err
		}}
	}
	return []headerStep{
		step("MemberList", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := cluster(c).MemberList(ctx, &pb.MemberListRequest{})
			return r, err
		}),
		step("MemberList", "linearizable", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := cluster(c).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			return r, err
		}),
		step("MemberAdd", "learner", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := cluster(c).MemberAdd(ctx, &pb.MemberAddRequest{
				PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
			c.added = r.GetMember().GetID()
			return r, err
		}),
		step("MemberUpdate", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := cluster(c).MemberUpdate(ctx, &pb.MemberUpdateRequest{
				ID: c.added, PeerURLs: []string{"http://127.0.0.1:2"}})
			return r, err
		}),
		// The learner does not exist, so it cannot catch up.
		step("MemberPromote", "not ready", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := cluster(c).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: c.added})
			return r, err
		}),
		step("MemberRemove", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := cluster(c).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: c.added})
			return r, err
		}),
		step("MemberAdd", "learner that starts", func(ctx context.Context, c *caller) (proto.Message, error) {
			c.second = newMember(c.t, cheap, "--initial-cluster-state=existing")
			c.second.name = "second"
			url := "http://" + c.second.peer
			r, err := cluster(c).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}, IsLearner: true})
			c.added = r.GetMember().GetID()
			c.second.cluster = c.m.cluster + "," + c.second.name + "=" + url
			return r, err
		}),
		step("MemberPromote", "ready", func(ctx context.Context, c *caller) (answer proto.Message, err error) {
			c.second.launch(c.m.program)
			insist(c.t, "promote a learner", func() error {
				answer, err = cluster(c).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: c.added})
				return err
			})
			return answer, err
		}),
		// A member counts as connected after five seconds.
		step("MemberRemove", "voter", func(ctx context.Context, c *caller) (answer proto.Message, err error) {
			insist(c.t, "remove a voter", func() error {
				answer, err = cluster(c).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: c.added})
				return err
			})
			return answer, err
		}),
	}
}

func maintenanceHeaders() []headerStep {
	maint := func(c *caller) pb.MaintenanceClient { return pb.NewMaintenanceClient(c.conn) }
	step := func(method, name string, call func(context.Context, *caller) (proto.Message, error)) headerStep {
		return headerStep{method, name, func(ctx context.Context, c *caller) ([]proto.Message, error) {
			answer, err := call(ctx, c)
			return []proto.Message{answer}, err
		}}
	}
	alarm := func(name string, action pb.AlarmRequest_AlarmAction) headerStep {
		return step("Alarm", name, func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := maint(c).Alarm(ctx, &pb.AlarmRequest{Action: action, MemberID: 7, Alarm: pb.AlarmType_NOSPACE})
			return r, err
		})
	}
	hash := func(name string, revision int64) headerStep {
		return step("HashKV", name, func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := maint(c).HashKV(ctx, &pb.HashKVRequest{Revision: revision})
			return r, err
		})
	}
	downgrade := func(name string, action pb.DowngradeRequest_DowngradeAction) headerStep {
		return step("Downgrade", name, func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := maint(c).Downgrade(ctx, &pb.DowngradeRequest{Action: action, Version: "3.6"})
			return r, err
		})
	}
	return []headerStep{
		step("Status", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := maint(c).Status(ctx, &pb.StatusRequest{})
			c.member = r.GetHeader().GetMemberId()
			return r, err
		}),
		alarm("list", pb.AlarmRequest_GET),
		alarm("raise", pb.AlarmRequest_ACTIVATE),
		alarm("disarm", pb.AlarmRequest_DEACTIVATE),
		hash("now", 0), hash("old", 6), hash("at a compaction", 4), hash("compacted", 3), hash("future", 1000),
		step("Hash", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := maint(c).Hash(ctx, &pb.HashRequest{})
			return r, err
		}),
		step("Defragment", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := maint(c).Defragment(ctx, &pb.DefragmentRequest{})
			return r, err
		}),
		{"Snapshot", "", func(ctx context.Context, c *caller) ([]proto.Message, error) {
			s, err := maint(c).Snapshot(ctx, &pb.SnapshotRequest{})
			if err != nil {
				return nil, err
			}
			messages, err := all(s.Recv)
			if err != nil {
				return nil, err
			}
			// The length of the file differs.
			return messages[:1], nil
		}},
		step("MoveLeader", "to itself", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := maint(c).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: c.member})
			return r, err
		}),
		downgrade("validate", pb.DowngradeRequest_VALIDATE),
		downgrade("enable", pb.DowngradeRequest_ENABLE),
		downgrade("twice", pb.DowngradeRequest_ENABLE),
		downgrade("cancel", pb.DowngradeRequest_CANCEL),
		downgrade("nothing to cancel", pb.DowngradeRequest_CANCEL),
	}
}

func authHeaders() []headerStep {
	auth := func(c *caller) pb.AuthClient { return pb.NewAuthClient(c.conn) }
	step := func(method, name string, call func(context.Context, *caller) (proto.Message, error)) headerStep {
		return headerStep{method, name, func(ctx context.Context, c *caller) ([]proto.Message, error) {
			answer, err := call(ctx, c)
			return []proto.Message{answer}, err
		}}
	}
	return []headerStep{
		step("UserAdd", "root", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "p"})
			return r, err
		}),
		step("UserAdd", "without a password", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).UserAdd(ctx, &pb.AuthUserAddRequest{Name: "u", Options: &authpb.UserAddOptions{NoPassword: true}})
			return r, err
		}),
		step("RoleAdd", "root", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "root"})
			return r, err
		}),
		step("RoleAdd", "r", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "r"})
			return r, err
		}),
		step("UserGrantRole", "root", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
			return r, err
		}),
		step("UserGrantRole", "r", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "u", Role: "r"})
			return r, err
		}),
		step("RoleGrantPermission", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{Key: []byte("k"), PermType: authpb.READ}})
			return r, err
		}),
		step("AuthStatus", "off", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).AuthStatus(ctx, &pb.AuthStatusRequest{})
			return r, err
		}),
		step("AuthEnable", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).AuthEnable(ctx, &pb.AuthEnableRequest{})
			return r, err
		}),
		step("Authenticate", "wrong", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "q"})
			return r, err
		}),
		step("Authenticate", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "p"})
			c.token = r.GetToken()
			return r, err
		}),
		step("AuthStatus", "on", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).AuthStatus(ctx, &pb.AuthStatusRequest{})
			return r, err
		}),
		step("UserGet", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).UserGet(ctx, &pb.AuthUserGetRequest{Name: "u"})
			return r, err
		}),
		step("UserList", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).UserList(ctx, &pb.AuthUserListRequest{})
			return r, err
		}),
		step("RoleGet", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "r"})
			return r, err
		}),
		step("RoleList", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).RoleList(ctx, &pb.AuthRoleListRequest{})
			return r, err
		}),
		step("UserChangePassword", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).UserChangePassword(ctx, &pb.AuthUserChangePasswordRequest{Name: "u", Password: "p"})
			return r, err
		}),
		step("RoleRevokePermission", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).RoleRevokePermission(ctx, &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("k")})
			return r, err
		}),
		step("UserRevokeRole", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).UserRevokeRole(ctx, &pb.AuthUserRevokeRoleRequest{Name: "u", Role: "r"})
			return r, err
		}),
		step("UserDelete", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: "u"})
			return r, err
		}),
		step("RoleDelete", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).RoleDelete(ctx, &pb.AuthRoleDeleteRequest{Role: "r"})
			return r, err
		}),
		step("RoleDelete", "unknown", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).RoleDelete(ctx, &pb.AuthRoleDeleteRequest{Role: "r"})
			return r, err
		}),
		step("AuthDisable", "", func(ctx context.Context, c *caller) (proto.Message, error) {
			r, err := auth(c).AuthDisable(ctx, &pb.AuthDisableRequest{})
			return r, err
		}),
	}
}
