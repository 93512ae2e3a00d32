package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// contender is a client of the services Lock and Election of one of the two servers.
type contender struct {
	t        *testing.T
	m        *member
	conn     *grpc.ClientConn
	token    string
	answers  []answer
	observed map[string]epb.Election_ObserveClient
}

// The server under test runs a script of locks and elections as etcd 3.7.1 does: every field of
// every answer, every code and text, and the keys that are left.
func TestLocksAndElectionsOfTheServer(t *testing.T) {
	for name, script := range map[string]func(*contender){
		"locks":     scriptOfLocks,
		"elections": scriptOfElections,
		"users":     scriptOfUsers,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sides := make([]*contender, 2)
			for i, p := range []program{ours(), real()} {
				m := startMember(t, p, cheap)
				sides[i] = &contender{t: t, m: m, conn: m.conn(), observed: map[string]epb.Election_ObserveClient{}}
				script(sides[i])
			}
			if diff := gocmp.Diff(sides[1].answers, sides[0].answers, protocmp.Transform()); diff != "" {
				t.Errorf("(-reference +ours)\n%s", diff)
			}
		})
	}
}

// note remembers an answer for the comparison.
func (c *contender) note(msg proto.Message, err error) {
	c.t.Helper()
	if err != nil {
		st := status.Convert(err)
		c.answers = append(c.answers, answer{Err: fmt.Sprintf("%v: %s", st.Code(), st.Message())})
		return
	}
	if h, ok := msg.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		normalizeHeader(h.GetHeader())
	}
	c.answers = append(c.answers, answer{Msg: msg})
}

func (c *contender) ctx() context.Context {
	if c.token == "" {
		return ctx(c.t)
	}
	return metadata.AppendToOutgoingContext(ctx(c.t), "token", c.token)
}

// grant makes leases, whose ids are parts of keys and so have to be the same on both sides.
func (c *contender) grant(ids ...int64) {
	c.t.Helper()
	for _, id := range ids {
		need(pb.NewLeaseClient(c.conn).LeaseGrant(c.ctx(), &pb.LeaseGrantRequest{ID: id, TTL: 1000}))(c.t)
	}
}

func (c *contender) lock(name string, lease int64) (proto.Message, error) {
	return lpb.NewLockClient(c.conn).Lock(c.ctx(), &lpb.LockRequest{Name: []byte(name), Lease: lease})
}

func (c *contender) unlock(key string) (proto.Message, error) {
	return lpb.NewLockClient(c.conn).Unlock(c.ctx(), &lpb.UnlockRequest{Key: []byte(key)})
}

func (c *contender) campaign(name string, lease int64, value string) (proto.Message, error) {
	request := &epb.CampaignRequest{Name: []byte(name), Lease: lease, Value: []byte(value)}
	return epb.NewElectionClient(c.conn).Campaign(c.ctx(), request)
}

func (c *contender) proclaim(leader *epb.LeaderKey, value string) (proto.Message, error) {
	request := &epb.ProclaimRequest{Leader: leader, Value: []byte(value)}
	return epb.NewElectionClient(c.conn).Proclaim(c.ctx(), request)
}

func (c *contender) resign(leader *epb.LeaderKey) (proto.Message, error) {
	return epb.NewElectionClient(c.conn).Resign(c.ctx(), &epb.ResignRequest{Leader: leader})
}

func (c *contender) leader(name string) (proto.Message, error) {
	return epb.NewElectionClient(c.conn).Leader(c.ctx(), &epb.LeaderRequest{Name: []byte(name)})
}

// observe starts to observe an election under a label.
func (c *contender) observe(label, name string) {
	c.t.Helper()
	stream, err := epb.NewElectionClient(c.conn).Observe(c.ctx(), &epb.LeaderRequest{Name: []byte(name)})
	if err != nil {
		c.t.Fatal(err)
	}
	c.observed[label] = stream
}

// hears notes the next answer that an observer gets.
func (c *contender) hears(label string) {
	c.t.Helper()
	told, err := c.observed[label].Recv()
	if errors.Is(err, io.EOF) {
		c.answers = append(c.answers, answer{Err: "the stream ended"})
		return
	}
	c.note(told, err)
}

// gaveUp makes a request with a short deadline. Which end notices it first, and so the text, is
// chance.
func (c *contender) gaveUp(ask func(context.Context, *grpc.ClientConn) error) {
	c.t.Helper()
	short, cancel := context.WithTimeout(c.ctx(), 200*time.Millisecond)
	defer cancel()
	if err := ask(short, c.conn); status.Code(err) != codes.DeadlineExceeded {
		c.t.Errorf("%s: %v", c.m, err)
	}
}

// waiting is a request that waits for others.
type waiting struct {
	c    *contender
	done chan func()
}

// waits sends a request that waits, and returns when there are count keys below the name.
func (c *contender) waits(name string, count int64, ask func() (proto.Message, error)) waiting {
	c.t.Helper()
	w := waiting{c: c, done: make(chan func(), 1)}
	go func() {
		msg, err := ask()
		w.done <- func() { c.note(msg, err) }
	}()
	c.keys(name, count)
	return w
}

// answered notes what a request that waited was answered with.
func (w waiting) answered() {
	w.c.t.Helper()
	select {
	case note := <-w.done:
		note()
	case <-time.After(callTimeout):
		w.c.t.Fatalf("%s: no answer", w.c.m)
	}
}

// keys waits until there are count keys below the name.
func (c *contender) keys(name string, count int64) {
	c.t.Helper()
	request := &pb.RangeRequest{Key: []byte(name + "/"), RangeEnd: []byte(name + "0"), CountOnly: true}
	for deadline := time.Now().Add(callTimeout); ; time.Sleep(5 * time.Millisecond) {
		got := need(pb.NewKVClient(c.conn).Range(c.ctx(), request))(c.t).Count
		if got == count {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %d keys below %s, want %d", c.m, got, name, count)
		}
	}
}

// all notes all keys.
func (c *contender) all() {
	c.t.Helper()
	c.note(pb.NewKVClient(c.conn).Range(c.ctx(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}))
}

func scriptOfLocks(c *contender) {
	c.grant(0x1a, 2, 3, 4)
	c.note(c.lock("l", 0x1a))
	c.note(c.lock("l", 0x1a))
	second := c.waits("l", 2, func() (proto.Message, error) { return c.lock("l", 2) })
	third := c.waits("l", 3, func() (proto.Message, error) { return c.lock("l", 3) })
	c.note(c.lock("other", 3))
	c.note(c.lock("", 2))
	c.all()
	c.note(c.unlock("l/1a"))
	second.answered()
	c.note(c.unlock("l/2"))
	third.answered()
	c.note(c.unlock("l/2"))
	c.note(c.unlock("never there"))
	c.note(c.unlock(""))
	c.note(c.lock("l", 99))
	c.note(c.lock("l", -99))
	// A lease that ends takes its lock along, and its place in the queue.
	fourth := c.waits("l", 2, func() (proto.Message, error) { return c.lock("l", 4) })
	need(pb.NewLeaseClient(c.conn).LeaseRevoke(c.ctx(), &pb.LeaseRevokeRequest{ID: 4}))(c.t)
	c.note(c.unlock("l/3"))
	fourth.answered()
	// Who gives up by its deadline leaves nothing.
	c.note(c.lock("l", 2))
	c.gaveUp(func(c context.Context, conn *grpc.ClientConn) error {
		_, err := lpb.NewLockClient(conn).Lock(c, &lpb.LockRequest{Name: []byte("l"), Lease: 3})
		return err
	})
	c.keys("l", 1)
	// A client without a lease gets one of a minute.
	locked := need(lpb.NewLockClient(c.conn).Lock(c.ctx(), &lpb.LockRequest{Name: []byte("new")}))(c.t)
	var lease int64
	if _, err := fmt.Sscanf(string(locked.Key), "new/%x", &lease); err != nil {
		c.t.Errorf("%s: key %q: %v", c.m, locked.Key, err)
	}
	left := need(pb.NewLeaseClient(c.conn).LeaseTimeToLive(c.ctx(), &pb.LeaseTimeToLiveRequest{ID: lease}))(c.t)
	if left.GrantedTTL != 60 {
		c.t.Errorf("%s: a lease of %d s", c.m, left.GrantedTTL)
	}
	c.note(c.unlock(string(locked.Key)))
	c.all()
}

func scriptOfElections(c *contender) {
	c.grant(1, 2, 3)
	key := func(lease, rev int64) *epb.LeaderKey {
		return &epb.LeaderKey{Name: []byte("e"), Key: fmt.Appendf(nil, "e/%x", lease), Rev: rev, Lease: lease}
	}
	c.note(c.leader("e"))
	c.observe("early", "e")
	c.note(c.campaign("e", 1, "one"))
	c.hears("early")
	c.note(c.campaign("e", 1, "one"))
	c.note(c.campaign("e", 1, "uno"))
	c.hears("early")
	c.note(c.leader("e"))
	c.note(c.proclaim(key(1, 2), "un"))
	c.hears("early")
	c.note(c.proclaim(key(1, 3), "x"))
	c.note(c.proclaim(nil, "x"))
	c.note(c.proclaim(&epb.LeaderKey{}, "x"))
	c.note(c.resign(nil))
	c.note(c.resign(&epb.LeaderKey{}))
	c.note(c.campaign("e", 99, "x"))
	c.observe("late", "e")
	c.hears("late")
	second := c.waits("e", 2, func() (proto.Message, error) { return c.campaign("e", 2, "two") })
	third := c.waits("e", 3, func() (proto.Message, error) { return c.campaign("e", 3, "three") })
	c.note(c.leader("e"))
	c.note(c.resign(key(1, 2)))
	second.answered()
	c.hears("early")
	c.hears("late")
	c.note(c.resign(key(1, 2)))
	c.note(c.proclaim(key(1, 2), "x"))
	c.note(c.campaign("e", 2, "dos"))
	c.hears("early")
	c.hears("late")
	need(pb.NewLeaseClient(c.conn).LeaseRevoke(c.ctx(), &pb.LeaseRevokeRequest{ID: 2}))(c.t)
	third.answered()
	c.hears("early")
	c.note(c.leader("e"))
	// A candidate that gives up is none any more.
	c.grant(4)
	c.gaveUp(func(c context.Context, conn *grpc.ClientConn) error {
		_, err := epb.NewElectionClient(conn).Campaign(c, &epb.CampaignRequest{Name: []byte("e"), Lease: 4})
		return err
	})
	c.keys("e", 1)
	c.all()
}

func scriptOfUsers(c *contender) {
	v3 := c.m.dial()
	need(v3.UserAdd(ctx(c.t), "root", "root"))(c.t)
	need(v3.UserGrantRole(ctx(c.t), "root", "root"))(c.t)
	need(v3.UserAdd(ctx(c.t), "u", "u"))(c.t)
	need(v3.RoleAdd(ctx(c.t), "r"))(c.t)
	readWrite := clientv3.PermissionType(clientv3.PermReadWrite)
	need(v3.RoleGrantPermission(ctx(c.t), "r", "l/", "l0", readWrite))(c.t)
	need(v3.UserGrantRole(ctx(c.t), "u", "r"))(c.t)
	c.grant(1, 2)
	need(v3.AuthEnable(ctx(c.t)))(c.t)

	c.note(c.lock("l", 1))
	c.note(c.lock("l", 0))
	c.note(c.unlock("l/1"))
	c.note(c.campaign("l", 1, "v"))
	c.note(c.leader("l"))
	c.token = need(pb.NewAuthClient(c.conn).Authenticate(ctx(c.t), &pb.AuthenticateRequest{Name: "u", Password: "u"}))(c.t).Token
	c.note(c.lock("l", 1))
	c.note(c.lock("m", 1))
	c.note(c.unlock("m/1"))
	second := c.waits("l", 2, func() (proto.Message, error) { return c.lock("l", 2) })
	c.note(c.unlock("l/1"))
	second.answered()
	c.note(c.leader("m"))
	c.note(c.campaign("l", 2, "v"))
	c.token = "nobody's"
	c.note(c.lock("l", 1))
}
