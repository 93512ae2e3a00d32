package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const authRequestsPerSeed = 900

// cheap makes authentication fast: these tests are not about bcrypt.
const cheap = "--bcrypt-cost=4"

// The server under test answers a random script about users, roles and keys as etcd 3.7.1 does, for
// every caller: every field, every code and text.
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

// authed is a request of a user, with the user's last token.
type authed struct {
	user    string
	request any
}

// watchCreate is a watch of which only the first response counts.
type watchCreate struct{ *pb.WatchCreateRequest }

// userSide is one of the two servers, and the tokens that it or, if both sign with the same key,
// the other one issued.
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

// outcomes counts the results of all scripts.
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

// check fails if the scripts consisted of refusals only, which would prove little.
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

// ask sends a request and makes its answer comparable; a token in it is returned separately.
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

// userScript draws callers and their requests.
type userScript struct{ *script }

func (s *userScript) user() string { return pick(s.script, "root", "u", "u", "v", "v", "w", "x", "") }
func (s *userScript) role() string { return pick(s.script, "root", "r", "r", "s", "s", "t", "") }
func (s *userScript) password() string {
	return pick(s.script, "one", "one", "one", "one", "two", "")
}

// caller is mostly an authenticated user.
func (s *userScript) caller() string {
	return pick(s.script, "root", "root", "u", "u", "u", "v", "v", "w", "x", "", "garbage", "future")
}

// start creates everything that can be granted, and enables authentication.
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
		// Root is deleted and created in between.
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

// Users, roles and passwords are taken over by the other program and back, also after SIGKILL, and
// each continues where the other stopped.
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

// oneMoreUser checks that the users of earlier turns exist with all their permissions, and adds
// one.
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

// dialAs authenticates; the password is derived from the name.
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

// With client certificate authentication, the common name is the user, unless there is a token, the
// request came through the gateway, or authentication by certificate is off.
func TestCertificateIsTheUser(t *testing.T) {
	for _, certAuth := range []bool{true, false} {
		t.Run(fmt.Sprintf("client-cert-auth=%v", certAuth), func(t *testing.T) {
			t.Parallel()
			setting := newTLSSetting(t, "p256")
			if !certAuth {
				setting.flags = setting.flags[:len(setting.flags)-1]
			}
			names := []string{"root", "u", "stranger", ""}
			certs := map[string]tls.Certificate{}
			for _, name := range names {
				certs[name] = setting.ca.issue("p256", func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} })
			}
			var seen [2][]string
			for i, p := range []program{ours(), real()} {
				seen[i] = setting.start(t, p, cheap).askByCertificate(setting, names, certs)
			}
			if diff := gocmp.Diff(seen[1], seen[0]); diff != "" {
				t.Errorf("(-reference +ours)\n%s", diff)
			}
			t.Log(strings.Join(seen[1], "\n"))
		})
	}
}

// askByCertificate enables authentication on the member and describes its answers to each of the
// names, with and without a token.
func (m *secureMember) askByCertificate(s *tlsSetting, names []string, certs map[string]tls.Certificate) []string {
	dial := func(name string) *grpc.ClientConn {
		config := &tls.Config{RootCAs: s.roots, Certificates: []tls.Certificate{certs[name]}, ServerName: "localhost"}
		conn, err := grpc.NewClient(m.secure, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		must(m.t, "dial", err)
		m.t.Cleanup(func() { conn.Close() })
		return conn
	}
	conn := dial("root")
	auth := pb.NewAuthClient(conn)
	must(m.t, "add root", second(auth.UserAdd(ctx(m.t), &pb.AuthUserAddRequest{Name: "root", Password: "pw"})))
	must(m.t, "add u", second(auth.UserAdd(ctx(m.t), &pb.AuthUserAddRequest{Name: "u", Options: &authpb.UserAddOptions{NoPassword: true}})))
	must(m.t, "add a role", second(auth.RoleAdd(ctx(m.t), &pb.AuthRoleAddRequest{Name: "r"})))
	perm := &authpb.Permission{PermType: authpb.READWRITE, Key: []byte("a"), RangeEnd: []byte("c")}
	must(m.t, "permit", second(auth.RoleGrantPermission(ctx(m.t), &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm})))
	must(m.t, "grant", second(auth.UserGrantRole(ctx(m.t), &pb.AuthUserGrantRoleRequest{User: "u", Role: "r"})))
	must(m.t, "grant", second(auth.UserGrantRole(ctx(m.t), &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})))
	must(m.t, "enable", second(auth.AuthEnable(ctx(m.t), &pb.AuthEnableRequest{})))
	login, err := auth.Authenticate(ctx(m.t), &pb.AuthenticateRequest{Name: "root", Password: "pw"})
	must(m.t, "log in", err)

	var seen []string
	for _, name := range names {
		side := &side{t: m.t, conn: dial(name)}
		for _, md := range [][2]string{{}, {"token", login.Token}, {"token", "nonsense"}, {"token", ""}, {"grpcgateway-accept", "*/*"}} {
			user := &userSide{side, nil}
			for _, request := range []any{
				&pb.RangeRequest{Key: []byte("a")},
				&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("d"), Serializable: true},
				&pb.PutRequest{Key: []byte("b")},
				&pb.PutRequest{Key: []byte("x")},
				watchCreate{&pb.WatchCreateRequest{Key: []byte("x")}},
				&pb.LeaseLeasesRequest{},
				&pb.AuthUserListRequest{},
				&pb.AuthUserGetRequest{Name: "u"},
				&pb.MemberListRequest{},
				&pb.CompactionRequest{Revision: 1},
			} {
				c, cancel := context.WithTimeout(context.Background(), callTimeout)
				if md[0] != "" {
					c = metadata.AppendToOutgoingContext(c, md[0], md[1])
				}
				msg, err := user.callAs(c, request)
				cancel()
				answer := "ok"
				if err != nil {
					st := status.Convert(err)
					answer = fmt.Sprintf("%v: %s", st.Code(), st.Message())
				} else if w, ok := msg.(*pb.WatchResponse); ok {
					answer = w.CancelReason
				}
				seen = append(seen, fmt.Sprintf("%q with %q: %T: %s", name, md[0], request, answer))
			}
		}
	}
	return seen
}

// In a cluster of both programs all members decide alike: after a random script sent to them in
// turn they have the same keys, leases, users and roles. A token is valid immediately at every
// member.
func TestClusterWithUsers(t *testing.T) {
	for name, programs := range map[string][]program{
		"ours":                     {ours(), ours(), ours()},
		"ours+ours+reference":      {ours(), ours(), real()},
		"ours+reference+reference": {ours(), real(), real()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, cheap)
			c.start(programs...)
			c.leader()
			sides := make([]*userSide, 3)
			tokens := map[string]string{"garbage": "garbage"}
			for i, m := range c.members {
				sides[i] = &userSide{&side{t: t, m: m, conn: m.conn()}, tokens}
			}
			draw := &userScript{script: newScript(401, true)}
			seen := map[string]int{}
			for i := range 1500 {
				r := draw.next(i)
				if i >= len(start()) && concernsRoot(r.request) {
					continue
				}
				at := draw.rng.IntN(len(sides))
				a, token := sides[at].ask(r)
				if seen[a.Err]++; strings.HasPrefix(a.Err, "Unavailable") || strings.HasPrefix(a.Err, "DeadlineExceeded") {
					t.Fatalf("request %d: %v", i, a.Err)
				}
				if token == "" {
					continue
				}
				user := r.request.(*pb.AuthenticateRequest).Name
				tokens[user] = token
				// A member that did not issue the token may have to learn of it first. The
				// reference only waits for the entry before the authentication, and may be asked
				// too early.
				other := sides[(at+1+draw.rng.IntN(2))%len(sides)]
				shown := func() string {
					a, _ := other.ask(authed{user, &pb.StatusRequest{}})
					return a.Err
				}
				if other.m.program == real() {
					eventually(t, "the token to be known", func() bool { return shown() == "" })
				} else if err := shown(); err != "" {
					t.Fatalf("request %d: the token of %s that %s gave out: %s", i, user, sides[at].m.program.name, err)
				}
			}
			t.Log(seen)
			// How many are refused depends on who leads and on which tokens are known where: 49 of
			// 1,500 have been seen.
			if seen[""] < 300 || seen["PermissionDenied: etcdserver: permission denied"] < 15 {
				t.Error("the script does not tell those who may from those who may not")
			}
			sameUsers(t, sides)
		})
	}
}

// concernsRoot reports requests after which root could not read the final state.
func concernsRoot(request any) bool {
	switch r := request.(type) {
	case *pb.AuthUserDeleteRequest:
		return r.Name == "root"
	case *pb.AuthUserAddRequest:
		return r.Name == "root"
	case *pb.AuthUserChangePasswordRequest:
		return r.Name == "root"
	case *pb.AuthUserRevokeRoleRequest:
		return r.Name == "root"
	case *pb.AuthRoleDeleteRequest:
		return r.Role == "root"
	case *pb.AlarmRequest, *pb.CompactionRequest, *pb.DefragmentRequest:
		return true // Nothing to do with users, and in the way of the comparison.
	}
	return false
}

// sameUsers compares the state of the members, queried at each one.
func sameUsers(t *testing.T, sides []*userSide) {
	t.Helper()
	rootAt := func(s *userSide, request any) proto.Message {
		a, _ := s.ask(authed{"root", request})
		if a.Err != "" {
			t.Fatalf("root asks %s for %T: %s", s.m.program.name, request, a.Err)
		}
		return a.Msg
	}
	login, token := sides[0].ask(authed{"", &pb.AuthenticateRequest{Name: "root", Password: "one"}})
	if token != "" {
		sides[0].tokens["root"] = token
	} else if login.Err != "FailedPrecondition: etcdserver: authentication is not enabled" {
		t.Fatalf("root cannot log in: %s", login.Err)
	}
	questions := []any{
		&pb.AuthStatusRequest{}, &pb.AuthUserListRequest{}, &pb.AuthRoleListRequest{}, &pb.LeaseLeasesRequest{},
		&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, &pb.HashKVRequest{},
	}
	for _, user := range rootAt(sides[0], &pb.AuthUserListRequest{}).(*pb.AuthUserListResponse).Users {
		questions = append(questions, &pb.AuthUserGetRequest{Name: user})
	}
	for _, role := range rootAt(sides[0], &pb.AuthRoleListRequest{}).(*pb.AuthRoleListResponse).Roles {
		questions = append(questions, &pb.AuthRoleGetRequest{Role: role})
	}
	for _, question := range questions {
		// The first read at each member waits until it is up to date.
		want := rootAt(sides[0], question)
		for _, s := range sides[1:] {
			if diff := difference(answer{Msg: want}, answer{Msg: rootAt(s, question)}); diff != "" {
				t.Errorf("%T %v at %s and %s:\n%s", question, question, sides[0].m, s.m, diff)
			}
		}
	}
}
