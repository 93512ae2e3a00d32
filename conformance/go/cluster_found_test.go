package conformance

import (
	"context"
	"testing"
)

// mixes are the programs of three members that found a cluster together.
func mixes(t *testing.T) map[string][]program {
	return map[string][]program{
		"ours":                     {ours(), ours(), ours()},
		"ours+ours+reference":      {ours(), ours(), real()},
		"ours+reference+reference": {ours(), real(), real()},
		"ours+3.6+3.5":             {ours(), line(t, "3.6"), line(t, "3.5")},
		"ours+ours+3.4":            {ours(), ours(), line(t, "3.4")},
	}
}

// Members of both kinds found a cluster, elect each other, replicate in both directions, and
// restart after a clean stop and SIGKILL, under a load that loses no write.
func TestClusterFounded(t *testing.T) {
	for name, programs := range mixes(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, "--snapshot-count=300")
			c.keep(50)
			c.start(programs...)
			h := c.load(3, 2)
			h.await(100)
			for i, m := range c.members {
				c.lead(m)
				h.await(100)
				c.sameHash()
				switch i {
				case 0, 2:
					m.kill()
				default:
					m.stop()
				}
				c.returns(m, programs[i], h)
			}
			h.finish()
		})
	}
}

// Members find each other by a token, at a discovery service of either kind.
func TestClusterDiscovered(t *testing.T) {
	for name, programs := range map[string][]program{
		"at ours":      {ours(), ours(), real(), ours()},
		"at reference": {real(), real(), ours(), real()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := startMember(t, programs[0])
			const size = "/_etcd/registry/T/_config/size"
			insist(t, "write the size", func() error {
				_, err := service.client3().Put(context.Background(), size, "3")
				return err
			})
			c := newCluster(t, 3, "--discovery-token=T", "--discovery-endpoints=http://"+service.client)
			for _, m := range c.members {
				m.cluster = ""
			}
			c.start(programs[1:]...)
			c.leader()
			h := c.load(3, 2)
			h.await(100)
			h.finish()
			c.sameHash()
		})
	}
}
