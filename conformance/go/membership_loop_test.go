package conformance

import (
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Members are added and removed one after another under load: as learners first, with and without
// leadership, the newest and the oldest. No write is lost, a watch at a remaining member misses
// nothing, and all agree on the membership.
func TestMembershipChangesInALoop(t *testing.T) {
	for name, programs := range map[string][]program{
		"ours": {ours()}, "reference": {real()}, "mixed": {ours(), real()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pick := func(i int) program { return programs[i%len(programs)] }
			c := newCluster(t, 3, "--snapshot-count=300", hurried)
			c.keep(50)
			c.start(pick(0), pick(1), pick(0))
			h := c.load(2, 2)
			h.await(100)
			w := h.watch(c.members[0])
			for round := range 8 {
				fresh := c.join(pick(round + 1))
				c.promote(fresh)
				// The first member stays; of the others, the oldest, the newest and the leader are
				// removed in turn.
				gone := c.members[1]
				switch round % 4 {
				case 1:
					gone = fresh
				case 2:
					c.lead(gone)
				case 3:
					c.lead(fresh)
					gone = fresh
				}
				c.remove(gone)
				t.Logf("round %d: %s came, %s went; writes take %v", round, fresh, gone, h.resumed())
				h.await(30)
				c.sameMembers()
			}
			w.check(h)
			h.finish()
		})
	}
}

// sameMembers compares the member lists of all members.
func (c *cluster) sameMembers() {
	c.t.Helper()
	var first []string
	for _, m := range c.running() {
		list, err := m.client3().MemberList(ctx(c.t))
		must(c.t, "list members", err)
		var names []string
		for _, other := range list.Members {
			names = append(names, describe(other))
		}
		slices.Sort(names)
		if first == nil {
			first = names
		}
		if !slices.Equal(first, names) {
			c.t.Fatalf("members are %v to %s, %v to %s", first, c.running()[0], names, m)
		}
	}
	if len(first) != len(c.running()) {
		c.t.Fatalf("%d members run: %v", len(c.running()), first)
	}
}

func describe(m *pb.Member) string {
	return fmt.Sprintf("%x %s %v %v learner=%v", m.ID, m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner)
}
