package conformance

import (
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// flood is handshakes without end: of those whom strange stands for, and of those
// who break off after half a greeting.
type flood struct {
	over   chan struct{}
	wg     sync.WaitGroup
	knocks atomic.Int64
}

func startFlood(t *testing.T, addresses []string, strange *tls.Config) *flood {
	t.Helper()
	f := &flood{over: make(chan struct{})}
	for i := range 16 {
		f.wg.Go(func() {
			for {
				select {
				case <-f.over:
					return
				default:
					f.knocks.Add(1)
					askAt(addresses[i%len(addresses)], strange)
				}
			}
		})
	}
	t.Cleanup(func() { f.end() })
	// More than there are places for handshakes.
	for i := range 1500 {
		conn, err := net.Dial("tcp", addresses[i%len(addresses)])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		// The server may have hung up on it by now.
		conn.Write([]byte{0x16, 3, 1, 2, 0, 1})
	}
	return f
}

// end ends the flood, and tells how many handshakes there were.
func (f *flood) end() int64 {
	select {
	case <-f.over:
	default:
		close(f.over)
	}
	f.wg.Wait()
	return f.knocks.Load()
}

// Handshakes without end hold up neither who is in nor who comes.
func TestTLSHandshakeFlood(t *testing.T) {
	s := newTLSSetting(t, "p256")
	m := s.start(t, ours())
	config := &tls.Config{RootCAs: s.roots, ServerName: "localhost", Certificates: []tls.Certificate{s.ca.issue("p256", nil)}}
	m.member.client, m.member.tls = m.secure, config
	inside := m.client3()
	if _, err := inside.Put(ctx(t), "a", "b"); err != nil {
		t.Fatal(err)
	}
	strange := config.Clone()
	strange.Certificates = []tls.Certificate{newIssuer(t).issue("p256", nil)}
	f := startFlood(t, []string{m.secure}, strange)
	var slowest time.Duration
	for i := range 200 {
		begin := time.Now()
		if _, err := inside.Put(ctx(t), "a", "b"); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(begin))
		if i%20 == 0 {
			if answer := m.ask(config); !strings.HasPrefix(answer, "200 OK") {
				t.Fatalf("who comes is told: %s", answer)
			}
		}
	}
	t.Logf("%d knocked; the slowest put took %v", f.end(), slowest)
}

// The same at the ports where members meet: the leader stays, writes go on, and a
// member that was away comes back in the midst of it. How the reference fares is
// told beside it, and may be worse.
func TestTLSHandshakeFloodAmongMembers(t *testing.T) {
	for _, p := range []program{ours(), real()} {
		t.Run(p.name, func(t *testing.T) {
			c := newSecureCluster(t, 3, byAuthority)
			c.start(p, p, p)
			leader := c.leader()
			term := leader.status().RaftTerm
			strange := leader.tls.Clone()
			strange.ServerName = "localhost"
			strange.Certificates = []tls.Certificate{newIssuer(t).issue("p256", nil)}
			var peers []string
			var away *member
			for _, m := range c.members {
				peers = append(peers, m.peer)
				if m != leader {
					away = m
				}
			}
			f := startFlood(t, peers, strange)
			var slowest time.Duration
			put := func(n int) {
				for range n {
					begin := time.Now()
					if _, err := leader.client3().Put(ctx(t), "a", "b"); err != nil {
						t.Fatal(err)
					}
					slowest = max(slowest, time.Since(begin))
				}
			}
			put(100)
			away.kill()
			put(50)
			begin := time.Now()
			away.start(p)
			c.sameHash()
			back := time.Since(begin)
			put(50)
			now := leader.status()
			t.Logf("%d knocked; the slowest put took %v, the way back of a member %v; term %d, then %d",
				f.end(), slowest, back, term, now.RaftTerm)
			if p.name == ours().name && (now.RaftTerm != term || now.Leader != now.Header.MemberId) {
				t.Errorf("%s led in term %d; now %v", leader, term, now)
			}
		})
	}
}
