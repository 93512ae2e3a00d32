package conformance

import (
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/membershippb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Entries at which every etcd member exits, at each start again, and what ours does with them: it
// continues where that loses nothing, and otherwise exits with the reason. docs/compatibility.md
// has the same list.
func TestLogsThatEndEtcd(t *testing.T) {
	origin := newOrigin(t)
	for _, poison := range poisons(origin.self) {
		t.Run(strings.ReplaceAll(poison.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			etcd, our := origin.fates(t, []*raftpb.Entry{putEntry("before"), poison.entry, putEntry("after")})
			etcd.awaitEnd()
			if poison.ours == ended {
				our.awaitEnd()
			}
			if etcd.fate != ended {
				t.Errorf("etcd has %v this log", etcd.fate)
			}
			if our.fate != poison.ours {
				t.Errorf("ours has %v this log\n%s", our.fate, our.logTail())
			}
			if our.fate == ended && !our.logged(poison.says) {
				t.Errorf("ours does not say %q\n%s", poison.says, our.logTail())
			}
		})
	}
}

type poison struct {
	name  string
	entry *raftpb.Entry
	ours  fate
	// says is the reason that ours logs when it exits.
	says string
}

func putEntry(key string) *raftpb.Entry {
	return requestEntry(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key)}})
}

// requestEntry is the entry of a request without an author.
func requestEntry(r *pb.InternalRaftRequest) *raftpb.Entry {
	r.Header = &pb.RequestHeader{ID: 7}
	return normal(marshal(r))
}

// v2Entry is a request of API v2 as etcd up to 3.5 wrote it.
func v2Entry(method, path, value string) *raftpb.Entry {
	data := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
	for i, text := range []string{method, path, value} {
		data = protowire.AppendString(protowire.AppendTag(data, protowire.Number(2+i), protowire.BytesType), text)
	}
	return normal(data)
}

func changeOf(kind raftpb.ConfChangeType, id uint64, context string) *raftpb.Entry {
	return changeEntry(&raftpb.ConfChange{Type: kind.Enum(), NodeId: proto.Uint64(id), Context: []byte(context)})
}

func poisons(self uint64) []poison {
	long := strings.Repeat("n", 40_000)
	version := func(text string) *raftpb.Entry {
		return requestEntry(&pb.InternalRaftRequest{ClusterVersionSet: &membershippb.ClusterVersionSetRequest{Ver: text}})
	}
	attributes := func(id uint64, attributes *membershippb.Attributes) *raftpb.Entry {
		return requestEntry(&pb.InternalRaftRequest{ClusterMemberAttrSet: &membershippb.ClusterMemberAttrSetRequest{
			Member_ID: id, MemberAttributes: attributes}})
	}
	roleOfBytes := func(name string) *raftpb.Entry {
		role := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
		data := marshal(&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 7}})
		return normal(protowire.AppendBytes(protowire.AppendTag(data, 1200, protowire.BytesType), role))
	}
	add, update, remove := raftpb.ConfChangeAddNode, raftpb.ConfChangeUpdateNode, raftpb.ConfChangeRemoveNode
	return []poison{
		{"nothing but a header", requestEntry(&pb.InternalRaftRequest{}), ended, "unknown kind of request"},
		{"neither header nor id", normal(marshal(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k")}})), applied, ""},
		{"no message", normal([]byte("\xff\xff\xff")), ended, "undecodable request"},
		{"groups without end", normal(append(putEntry("k").Data, groups(10_002)...)), ended, "undecodable request"},
		{"a name that is not UTF-8", roleOfBytes("r\xff"), ended, "start etcd 3.6"},
		{"a name of 40,000 bytes", requestEntry(&pb.InternalRaftRequest{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: long}}), applied, ""},
		{"a version that is none", version("three"), ended, "invalid cluster version"},
		{"a version beyond the program's", version("3.8.0"), ended, "too old for"},
		{"attributes of nobody", attributes(5, &membershippb.Attributes{Name: "n"}), applied, ""},
		{"no attributes", attributes(self, nil), applied, ""},
		{"a version by API v2", v2Entry("PUT", "/0/version", "3.6.0"), applied, ""},
		{"a write by API v2", v2Entry("PUT", "/1/foo", "bar"), applied, ""},
		{"a change of an unknown kind", changeOf(7, 5, `{"id":5}`), ended, "unknown type 7"},
		{"a change without JSON", changeOf(add, 5, "no JSON"), ended, "damaged context"},
		{"a change of two members", changeOf(add, 5, `{"id":6}`), ended, "with the context of"},
		{"an update without JSON", changeOf(update, self, "[]"), ended, "damaged context"},
		{"a removal of the last voter", changeOf(remove, self, ""), applied, ""},
		{"a change of version 2", &raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum()}, ended, "version 2"},
		{"an entry of an unknown kind", &raftpb.Entry{Type: raftpb.EntryType(9).Enum()}, ended, fmt.Sprint("unknown entry type ", 9)},
	}
}
