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

// flood performs handshakes continuously: some with an untrusted certificate, some that stop within
// the ClientHello.
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
	// More than the server handshakes concurrently.
	for i := range 1500 {
		conn, err := net.Dial("tcp", addresses[i%len(addresses)])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		// The server may already have closed it.
		conn.Write([]byte{0x16, 3, 1, 2, 0, 1})
	}
	return f
}

// end stops the flood, and returns the number of handshakes.
func (f *flood) end() int64 {
	select {
	case <-f.over:
	default:
		close(f.over)
	}
	f.wg.Wait()
	return f.knocks.Load()
}

// A flood of handshakes delays neither existing connections nor new ones.
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
