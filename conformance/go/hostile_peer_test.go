package conformance

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// hostility is an attack on the peer port of a member, by an impostor of a known member.
type hostility struct {
	name  string
	case_ func(t *testing.T, d *peerDoor) peerCase
}

// inTerm is a message with a term.
func inTerm(kind raftpb.MessageType, term uint64) func(*raftpb.Message, *peerDoor) {
	return func(m *raftpb.Message, _ *peerDoor) {
		m.Type, m.Term = kind.Enum(), proto.Uint64(term)
	}
}

func posted(message func(*peerDoor) []byte) func(*testing.T, *peerDoor) peerCase {
	return func(*testing.T, *peerDoor) peerCase {
		return peerCase{method: "POST", path: "/raft", body: message}
	}
}

// behindAGap appends an entry that does not follow the end of the log.
func behindAGap(index uint64) func(*raftpb.Message, *peerDoor) {
	return func(m *raftpb.Message, _ *peerDoor) {
		m.Type, m.Term = raftpb.MsgApp.Enum(), proto.Uint64(1<<20)
		m.Index, m.Commit = proto.Uint64(index), proto.Uint64(index)
		m.Entries = []*raftpb.Entry{{Index: proto.Uint64(index + 1), Term: proto.Uint64(2)}}
	}
}

// snapshotFor is the message of a snapshot that the member would have to accept: its term is newer,
// its index far ahead, and the member is one of its voters.
func snapshotFor(m *raftpb.Message, d *peerDoor) {
	var self uint64
	fmt.Sscanf(d.self, "%x", &self)
	m.Type, m.Term = raftpb.MsgSnap.Enum(), proto.Uint64(1<<20)
	m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: proto.Uint64(1 << 30), Term: proto.Uint64(2), ConfState: &raftpb.ConfState{Voters: []uint64{self}},
	}}
}

// withDatabase sends a snapshot with a modified copy of the member's own database.
func withDatabase(change func([]byte) []byte) func(*testing.T, *peerDoor) peerCase {
	return func(t *testing.T, d *peerDoor) peerCase {
		database, err := os.ReadFile(d.db())
		if err != nil {
			t.Fatal(err)
		}
		return peerCase{method: "POST", path: "/raft/snapshot", body: snapshotOf(raftMessage(snapshotFor), change(database))}
	}
}

func hostilities() []hostility {
	var all []hostility
	for kind, name := range map[raftpb.MessageType]string{
		raftpb.MsgHeartbeat: "heartbeat", raftpb.MsgHeartbeatResp: "heartbeat's answer", raftpb.MsgVote: "vote", raftpb.MsgAppResp: "acknowledgement",
	} {
		for _, term := range []uint64{1 << 40, 1 << 63, 1<<64 - 2, 1<<64 - 1} {
			all = append(all, hostility{fmt.Sprintf("%s of term %x", name, term), posted(raftMessage(inTerm(kind, term)))})
		}
	}
	for _, index := range []uint64{1 << 20, 1 << 40, 1<<64 - 2} {
		all = append(all, hostility{fmt.Sprintf("entry behind %x", index), posted(raftMessage(behindAGap(index)))})
	}
	zeroed := func(from, to int) func([]byte) []byte {
		return func(b []byte) []byte {
			clear(b[from:to])
			return b
		}
	}
	return append(all,
		hostility{"no database", withDatabase(func([]byte) []byte { return nil })},
		hostility{"no database but words", withDatabase(func([]byte) []byte { return []byte("this is no database") })},
		hostility{"noise of 8 MiB", withDatabase(func([]byte) []byte { return bytes.Repeat([]byte{0xa5, 0x5a, 7}, 8<<20/3) })},
		hostility{"half a database", withDatabase(func(b []byte) []byte { return b[:len(b)/2] })},
		hostility{"a database without its last byte", withDatabase(func(b []byte) []byte { return b[:len(b)-1] })},
		hostility{"a database without meta pages", withDatabase(zeroed(0, 8192))},
		hostility{"a database without pages but meta pages", withDatabase(func(b []byte) []byte {
			clear(b[8192:])
			return b
		})},
		hostility{"the database of another moment", withDatabase(func(b []byte) []byte { return b })},
	)
}

// Messages of an impostor with absurd terms, entries that leave gaps, or invalid databases stop no
// member: it keeps running, also after a restart, and can still be elected.
func TestHostilePeer(t *testing.T) {
	for _, h := range hostilities() {
		t.Run(strings.ReplaceAll(h.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			d := openDoor(t, ours())
			for i := range 20 {
				must(t, "put", second(d.client3().Put(ctx(t), fmt.Sprint("before/", i), strings.Repeat("x", 1000))))
			}
			term := d.status().RaftTerm
			answer := d.answer(t, h.case_(t, d))
			d.stillServes(t)
			d.stop()
			d.start(ours())
			d.stillServes(t)
			if now := d.status().RaftTerm; now > term+1000 {
				t.Errorf("term %d before, %d after", term, now)
			}
			t.Logf("%q, term %d", answer, term)
		})
	}
}
