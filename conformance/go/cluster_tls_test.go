package conformance

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secureCluster is a cluster with mutual TLS between members and with clients.
type secureCluster struct {
	*cluster
	ca *issuer
	// dirs hold the members' files.
	dirs []string
}

// peerTLS is how the members of a cluster trust each other.
type peerTLS int

const (
	// byAuthority: their certificates have the same CA.
	byAuthority peerTLS = iota
	// bySelf: each has a self-signed one.
	bySelf
)

// newSecureCluster prepares n members with all TLS flags of a typical unit file.
func newSecureCluster(t *testing.T, n int, among peerTLS, flags ...string) *secureCluster {
	t.Helper()
	s := newTLSSetting(t, "p256")
	c := &secureCluster{cluster: newCluster(t, n, flags...), ca: s.ca}
	config := &tls.Config{RootCAs: s.roots, Certificates: []tls.Certificate{s.ca.issue("p256", nil)}}
	var initial []string
	for _, m := range c.members {
		initial = append(initial, m.name+"=https://"+m.peer)
	}
	kinds := []string{"p256", "rsa", "ed25519"}
	for i, m := range c.members {
		dir := t.TempDir()
		c.dirs = append(c.dirs, dir)
		ca := filepath.Join(dir, "ca.pem")
		writeFile(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.cert.Raw}))
		cert, key := writePair(t, dir, "member", s.ca.issue(kinds[i%len(kinds)], forServers))
		m.tls = config
		m.cluster = strings.Join(initial, ",")
		m.flags = append(m.flags,
			"--listen-client-urls=https://"+m.client, "--advertise-client-urls=https://"+m.client,
			"--listen-peer-urls=https://"+m.peer, "--initial-advertise-peer-urls=https://"+m.peer,
			"--cert-file="+cert, "--key-file="+key, "--trusted-ca-file="+ca, "--client-cert-auth",
		)
		switch among {
		case byAuthority:
			m.flags = append(m.flags, "--peer-cert-file="+cert, "--peer-key-file="+key,
				"--peer-trusted-ca-file="+ca, "--peer-client-cert-auth")
		case bySelf:
			m.flags = append(m.flags, "--peer-auto-tls")
		}
	}
	return c
}

// renew replaces every member's certificate, which new connections use.
func (c *secureCluster) renew() {
	c.t.Helper()
	for _, dir := range c.dirs {
		writePair(c.ca.t, dir, "member", c.ca.issue("p256", forServers))
	}
}

// Members of both programs found a cluster over TLS, elect each other, replicate in both
// directions, restart after a clean stop and SIGKILL, and catch up by log and by snapshot, under a
// load that loses no write.
func TestClusterOverTLS(t *testing.T) {
	for _, among := range []struct {
		name string
		how  peerTLS
	}{{"peer-client-cert-auth", byAuthority}, {"peer-auto-tls", bySelf}} {
		for name, programs := range map[string][]program{
			"ours+ours+reference":      {ours(), ours(), real()},
			"ours+reference+reference": {ours(), real(), real()},
		} {
			t.Run(among.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := newSecureCluster(t, 3, among.how, "--snapshot-count=300")
				c.keep(50)
				c.start(programs...)
				h := c.load(3, 2)
				h.await(100)
				for i, m := range c.members {
					c.lead(m)
					h.await(100)
					c.sameHash()
					// Members stopped from now on reconnect with another certificate.
					c.renew()
					if i == 1 {
						m.stop()
					} else {
						m.kill()
					}
					c.returns(m, programs[i], h)
				}
				h.finish()
			})
		}
	}
}

// Both programs reject peers with a certificate of another CA, or none.
func TestClusterOverTLSRefusesStrangers(t *testing.T) {
	for _, p := range []program{ours(), real()} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			c := newSecureCluster(t, 1, byAuthority)
			c.start(p)
			m := c.members[0]
			stranger := newIssuer(t)
			cases := map[string][]tls.Certificate{
				"tls: client didn't provide a certificate":                                                 nil,
				"tls: failed to verify certificate: x509: certificate signed by unknown authority":         {stranger.issue("p256", forServers)},
				"x509: certificate is valid for 192.0.2.1, not 127.0.0.1":                                  {c.ca.issue("p256", forElsewhere)},
				`tls: \"127.0.0.1\" does not match any of DNSNames [\"elsewhere.invalid\"]`:                {c.ca.issue("p256", forUnknownName)},
				"tls: failed to verify certificate: x509: certificate specifies an incompatible key usage": {c.ca.issue("p256", onlyForServing)},
			}
			for reason, certs := range cases {
				config := &tls.Config{RootCAs: m.tls.RootCAs, ServerName: "localhost", Certificates: certs}
				if pageOver(config, "https://"+m.peer+"/version", "etcdserver") {
					t.Errorf("let in: %s", reason)
				}
				eventually(t, fmt.Sprintf("a line that says %s", reason), func() bool {
					log, err := os.ReadFile(m.log)
					if err != nil {
						t.Fatal(err)
					}
					for line := range strings.Lines(string(log)) {
						if strings.Contains(line, "rejected connection on peer endpoint") && strings.Contains(line, reason) {
							return true
						}
					}
					return false
				})
			}
			if !pageOver(m.tls, "https://"+m.peer+"/version", "etcdserver") {
				t.Error("a good certificate is refused")
			}
		})
	}
}
