package conformance

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// users adds root, and u, who may read and write keys that begin with u/, and does not enable
// authentication.
func (c *cluster) users() {
	c.t.Helper()
	admin := c.leader().client3()
	for _, name := range []string{"root", "u"} {
		must(c.t, "add "+name, second(admin.UserAdd(ctx(c.t), name, name+"-pw")))
		must(c.t, "add a role", second(admin.RoleAdd(ctx(c.t), name)))
		must(c.t, "grant", second(admin.UserGrantRole(ctx(c.t), name, name)))
	}
	both := clientv3.PermissionType(clientv3.PermReadWrite)
	must(c.t, "permit", second(admin.RoleGrantPermission(ctx(c.t), "u", "u/", "u0", both)))
}

// Authentication is enabled and disabled repeatedly under load. No anonymous client writes while it
// is enabled, no authorized one is locked out for long, no acknowledged write is lost, and the
// members stay equal.
func TestAuthSwitchedUnderLoad(t *testing.T) {
	for name, programs := range map[string][]program{
		"ours": {ours(), ours(), ours()}, "reference": {real(), real(), real()}, "mixed": {ours(), real(), ours()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, cheap)
			c.start(programs...)
			c.users()
			l := &switchedLoad{c: c, acked: map[string]int64{}, failed: map[string]int{}}
			l.start()
			root, err := c.members[0].dialUser("root")
			must(t, "dial", err)
			defer root.Close()
			for range 15 {
				must(t, "enable", second(root.AuthEnable(ctx(t))))
				l.enabled.Add(1)
				l.await(&l.byName, 20)
				l.await(&l.refused, 20)
				l.enabled.Add(1)
				must(t, "disable", second(root.AuthDisable(ctx(t))))
				l.await(&l.anonymous, 20)
				l.await(&l.byName, 20)
			}
			l.finish()
		})
	}
}

// dialUser returns a client that authenticates when necessary, even if authentication is disabled
// when it connects.
func (m *member) dialUser(user string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{m.client}, DialTimeout: callTimeout, Username: user, Password: user + "-pw",
		Logger: zap.NewNop(),
	})
}

// switchedLoad is a load of authenticated and anonymous clients.
type switchedLoad struct {
	c *cluster
	// enabled is odd from the moment that authentication is enabled on every member asked, until it
	// is about to be disabled.
	enabled atomic.Int64
	// The writes of authenticated and of anonymous clients, and the refusals of the latter.
	byName, anonymous, refused atomic.Int64
	ending                     atomic.Bool
	wg                         sync.WaitGroup

	mu     sync.Mutex
	acked  map[string]int64
	failed map[string]int
}

func (l *switchedLoad) start() {
	for i, m := range l.c.members {
		named, err := m.dialUser("u")
		must(l.c.t, "dial", err)
		l.c.t.Cleanup(func() { named.Close() })
		for w := range 2 {
			l.wg.Go(func() {
				for n := 0; !l.ending.Load(); n++ {
					if l.put(named, fmt.Sprintf("u/%d/%d/%05d", i, w, n)) == nil {
						l.byName.Add(1)
					}
				}
			})
		}
		l.wg.Go(func() {
			for n := 0; !l.ending.Load(); n++ {
				l.anonymously(m, fmt.Sprintf("u/anonymous/%d/%05d", i, n))
			}
		})
	}
	l.c.t.Cleanup(l.end)
}

func (l *switchedLoad) end() {
	l.ending.Store(true)
	l.wg.Wait()
}

func (l *switchedLoad) put(client *clientv3.Client, key string) error {
	within, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	r, err := client.Put(within, key, key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed[err.Error()]++
		time.Sleep(loadPause)
		return err
	}
	l.acked[key] = r.Header.Revision
	return nil
}

// anonymously writes without a user, which must fail if authentication was enabled throughout.
func (l *switchedLoad) anonymously(m *member, key string) {
	before := l.enabled.Load()
	err := l.put(m.client3(), key)
	after := l.enabled.Load()
	switch {
	case err != nil:
		l.refused.Add(1)
	case before == after && before%2 == 1:
		l.c.t.Errorf("%s: nobody wrote %s while authentication was on", m, key)
	default:
		l.anonymous.Add(1)
	}
	time.Sleep(loadPause)
}

func (l *switchedLoad) await(count *atomic.Int64, n int64) {
	l.c.t.Helper()
	start := count.Load()
	eventually(l.c.t, "the load to go on", func() bool { return count.Load() >= start+n })
}

func (l *switchedLoad) finish() {
	l.c.t.Helper()
	l.end()
	for _, m := range l.c.members {
		r, err := m.client3().Get(ctx(l.c.t), "u/", clientv3.WithPrefix())
		must(l.c.t, "read back", err)
		held := map[string]int64{}
		for _, kv := range r.Kvs {
			held[string(kv.Key)] = kv.ModRevision
		}
		for key, rev := range l.acked {
			if held[key] != rev {
				l.c.t.Errorf("%s: %s was acknowledged at %d, found at %d", m, key, rev, held[key])
			}
		}
	}
	l.c.sameHash()
	l.c.t.Logf("%d writes with a name, %d without, %d refused; errors: %v",
		l.byName.Load(), l.anonymous.Load(), l.refused.Load(), l.failed)
}

// A token is invalid from the moment that its user is deleted, at every member and for every
// request, and stays so when a user of that name is created again. Streams opened with it continue
// or end as in the reference.
func TestTokenAfterItsUser(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, []byte("of all members"))
	for kind, tokens := range map[string]string{"simple": "simple", "jwt": "jwt,sign-method=HS256,priv-key=" + secret} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			want, got := afterItsUser(t, real(), tokens), afterItsUser(t, ours(), tokens)
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("(-reference +ours)\n%s", diff)
			}
			t.Log(strings.Join(want, "\n"))
		})
	}
}

// afterItsUser describes what a token permits before and after its user is deleted.
func afterItsUser(t *testing.T, p program, tokens string) []string {
	c := newCluster(t, 3, cheap, "--auth-token="+tokens)
	c.start(p, p, p)
	c.users()
	leader := c.leader()
	must(t, "enable", second(leader.client3().AuthEnable(ctx(t))))
	conns, roots := map[*member]*grpc.ClientConn{}, map[*member]*clientv3.Client{}
	for _, m := range c.members {
		root, err := m.dialUser("root")
		must(t, "root logs in", err)
		t.Cleanup(func() { root.Close() })
		conns[m], roots[m] = m.conn(), root
	}
	applied := func(m *member) uint64 {
		s, err := roots[m].Status(ctx(t), m.client)
		must(t, "status", err)
		return s.RaftAppliedIndex
	}
	root := roots[leader]
	login, err := pb.NewAuthClient(conns[leader]).Authenticate(ctx(t), &pb.AuthenticateRequest{Name: "u", Password: "u-pw"})
	must(t, "u logs in", err)

	var seen []string
	look := func(when string) {
		for i, m := range c.members {
			done := applied(leader)
			eventually(t, m.String()+" to have caught up", func() bool { return applied(m) >= done })
			for _, said := range tryToken(t, conns[m], login.Token) {
				seen = append(seen, fmt.Sprintf("%s, member %d: %s", when, i, said))
			}
		}
	}
	look("while u is there")
	held := openWithToken(t, conns[leader], login.Token)
	must(t, "delete u", second(root.UserDelete(ctx(t), "u")))
	look("without u")
	seen = append(seen, held.afterwards(t, root)...)
	must(t, "add u", second(root.UserAdd(ctx(t), "u", "another")))
	must(t, "grant", second(root.UserGrantRole(ctx(t), "u", "u")))
	look("with another u")
	return seen
}

func withToken(c context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(c, "token", token)
}

func tryToken(t *testing.T, conn *grpc.ClientConn, token string) []string {
	kv, lease, auth := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewAuthClient(conn)
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("u/a")}}}
	try := []struct {
		name string
		do   func(context.Context) error
	}{
		{"put", func(c context.Context) error { return second(kv.Put(c, &pb.PutRequest{Key: []byte("u/a")})) }},
		{"get", func(c context.Context) error { return second(kv.Range(c, &pb.RangeRequest{Key: []byte("u/a")})) }},
		{"serializable get", func(c context.Context) error {
			return second(kv.Range(c, &pb.RangeRequest{Key: []byte("u/a"), Serializable: true}))
		}},
		{"delete", func(c context.Context) error {
			return second(kv.DeleteRange(c, &pb.DeleteRangeRequest{Key: []byte("u/a")}))
		}},
		{"txn", func(c context.Context) error { return second(kv.Txn(c, &pb.TxnRequest{Success: []*pb.RequestOp{put}})) }},
		{"foreign get", func(c context.Context) error { return second(kv.Range(c, &pb.RangeRequest{Key: []byte("a")})) }},
		{"grant", func(c context.Context) error { return second(lease.LeaseGrant(c, &pb.LeaseGrantRequest{TTL: 600})) }},
		{"leases", func(c context.Context) error { return second(lease.LeaseLeases(c, &pb.LeaseLeasesRequest{})) }},
		{"user", func(c context.Context) error { return second(auth.UserGet(c, &pb.AuthUserGetRequest{Name: "u"})) }},
		{"role", func(c context.Context) error { return second(auth.RoleGet(c, &pb.AuthRoleGetRequest{Role: "u"})) }},
		{"add a user", func(c context.Context) error {
			return second(auth.UserAdd(c, &pb.AuthUserAddRequest{Name: "v", Options: &authpb.UserAddOptions{NoPassword: true}}))
		}},
		{"watch", func(c context.Context) error {
			stream, err := pb.NewWatchClient(conn).Watch(c)
			if err != nil {
				return err
			}
			create := &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("u/a")}}
			must(t, "watch", stream.Send(&pb.WatchRequest{RequestUnion: create}))
			first, err := stream.Recv()
			if err == nil && first.Canceled {
				err = errors.New(first.CancelReason)
			}
			return err
		}},
	}
	var said []string
	for _, request := range try {
		err := request.do(withToken(ctx(t), token))
		said = append(said, request.name+": "+wordsOf(err))
	}
	return said
}

func wordsOf(err error) string {
	if err == nil {
		return "done"
	}
	s := status.Convert(err)
	return fmt.Sprintf("%v: %s", s.Code(), s.Message())
}

// opened holds what was opened with a token.
type opened struct {
	watch pb.Watch_WatchClient
	alive pb.Lease_LeaseKeepAliveClient
	lease int64
	end   context.CancelFunc
}

func openWithToken(t *testing.T, conn *grpc.ClientConn, token string) *opened {
	t.Helper()
	open, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	c := withToken(open, token)
	watch, err := pb.NewWatchClient(conn).Watch(c)
	must(t, "watch", err)
	create := &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("u/"), RangeEnd: []byte("u0")}}
	must(t, "watch", watch.Send(&pb.WatchRequest{RequestUnion: create}))
	must(t, "watch", second(watch.Recv()))
	lease, err := pb.NewLeaseClient(conn).LeaseGrant(c, &pb.LeaseGrantRequest{TTL: 600})
	must(t, "grant", err)
	alive, err := pb.NewLeaseClient(conn).LeaseKeepAlive(c)
	must(t, "keep alive", err)
	o := &opened{watch: watch, alive: alive, lease: lease.ID, end: end}
	must(t, "keep alive", alive.Send(&pb.LeaseKeepAliveRequest{ID: o.lease}))
	must(t, "keep alive", second(alive.Recv()))
	return o
}

// afterwards describes what happens to it once the user is deleted.
func (o *opened) afterwards(t *testing.T, root *clientv3.Client) []string {
	t.Helper()
	// A receiver whose response does not arrive sees the streams end.
	defer time.AfterFunc(callTimeout, o.end).Stop()
	must(t, "put", second(root.Put(ctx(t), "u/after", "x")))
	event, err := o.watch.Recv()
	watched := wordsOf(err)
	if err == nil {
		watched = fmt.Sprintf("%d events, cancelled: %v %s", len(event.Events), event.Canceled, event.CancelReason)
	}
	must(t, "keep alive", o.alive.Send(&pb.LeaseKeepAliveRequest{ID: o.lease}))
	alive, err := o.alive.Recv()
	renewed := wordsOf(err)
	if err == nil {
		renewed = fmt.Sprintf("ttl %d", alive.TTL)
	}
	return []string{"open watch: " + watched, "open renewal: " + renewed}
}
