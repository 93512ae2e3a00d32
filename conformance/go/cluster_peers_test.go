package conformance

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// peerDoor is the peer port of a member, as seen by an impostor.
type peerDoor struct {
	*member
	// Ids in hexadecimal: the member's own, its cluster's, a removed member's, another member's.
	self, cluster, removed, known string
}

// openDoor starts a member in a cluster with a removed member and a learner.
func openDoor(t *testing.T, p program) *peerDoor {
	m := startMember(t, p)
	d := &peerDoor{member: m}
	s := m.status()
	d.self, d.cluster = hex(s.Header.MemberId), hex(s.Header.ClusterId)
	gone, err := m.client3().MemberAddAsLearner(ctx(t), []string{"http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.client3().MemberRemove(ctx(t), gone.Member.ID); err != nil {
		t.Fatal(err)
	}
	learner, err := m.client3().MemberAddAsLearner(ctx(t), []string{"http://127.0.0.1:2"})
	if err != nil {
		t.Fatal(err)
	}
	d.removed, d.known = hex(gone.Member.ID), hex(learner.Member.ID)
	return d
}

func hex(id uint64) string { return fmt.Sprintf("%x", id) }

// names replaces ids by names: ids differ between clusters.
func (d *peerDoor) names(s string) string {
	return strings.NewReplacer(d.self, "SELF", d.cluster, "CLUSTER", d.removed, "REMOVED", d.known, "KNOWN").Replace(s)
}

// peerCase is a request of a bad peer.
type peerCase struct {
	name         string
	method, path string
	// headers override those of a good peer; an empty value removes one. Words in capitals stand
	// for ids.
	headers map[string]string
	body    func(d *peerDoor) []byte
	// length is sent instead of the body's length; the connection is then closed without waiting
	// for a response.
	length int
}

// answer returns the response as text.
func (d *peerDoor) answer(t *testing.T, c peerCase) string {
	t.Helper()
	fill := strings.NewReplacer("SELF", d.self, "CLUSTER", d.cluster, "REMOVED", d.removed, "KNOWN", d.known)
	headers := map[string]string{
		"Host": "localhost", "X-Server-From": d.known, "X-Server-Version": "3.7.1",
		"X-Min-Cluster-Version": "3.0.0", "X-Etcd-Cluster-ID": d.cluster, "X-Raft-To": d.self,
	}
	for name, value := range c.headers {
		headers[name] = fill.Replace(value)
	}
	var body []byte
	if c.body != nil {
		body = c.body(d)
	}
	if c.body != nil || c.method == "POST" {
		headers["Content-Length"] = fmt.Sprint(max(len(body), c.length))
	}
	request := fmt.Sprintf("%s %s HTTP/1.1\r\n", c.method, fill.Replace(c.path))
	for name, value := range headers {
		if value != "" {
			request += name + ": " + value + "\r\n"
		}
	}
	return d.names(d.exchange(t, append([]byte(request+"\r\n"), body...), c.length > len(body)))
}

// exchange sends bytes and returns the status, the relevant headers, and the body.
func (d *peerDoor) exchange(t *testing.T, request []byte, cut bool) string {
	t.Helper()
	conn, err := net.Dial("tcp", d.peer)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(callTimeout))
	// The server may have closed the connection before reading everything.
	conn.Write(request)
	if cut {
		return "cut off"
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "no answer"
	}
	defer response.Body.Close()
	text := response.Status
	for _, name := range []string{"X-Etcd-Cluster-Id", "X-Server-Version", "Allow", "Content-Type"} {
		if value := response.Header.Get(name); value != "" {
			text += "\n" + name + ": " + value
		}
	}
	// An accepted stream does not end.
	body, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	return text + "\n" + string(body)
}

func raftMessage(change func(m *raftpb.Message, d *peerDoor)) func(*peerDoor) []byte {
	return func(d *peerDoor) []byte {
		id := func(text string) *uint64 {
			var id uint64
			fmt.Sscanf(text, "%x", &id)
			return &id
		}
		m := &raftpb.Message{
			Type: raftpb.MsgHeartbeatResp.Enum(), To: id(d.self), From: id(d.known), Term: proto.Uint64(1),
			LogTerm: proto.Uint64(0), Index: proto.Uint64(0), Commit: proto.Uint64(0),
		}
		if change != nil {
			change(m, d)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			panic(err)
		}
		return b
	}
}

// snapshotOf is the body of a snapshot: a message with its length, followed by a file.
func snapshotOf(message func(*peerDoor) []byte, database []byte) func(*peerDoor) []byte {
	return func(d *peerDoor) []byte {
		m := message(d)
		return append(append(binary.BigEndian.AppendUint64(nil, uint64(len(m))), m...), database...)
	}
}

func asSnapshot(m *raftpb.Message, _ *peerDoor) {
	m.Type = raftpb.MsgSnap.Enum()
	m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: proto.Uint64(1 << 40), Term: proto.Uint64(1), ConfState: &raftpb.ConfState{Voters: []uint64{1}},
	}}
}

func fromRemoved(m *raftpb.Message, d *peerDoor) {
	var id uint64
	fmt.Sscanf(d.removed, "%x", &id)
	m.From = &id
}

func toAnother(m *raftpb.Message, _ *peerDoor) { m.To = proto.Uint64(12345) }

func plain(text string) func(*peerDoor) []byte {
	return func(*peerDoor) []byte { return []byte(text) }
}

func badPeers() []peerCase {
	foreign := map[string]string{"X-Etcd-Cluster-ID": "cafe"}
	padded := map[string]string{"X-Etcd-Cluster-ID": "0CLUSTER"}
	old := map[string]string{"X-Server-Version": "2.3.8"}
	none := map[string]string{"X-Server-Version": ""}
	newer := map[string]string{"X-Server-Version": "3.9.0"}
	tooNew := map[string]string{"X-Server-Version": "4.0.0", "X-Min-Cluster-Version": "4.0.0"}
	good := raftMessage(nil)
	cases := []peerCase{
		{name: "message of a learner", method: "POST", path: "/raft", body: good},
		{name: "message of a newer version", method: "POST", path: "/raft", body: good, headers: newer},
		{name: "message by GET", method: "GET", path: "/raft"},
		{name: "message by PUT", method: "PUT", path: "/raft", body: good},
		{name: "empty message", method: "POST", path: "/raft"},
		{name: "message that is none", method: "POST", path: "/raft", body: plain("\xff\xff\xff\xff\xff\xff")},
		{name: "message cut off", method: "POST", path: "/raft", body: good, length: 1000},
		{name: "message of a removed member", method: "POST", path: "/raft", body: raftMessage(fromRemoved)},
		{name: "message to another", method: "POST", path: "/raft", body: raftMessage(toAnother)},
		{name: "snapshot that is a message", method: "POST", path: "/raft/snapshot", body: snapshotOf(good, []byte("db"))},
		{name: "snapshot by GET", method: "GET", path: "/raft/snapshot"},
		{name: "empty snapshot", method: "POST", path: "/raft/snapshot"},
		{name: "snapshot with half a length", method: "POST", path: "/raft/snapshot", body: plain("\x00\x00\x00")},
		{name: "snapshot with nothing but a length", method: "POST", path: "/raft/snapshot", body: plain("\x00\x00\x00\x00\x00\x00\x00\x20")},
		{name: "snapshot with a wrong length", method: "POST", path: "/raft/snapshot", body: plain("\x00\x00\x00\x00\x00\x00\x00\x20short")},
		{name: "snapshot with an endless length", method: "POST", path: "/raft/snapshot", body: plain("\xff\xff\xff\xff\xff\xff\xff\xffshort")},
		{name: "snapshot with a large length", method: "POST", path: "/raft/snapshot", body: plain("\x00\x00\x00\x00\x04\x00\x00\x01short")},
		{name: "snapshot cut off", method: "POST", path: "/raft/snapshot", body: snapshotOf(raftMessage(asSnapshot), []byte("db")), length: 1000},
		{name: "snapshot's message is none", method: "POST", path: "/raft/snapshot", body: plain("\x00\x00\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff")},
		{name: "stream by POST", method: "POST", path: "/raft/stream/message/KNOWN"},
		{name: "stream of no kind", method: "GET", path: "/raft/stream/other/KNOWN"},
		{name: "stream without an id", method: "GET", path: "/raft/stream/message/"},
		{name: "stream of a name", method: "GET", path: "/raft/stream/message/m1"},
		{name: "stream below an id", method: "GET", path: "/raft/stream/message/KNOWN/more"},
		{name: "stream of nobody", method: "GET", path: "/raft/stream/message/abcdef"},
		{name: "stream of the removed", method: "GET", path: "/raft/stream/msgapp/REMOVED"},
		{name: "stream to another", method: "GET", path: "/raft/stream/msgapp/KNOWN", headers: map[string]string{"X-Raft-To": "abc"}},
		{name: "stream to nobody", method: "GET", path: "/raft/stream/msgapp/KNOWN", headers: map[string]string{"X-Raft-To": ""}},
		{name: "stream", method: "GET", path: "/raft/stream"},
		{name: "below raft", method: "GET", path: "/raft/other"},
		{name: "root", method: "GET", path: "/"},
		{name: "hash of another cluster", method: "GET", path: "/members/hashkv", body: plain("{}"), headers: foreign},
		{name: "hash in the future", method: "GET", path: "/members/hashkv", body: plain(`{"revision":99}`)},
		{name: "hash of nonsense", method: "GET", path: "/members/hashkv", body: plain("nonsense")},
		{name: "promotion of nobody", method: "POST", path: "/members/promote/7"},
		{name: "promotion of a name", method: "POST", path: "/members/promote/m1"},
		{name: "renewal of nothing", method: "POST", path: "/leases", body: plain("\x08\x07")},
		{name: "renewal that is none", method: "POST", path: "/leases", body: plain("\xff\xff")},
	}
	for kind, headers := range map[string]map[string]string{
		"a foreign cluster": foreign, "a padded cluster": padded, "an old version": old, "no version": none, "a version too new": tooNew,
	} {
		cases = append(cases,
			peerCase{name: "message of " + kind, method: "POST", path: "/raft", body: good, headers: headers},
			peerCase{name: "snapshot of " + kind, method: "POST", path: "/raft/snapshot", body: snapshotOf(raftMessage(asSnapshot), []byte("db")), headers: headers},
			peerCase{name: "stream of " + kind, method: "GET", path: "/raft/stream/message/KNOWN", headers: headers})
	}
	return cases
}

// Bad peers get the reference's status and text, and the member keeps running.
func TestBadPeers(t *testing.T) {
	reference, tested := openDoor(t, real()), openDoor(t, ours())
	for _, c := range badPeers() {
		want, got := reference.answer(t, c), tested.answer(t, c)
		if withoutWords(got) != withoutWords(want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, want)
		}
	}
	tested.stillServes(t)
}

// Random bytes and randomly damaged requests do no harm.
func TestRandomPeers(t *testing.T) {
	d := openDoor(t, ours())
	rng := rand.New(rand.NewPCG(7, 7))
	cases := badPeers()
	for range 300 {
		c := cases[rng.IntN(len(cases))]
		if c.body != nil {
			b := c.body(d)
			c.body = func(*peerDoor) []byte {
				for range 1 + rng.IntN(3) {
					if len(b) > 0 {
						b[rng.IntN(len(b))] = byte(rng.Uint32())
					}
				}
				return b
			}
			d.answer(t, c)
		}
		noise := make([]byte, rng.IntN(500))
		for i := range noise {
			noise[i] = byte(rng.Uint32())
		}
		d.exchange(t, noise, true)
	}
	d.stillServes(t)
}

func (d *peerDoor) stillServes(t *testing.T) {
	t.Helper()
	d.mustRun()
	if _, err := d.client3().Put(ctx(t), "after", "bad peers"); err != nil {
		t.Fatal(err)
	}
	if log := d.logTail(); bytes.Contains([]byte(log), []byte("panic")) {
		t.Errorf("panic in the log:\n%s", log)
	}
}

// asReleased rewrites Go's redirect to that of the released 3.7.1: from Go 1.26 on it has another
// code.
var asReleased = strings.NewReplacer("307 Temporary Redirect", "301 Moved Permanently", "Temporary Redirect", "Moved Permanently")

// withoutWords removes what depends on libraries only: descriptions of decoding errors, and
// redirects to a directory.
func withoutWords(answer string) string {
	answer = asReleased.Replace(answer)
	if at := strings.Index(answer, "decode raft message (proto:"); at >= 0 {
		return answer[:at]
	}
	if at := strings.Index(answer, "decode raft message (failed to decode Protobuf"); at >= 0 {
		return answer[:at]
	}
	return answer
}
