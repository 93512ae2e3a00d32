package conformance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const authRequestsPerSeed = 900

// cheap makes logging in cost nothing: these tests are not about bcrypt.
const cheap = "--bcrypt-cost=4"

// The server under test answers a random script about users, roles and keys as
// etcd 3.7.1 does, whoever asks: every field, every code and text.
func TestSameAnswersToEveryUser(t *testing.T) {
	all := &outcomes{by: map[string]int{}}
	t.Cleanup(func() { all.check(t) })
	more := uint64(0)
	if n, err := strconv.ParseUint(os.Getenv("CONFORMANCE_SEEDS"), 10, 32); err == nil {
		more = n
	}
	for seed := uint64(201); seed <= 206+more; seed++ {
		t.Run(fmt.Sprintf("simple-%d", seed), func(t *testing.T) {
			t.Parallel()
			compareUsers(t, seed, all, "simple", false)
		})
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of both servers"), 0o600); err != nil {
		t.Fatal(err)
	}
	for seed := uint64(1301); seed <= 1304+more; seed++ {
		t.Run(fmt.Sprintf("jwt-%d", seed), func(t *testing.T) {
			t.Parallel()
			compareUsers(t, seed, all, "jwt,sign-method=HS256,priv-key="+secret, true)
		})
	}
}

// authed is a request in the name of a user, with the token that it got last.
type authed struct {
	user    string
	request any
}

// watchCreate is a watch of which only the first response counts.
type watchCreate struct{ *pb.WatchCreateRequest }

// userSide is one of the two servers, and the tokens that it or, if both sign
// with one key, the other one gave out.
type userSide struct {
	*side
	tokens map[string]string
}

func compareUsers(t *testing.T, seed uint64, all *outcomes, tokens string, exchange bool) {
	flags := []string{cheap, "--auth-token=" + tokens}
	sides := make([]*userSide, 2)
	for i, p := range []program{ours(), real()} {
		s := &side{t: t, m: startMember(t, p, flags...)}
		s.conn = s.m.conn()
		sides[i] = &userSide{s, map[string]string{"garbage": "garbage", "future": "x.1x"}}
	}
	draw := &userScript{script: newScript(seed, true)}
	differences, seen := 0, map[string]int{}
	for i := range authRequestsPerSeed {
		r := draw.next(i)
		var answers [2]answer
		var tokens [2]string
		for n, s := range sides {
			answers[n], tokens[n] = s.ask(r)
		}
		if login, ok := r.request.(*pb.AuthenticateRequest); ok && tokens[0] != "" && tokens[1] != "" {
			if exchange {
				slices.Reverse(tokens[:])
			}
			sides[0].tokens[login.Name], sides[1].tokens[login.Name] = tokens[0], tokens[1]
		}
		if diff := difference(answers[1], answers[0]); diff != "" {
			t.Errorf("request %d: %s asks %T %v\n(-reference +ours)\n%s", i, r.user, r.request, r.request, diff)
			if differences++; differences >= 5 {
				t.Fatal("too many differences")
			}
		}
		draw.learn(r.request, answers[1])
		seen[answers[1].Err]++
	}
	for err, n := range seen {
		all.count(err, n)
	}
}

// outcomes counts what all scripts together came to.
type outcomes struct {
	sync.Mutex
	total int
	by    map[string]int
}

func (o *outcomes) count(err string, n int) {
	o.Lock()
	defer o.Unlock()
	o.total += n
	o.by[err] += n
}

// check is for scripts in which nobody may do anything: they would prove little.
func (o *outcomes) check(t *testing.T) {
	t.Logf("%d requests: %v", o.total, o.by)
	for err, share := range map[string]int{
		"": 5, "PermissionDenied: etcdserver: permission denied": 30,
		"InvalidArgument: etcdserver: revision of auth store is old": 100,
		"Unauthenticated: etcdserver: invalid auth token":            100,
	} {
		if o.by[err] < o.total/share {
			t.Errorf("%q: only %d times in %d requests", err, o.by[err], o.total)
		}
	}
}

var simpleToken = regexp.MustCompile(`^[a-zA-Z]{16}\.[0-9]+$`)

// ask makes a request and its answer comparable; a token that was given out is
// returned apart.
func (s *userSide) ask(r authed) (answer, string) {
	c, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if token, ok := s.tokens[r.user]; ok {
		c = metadata.AppendToOutgoingContext(c, "token", token)
	}
	msg, err := s.callAs(c, r.request)
	if err != nil {
		st := status.Convert(err)
		return answer{Err: fmt.Sprintf("%v: %s", st.Code(), st.Message())}, ""
	}
	token := ""
	switch m := msg.(type) {
	case *pb.AuthenticateResponse:
		token, m.Token = m.Token, "of an unknown kind"
		if simpleToken.MatchString(token) {
			m.Token = "simple"
		} else if strings.Count(token, ".") == 2 {
			m.Token = "signed"
		}
	case *pb.StatusResponse:
		m = &pb.StatusResponse{Version: m.Version}
		msg = m
	case *pb.MemberListResponse:
		m.Members = nil
	}
	normalize(r.request, msg)
	shorten(msg.ProtoReflect())
	return answer{Msg: msg}, token
}

func (s *userSide) callAs(c context.Context, request any) (proto.Message, error) {
	auth, maint := pb.NewAuthClient(s.conn), pb.NewMaintenanceClient(s.conn)
	switch r := request.(type) {
	case *pb.AuthEnableRequest:
		return auth.AuthEnable(c, r)
	case *pb.AuthDisableRequest:
		return auth.AuthDisable(c, r)
	case *pb.AuthStatusRequest:
		return auth.AuthStatus(c, r)
	case *pb.AuthenticateRequest:
		return auth.Authenticate(c, r)
	case *pb.AuthUserAddRequest:
		return auth.UserAdd(c, r)
	case *pb.AuthUserGetRequest:
		return auth.UserGet(c, r)
	case *pb.AuthUserListRequest:
		return auth.UserList(c, r)
	case *pb.AuthUserDeleteRequest:
		return auth.UserDelete(c, r)
	case *pb.AuthUserChangePasswordRequest:
		return auth.UserChangePassword(c, r)
	case *pb.AuthUserGrantRoleRequest:
		return auth.UserGrantRole(c, r)
	case *pb.AuthUserRevokeRoleRequest:
		return auth.UserRevokeRole(c, r)
	case *pb.AuthRoleAddRequest:
		return auth.RoleAdd(c, r)
	case *pb.AuthRoleGetRequest:
		return auth.RoleGet(c, r)
	case *pb.AuthRoleListRequest:
		return auth.RoleList(c, r)
	case *pb.AuthRoleDeleteRequest:
		return auth.RoleDelete(c, r)
	case *pb.AuthRoleGrantPermissionRequest:
		return auth.RoleGrantPermission(c, r)
	case *pb.AuthRoleRevokePermissionRequest:
		return auth.RoleRevokePermission(c, r)
	case *pb.StatusRequest:
		return maint.Status(c, r)
	case *pb.DefragmentRequest:
		return maint.Defragment(c, r)
	case *pb.MoveLeaderRequest:
		return maint.MoveLeader(c, r)
	case *pb.MemberListRequest:
		return pb.NewClusterClient(s.conn).MemberList(c, r)
	case *pb.MemberRemoveRequest:
		return pb.NewClusterClient(s.conn).MemberRemove(c, r)
	case *pb.LeaseKeepAliveRequest:
		stream, err := pb.NewLeaseClient(s.conn).LeaseKeepAlive(c)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(r); err != nil {
			return nil, err
		}
		return stream.Recv()
	case watchCreate:
		stream, err := pb.NewWatchClient(s.conn).Watch(c)
		if err != nil {
			return nil, err
		}
		create := &pb.WatchRequest_CreateRequest{CreateRequest: r.WatchCreateRequest}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: create}); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	return s.call(c, request, 0)
}

// userScript draws who asks, and for what.
type userScript struct{ *script }

func (s *userScript) user() string { return pick(s.script, "root", "u", "u", "v", "v", "w", "x", "") }
func (s *userScript) role() string { return pick(s.script, "root", "r", "r", "s", "s", "t", "") }
func (s *userScript) password() string {
	return pick(s.script, "one", "one", "one", "one", "two", "")
}

// caller is mostly someone who has logged in.
func (s *userScript) caller() string {
	return pick(s.script, "root", "root", "u", "u", "u", "v", "v", "w", "x", "", "garbage", "future")
}

// start has everything that can be granted, and switches authentication on.
func start() []authed {
	script := []authed{
		{"", &pb.AuthEnableRequest{}},
		{"", &pb.AuthenticateRequest{Name: "root", Password: "one"}},
	}
	for _, name := range []string{"root", "u", "v", "w"} {
		script = append(script, authed{"", &pb.AuthUserAddRequest{Name: name, Password: "one"}})
	}
	script = append(script, authed{"", &pb.AuthEnableRequest{}})
	for _, name := range []string{"root", "r", "s"} {
		script = append(script, authed{"", &pb.AuthRoleAddRequest{Name: name}})
	}
	for _, grant := range [][2]string{{"root", "root"}, {"u", "r"}, {"v", "r"}, {"v", "s"}} {
		script = append(script, authed{"", &pb.AuthUserGrantRoleRequest{User: grant[0], Role: grant[1]}})
	}
	script = append(script, authed{"", &pb.AuthEnableRequest{}})
	for _, name := range []string{"root", "u", "v"} {
		script = append(script, authed{"", &pb.AuthenticateRequest{Name: name, Password: "one"}})
	}
	return script
}

func (s *userScript) next(i int) authed {
	if first := start(); i < len(first) {
		return first[i]
	}
	switch n := s.rng.IntN(100); {
	case n < 40:
		for {
			request := s.script.next()
			if _, ok := request.(history); !ok {
				return authed{s.caller(), request}
			}
		}
	case n < 48:
		key, end := s.interval()
		start := pick[int64](s.script, 0, 0, 0, -1)
		return authed{s.caller(), watchCreate{&pb.WatchCreateRequest{Key: key, RangeEnd: end, StartRevision: start}}}
	case n < 60:
		return authed{"", &pb.AuthenticateRequest{Name: s.user(), Password: s.password()}}
	case n < 80:
		// Root comes and goes in between.
		return authed{pick(s.script, "root", "root", "root", s.caller()), s.change()}
	case n < 84:
		return authed{"", &pb.AuthenticateRequest{Name: "root", Password: "one"}}
	default:
		return authed{s.caller(), s.question()}
	}
}

func (s *userScript) change() any {
	switch n := s.rng.IntN(60); {
	case n == 0:
		return &pb.AuthDisableRequest{}
	case n < 6:
		return &pb.AuthEnableRequest{}
	case n < 8:
		return &pb.AuthUserDeleteRequest{Name: s.user()}
	case n < 14:
		r := &pb.AuthUserAddRequest{Name: s.user(), Password: s.password()}
		if s.one(4) {
			r.Options = &authpb.UserAddOptions{NoPassword: s.one(2)}
		}
		if s.one(10) {
			r.Password = strings.Repeat("x", pick(s.script, 72, 73))
		}
		return r
	case n < 18:
		r := &pb.AuthUserChangePasswordRequest{Name: s.user(), Password: s.password()}
		if s.one(4) {
			r.HashedPassword = pick(s.script, "?", "JDJhJDA0JA==")
		}
		return r
	case n < 28:
		return &pb.AuthUserGrantRoleRequest{User: s.user(), Role: s.role()}
	case n < 32:
		return &pb.AuthUserRevokeRoleRequest{Name: s.user(), Role: s.role()}
	case n < 35:
		return &pb.AuthRoleAddRequest{Name: s.role()}
	case n < 37:
		return &pb.AuthRoleDeleteRequest{Role: s.role()}
	case n < 42:
		key, end := s.interval()
		return &pb.AuthRoleRevokePermissionRequest{Role: s.role(), Key: key, RangeEnd: end}
	default:
		if s.one(20) {
			return &pb.AuthRoleGrantPermissionRequest{Name: s.role()}
		}
		key, end := s.interval()
		kind := authpb.Permission_Type(s.rng.IntN(3))
		return &pb.AuthRoleGrantPermissionRequest{Name: s.role(), Perm: &authpb.Permission{PermType: kind, Key: key, RangeEnd: end}}
	}
}

func (s *userScript) question() any {
	switch s.rng.IntN(14) {
	case 0:
		return &pb.AuthUserListRequest{}
	case 1:
		return &pb.AuthRoleListRequest{}
	case 2, 3:
		return &pb.AuthUserGetRequest{Name: s.user()}
	case 4, 5:
		return &pb.AuthRoleGetRequest{Role: s.role()}
	case 6:
		return &pb.AuthStatusRequest{}
	case 7:
		return &pb.StatusRequest{}
	case 8:
		return &pb.MemberListRequest{Linearizable: s.one(2)}
	case 9:
		return &pb.MemberRemoveRequest{ID: 99}
	case 10:
		return &pb.MoveLeaderRequest{TargetID: 99}
	case 11:
		return &pb.DefragmentRequest{}
	default:
		return &pb.LeaseKeepAliveRequest{ID: pick[int64](s.script, 11, 12, 13, 14, 99)}
	}
}

// Users, roles and passwords go from one program to the other and back, also
// through SIGKILL, and each goes on where the other stopped.
func TestTakeoverWithUsers(t *testing.T) {
	for _, order := range []struct {
		name          string
		first, second func() program
	}{{"ours-then-reference", ours, real}, {"reference-then-ours", real, ours}} {
		for _, end := range []string{"stopped", "killed"} {
			t.Run(order.name+"/"+end, func(t *testing.T) {
				t.Parallel()
				m := newMember(t, cheap)
				users := []string{"root"}
				for turn, p := range []program{order.first(), order.second(), order.first(), order.second()} {
					m.start(p)
					users = m.oneMoreUser(turn, users)
					if end == "killed" {
						m.kill()
					} else {
						m.stop()
						checkBolt(t, m.db())
					}
				}
			})
		}
	}
}

// oneMoreUser looks whether the users of earlier turns are there, with all
// that they may do, and adds one.
func (m *member) oneMoreUser(turn int, users []string) []string {
	c := m.dial()
	defer c.Close()
	if turn == 0 {
		must(m.t, "add root", second(c.UserAdd(ctx(m.t), "root", "root-pw")))
		must(m.t, "make it root", second(c.UserGrantRole(ctx(m.t), "root", "root")))
		must(m.t, "enable", second(c.AuthEnable(ctx(m.t))))
	}
	root := m.dialAs("root")
	defer root.Close()
	list, err := root.UserList(ctx(m.t))
	must(m.t, "list users", err)
	if slices.Sort(users); !slices.Equal(list.Users, users) {
		m.t.Fatalf("turn %d: users %v, want %v", turn, list.Users, users)
	}
	for _, user := range users[:len(users)-1] {
		as := m.dialAs(user)
		own, foreign := user+"/key", "root/key"
		if got, err := as.Get(ctx(m.t), own); err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != user {
			m.t.Errorf("turn %d: %s reads %v, %v", turn, own, got, err)
		}
		must(m.t, "own key", second(as.Put(ctx(m.t), own, user)))
		wantError(m.t, "foreign key", second(as.Get(ctx(m.t), foreign)), rpctypes.ErrGRPCPermissionDenied)
		wantError(m.t, "foreign put", second(as.Put(ctx(m.t), foreign, "")), rpctypes.ErrGRPCPermissionDenied)
		as.Close()
	}
	name := fmt.Sprintf("member-%d", turn)
	must(m.t, "add", second(root.UserAdd(ctx(m.t), name, name+"-pw")))
	must(m.t, "add a role", second(root.RoleAdd(ctx(m.t), name)))
	readWrite := clientv3.PermissionType(clientv3.PermReadWrite)
	must(m.t, "permit", second(root.RoleGrantPermission(ctx(m.t), name, name+"/", name+"0", readWrite)))
	must(m.t, "grant", second(root.UserGrantRole(ctx(m.t), name, name)))
	must(m.t, "put", second(root.Put(ctx(m.t), name+"/key", name)))
	return append(users, name)
}

// dialAs logs in; the password follows from the name.
func (m *member) dialAs(user string) *clientv3.Client {
	m.t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{m.client}, DialTimeout: callTimeout, Username: user, Password: user + "-pw",
	})
	if err != nil {
		m.t.Fatalf("%s logs in: %v\n%s", user, err, m.logTail())
	}
	return c
}

func second[T any](_ T, err error) error { return err }

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
