package conformance

import "testing"

// swap stops a member's program and starts another on the same directory, with the same flags,
// under load.
func (c *cluster) swap(m *member, p program, h *clusterLoad) {
	c.t.Helper()
	was := m.String()
	m.stop()
	h.await(20)
	m.start(p)
	c.serves(m, h)
	c.lead(m)
	h.await(50)
	c.sameHash()
	c.t.Logf("%s took the place of %s", m, was)
}

// A rolling upgrade: the binary of one member after the other is replaced, with the same directory
// and flags. And back.
func TestClusterSwapped(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "--snapshot-count=200", "--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true",
		"--compact-hash-check-time=1s", "--corrupt-check-time=2s")
	c.keep(50)
	c.start(real(), real(), real())
	h := c.load(3, 2)
	h.await(300)
	for _, p := range []program{ours(), real()} {
		for _, m := range c.members {
			c.swap(m, p, h)
			c.compact(m)
		}
	}
	h.finish()
}

// A cluster of an older line: as long as one of its members remains, the others can go back. After
// the last one is replaced, the cluster version rises.
func TestOlderClusterSwapped(t *testing.T) {
	for _, version := range lines {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c, h, older := olderCluster(t, version)
			for _, step := range []struct {
				member int
				to     program
			}{{0, ours()}, {1, ours()}, {0, older}, {0, ours()}} {
				c.swap(c.members[step.member], step.to, h)
				c.version(version + ".0")
			}
			c.swap(c.members[2], ours(), h)
			c.version("3.7.0")
			h.finish()
		})
	}
}
