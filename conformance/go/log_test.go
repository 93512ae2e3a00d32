package conformance

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Logs that no client could produce: arbitrary entries, committed and not yet applied, in the log
// of a stopped member. Both programs start on copies of it. What etcd applies, ours applies with
// the same result; where etcd exits, ours may continue, or exit with a reason.

// fate is the outcome of a start on such a log.
type fate int

const (
	applied fate = iota
	ended
	// It has applied the log and has no leader: the log adds voters that do not exist.
	waits
)

func (f fate) String() string { return []string{"applied", "ended", "waits"}[f] }

// logSeeds are the seeds of a run. LOG_SEEDS overrides them: "7" for one, "100-400" for more.
func logSeeds(t *testing.T) (first, last uint64) {
	text := os.Getenv("LOG_SEEDS")
	if text == "" {
		return 1, 32
	}
	from, to, _ := strings.Cut(text, "-")
	if to == "" {
		to = from
	}
	return need(strconv.ParseUint(from, 10, 64))(t), need(strconv.ParseUint(to, 10, 64))(t)
}

func TestLogsOfAnyForm(t *testing.T) {
	origin := newOrigin(t)
	first, last := logSeeds(t)
	fates := make(chan fate, last-first+1)
	t.Run("seeds", func(t *testing.T) {
		for seed := first; seed <= last; seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				d := &logDraw{rng: rand.New(rand.NewPCG(seed, 0)), self: origin.self}
				fates <- origin.compare(t, d.entries(40))
			})
		}
	})
	close(fates)
	count := map[fate]uint64{}
	for f := range fates {
		count[f]++
	}
	t.Logf("what became of etcd: %v", count)
	if count[applied] < (last-first+1)/3 {
		t.Errorf("etcd has applied only %d of %d logs: the rest compares little", count[applied], last-first+1)
	}
}

// origin is a data directory of etcd with some data of every kind.
type origin struct {
	dir string
	// self is the member's id.
	self uint64
}

func newOrigin(t *testing.T) *origin {
	m := startMember(t, real(), logFlags()...)
	c := m.client3()
	need(c.Put(ctx(t), "a", "before"))(t)
	need(c.Grant(ctx(t), 90000))(t)
	need(c.RoleAdd(ctx(t), "r"))(t)
	need(c.RoleGrantPermission(ctx(t), "r", "a", "c", clientv3.PermissionType(clientv3.PermReadWrite)))(t)
	need(c.UserAddWithOptions(ctx(t), "u", "", &clientv3.UserAddOptions{NoPassword: true}))(t)
	need(c.UserGrantRole(ctx(t), "u", "r"))(t)
	members := need(c.MemberList(ctx(t)))(t)
	awaitVersion(t, m)
	m.stop()
	return &origin{dir: m.dir, self: members.Members[0].ID}
}

// awaitVersion waits until the cluster version is set, so that its entry does not come between
// others.
func awaitVersion(t *testing.T, m *member) {
	deadline := time.Now().Add(callTimeout)
	for !page(m.client, "/version", `"etcdcluster":"3.7.0"`) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: no version of the cluster after %v", m, callTimeout)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// logFlags keep time and addresses out of the state: the shortest lease is one and a half election
// timeouts long, and a member publishes its URLs.
func logFlags() []string {
	return []string{
		"--heartbeat-interval=1000", "--election-timeout=50000", "--unsafe-no-fsync",
		"--advertise-client-urls=http://127.0.0.1:1",
	}
}

// fates starts both programs on copies of the origin with entries in its log.
func (o *origin) fates(t *testing.T, entries []*raftpb.Entry) (etcd, our *loggedMember) {
	etcd, our = o.member(t, real(), entries), o.member(t, ours(), entries)
	for _, m := range []*loggedMember{etcd, our} {
		m.launch(m.of)
	}
	for _, m := range []*loggedMember{etcd, our} {
		m.awaitFate()
	}
	if our.fate == ended {
		our.saysWhy()
	}
	return etcd, our
}

// compare starts both programs on a log; if etcd applied it, ours must have the same result. It
// returns etcd's fate.
func (o *origin) compare(t *testing.T, entries []*raftpb.Entry) fate {
	etcd, our := o.fates(t, entries)
	if etcd.fate == ended {
		t.Logf("etcd has ended: %s", panicked.FindString(etcd.readLog()))
		return ended
	}
	if our.fate == ended {
		t.Errorf("etcd has applied its log, ours has not\n%s", our.logTail())
		return applied
	}
	if etcd.mayServe() {
		serving, exited := etcd.await()
		if exited {
			t.Logf("etcd has ended behind its log: %s", panicked.FindString(etcd.readLog()))
			return ended
		}
		if !serving {
			t.Logf("etcd finds no leader")
			return waits
		}
		our.awaitHealthy()
		want, got := etcd.hashKV(0), our.hashKV(0)
		if want.Hash != got.Hash || want.HashRevision != got.HashRevision || want.CompactRevision != got.CompactRevision {
			t.Errorf("etcd's hash is %v, ours %v", want, got)
		}
	}
	sameRows(t, etcd, our)
	return applied
}

// panicked matches etcd's panic message.
var panicked = regexp.MustCompile(`(?m)^panic: .*$`)

func (m *loggedMember) readLog() string {
	log, err := os.ReadFile(m.log)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(log)
}

// loggedMember is a member with unapplied entries in its log.
type loggedMember struct {
	*member
	of      program
	metrics string // host:port
	last    uint64 // index of the last entry
	fate    fate
}

// member is a copy of the origin with entries in its log.
func (o *origin) member(t *testing.T, p program, entries []*raftpb.Entry) *loggedMember {
	metrics := freeAddr(t)
	m := newMember(t, append(logFlags(), "--listen-metrics-urls=http://"+metrics)...)
	if err := os.CopyFS(m.dir, os.DirFS(o.dir)); err != nil {
		t.Fatal(err)
	}
	// etcd requires a directory accessible to its owner only.
	if err := os.Chmod(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &loggedMember{member: m, of: p, metrics: metrics, last: appendToLog(t, m.dir, entries)}
}

// appendToLog appends entries to the log of a stopped member, as committed; it returns the index of
// the last one.
func appendToLog(t *testing.T, dir string, entries []*raftpb.Entry) uint64 {
	w, err := wal.Open(zap.NewNop(), filepath.Join(dir, "member", "wal"), &walpb.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_, state, before, err := w.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	index := before[len(before)-1].GetIndex()
	for _, e := range entries {
		index++
		e.Term, e.Index = proto.Uint64(state.GetTerm()), proto.Uint64(index)
	}
	state.Commit = proto.Uint64(index)
	w.SetUnsafeNoFsync()
	if err := w.Save(state, entries); err != nil {
		t.Fatal(err)
	}
	return index
}

// awaitFate waits until the member has applied its log, or has exited.
func (m *loggedMember) awaitFate() {
	m.t.Helper()
	deadline := time.Now().Add(startTimeout)
	for m.applied() < m.last {
		select {
		case <-m.exited:
			m.fate = ended
			return
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s has applied %d of %d entries after %v\n%s", m.of.name, m.applied(), m.last, startTimeout, m.logTail())
		}
	}
	m.fate = applied
}

// awaitEnd waits until the member has exited: it may show an entry as applied a moment before that.
func (m *loggedMember) awaitEnd() {
	select {
	case <-m.exited:
		m.fate = ended
	case <-time.After(startTimeout):
	}
}

var appliedTotal = regexp.MustCompile(`(?m)^etcd_server_proposals_applied_total (\S+)$`)

// applied is the applied index in the member's metrics.
func (m *loggedMember) applied() uint64 {
	found := appliedTotal.FindStringSubmatch(pageBody("http://" + m.metrics + "/metrics"))
	if found == nil {
		return 0
	}
	index := need(strconv.ParseFloat(found[1], 64))(m.t)
	return uint64(index)
}

// pageBody is the page at a URL; empty on failure.
func pageBody(url string) string {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		return ""
	}
	return body.String()
}

// mayServe reports whether the member is the only voter. With other voters, which do not exist,
// there is no leader.
func (m *loggedMember) mayServe() bool {
	rows, err := m.rows()
	if err != nil {
		m.t.Fatal(err)
	}
	voters := 0
	for key, value := range rows {
		if strings.HasPrefix(key, "members/") && !strings.Contains(value, `"isLearner":true`) {
			voters++
		}
	}
	return voters == 1
}

// saysWhy fails if the log does not tell an operator why the member exited.
func (m *loggedMember) saysWhy() {
	m.t.Helper()
	says := m.logged("cannot apply entry") || m.logged("too old for")
	if code := m.cmd.ProcessState.ExitCode(); code != 1 || !says || m.logged("panicked") {
		m.t.Errorf("ours ended with %d and did not say why\n%s", code, m.logTail())
	}
}

// sameRows waits until the databases of two members have the same rows.
func sameRows(t *testing.T, etcd, our *loggedMember) {
	t.Helper()
	deadline := time.Now().Add(callTimeout)
	for {
		want, err1 := etcd.rows()
		got, err2 := our.rows()
		if err1 == nil && err2 == nil && maps.Equal(want, got) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("rows differ (%v, %v):\n%s", err1, err2, diffRows(want, got))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func diffRows(want, got map[string]string) string {
	var lines []string
	for key, value := range want {
		if other, ok := got[key]; !ok || other != value {
			lines = append(lines, fmt.Sprintf("%s: etcd %.200q, ours %.200q (there: %v)", key, value, other, ok))
		}
	}
	for key, value := range got {
		if _, ok := want[key]; !ok {
			lines = append(lines, fmt.Sprintf("%s: only ours, %.200q", key, value))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines[:min(len(lines), 30)], "\n")
}

// rows are the rows of the member's database, except for the applied index. If the database is in
// use, the copy that is read may be inconsistent for a moment.
func (m *loggedMember) rows() (map[string]string, error) {
	data, err := os.ReadFile(m.db())
	if err != nil {
		return nil, err
	}
	path := filepath.Join(m.t.TempDir(), "db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(path)
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows := map[string]string{}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(bucket []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				key := fmt.Sprintf("%s/%q", bucket, k)
				if key != `meta/"consistent_index"` && key != `meta/"term"` {
					rows[key] = string(v)
				}
				return nil
			})
		})
	})
	return rows, err
}
