package conformance

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// startTimeout bounds the start of a member on a busy machine.
	startTimeout = 60 * time.Second
	// callTimeout bounds one request and one awaited event.
	callTimeout = 30 * time.Second
)

// program is a server binary that can serve a data directory.
type program struct {
	name string
	path string
	// catchup is its flag for the number of entries retained for slow followers, if it has one.
	catchup string
	// flag is one that only this program is given, if any.
	flag string
}

func ours() program {
	return program{name: "ours", path: filepath.Join(binDir, "etcd"), catchup: "--snapshot-catchup-entries"}
}
func real() program {
	return program{name: "etcd-3.7.1", path: realBin, catchup: "--snapshot-catchup-entries"}
}

// member is one server process with its own data directory.
type member struct {
	t      testing.TB
	name   string
	id     uint64 // of one that was added
	dir    string
	client string // host:port
	peer   string // host:port
	// cluster is the value of --initial-cluster.
	cluster string
	flags   []string
	// catchup is the number of entries retained for slow followers, unless it is the default.
	catchup int
	// tls is the client configuration; nil means plaintext.
	tls *tls.Config

	program program
	cmd     *exec.Cmd
	exited  chan struct{}
	log     string
	// up reports whether the process should be running.
	up atomic.Bool

	clientOnce sync.Once
	clientV3   *clientv3.Client
}

func (m *member) String() string { return m.name + " (" + m.program.name + ")" }

// newMember prepares a data directory and ports without starting anything.
func newMember(t testing.TB, flags ...string) *member {
	t.Helper()
	root := t.TempDir()
	m := &member{
		t: t, name: "default", dir: filepath.Join(root, "data"), log: filepath.Join(root, "log"),
		client: freeAddr(t), peer: freeAddr(t), flags: flags,
	}
	m.cluster = m.name + "=http://" + m.peer
	t.Cleanup(func() {
		if t.Failed() && m.cmd != nil {
			t.Logf("log of %s on %s:\n%s", m.program.name, m.client, m.logTail())
		}
	})
	return m
}

// startMember starts a program on a new data directory.
func startMember(t testing.TB, p program, flags ...string) *member {
	t.Helper()
	m := newMember(t, flags...)
	m.start(p)
	return m
}

// givenAddrs are the addresses that freeAddr has returned: a member that has not been started, or
// is down, does not listen on its own.
var givenAddrs sync.Map

// freeAddr returns an unused loopback address, and never returns it again. The ports are below the
// ephemeral range, so that no outgoing connection takes them meanwhile.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		if _, given := givenAddrs.LoadOrStore(addr, true); !given {
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// start runs a program on the member's directory and waits until it serves.
func (m *member) start(p program) {
	m.t.Helper()
	m.launch(p)
	m.awaitHealthy()
}

// awaitHealthy waits until a launched member serves.
func (m *member) awaitHealthy() {
	m.t.Helper()
	if !m.serves() {
		m.t.Fatalf("%s does not serve after %v\n%s", m.program.name, startTimeout, m.logTail())
	}
}

// serves waits for a launched member, and reports whether it serves in time. The test fails if the
// process exits.
func (m *member) serves() bool {
	m.t.Helper()
	serving, exited := m.await()
	if exited {
		m.t.Fatalf("%s ended instead of serving: %v\n%s", m.program.name, m.cmd.ProcessState, m.logTail())
	}
	return serving
}

// await waits until a launched member serves or exits, and reports whether it does in time.
func (m *member) await() (serving, exited bool) {
	deadline := time.Now().Add(startTimeout)
	for !m.healthy() {
		select {
		case <-m.exited:
			return false, true
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return false, false
		}
	}
	return true, false
}

// launch starts the process without waiting.
func (m *member) launch(p program) {
	m.t.Helper()
	args := append([]string{
		"--name=" + m.name, "--data-dir=" + m.dir,
		"--listen-client-urls=http://" + m.client, "--advertise-client-urls=http://" + m.client,
		"--listen-peer-urls=http://" + m.peer, "--initial-advertise-peer-urls=http://" + m.peer,
		"--initial-cluster=" + m.cluster, "--log-level=info",
	}, m.flags...)
	if m.catchup != 0 && p.catchup != "" {
		args = append(args, fmt.Sprintf("%s=%d", p.catchup, m.catchup))
	}
	if p.flag != "" {
		args = append(args, p.flag)
	}
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(p.path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// The server must not outlive tests that are themselves killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	m.program, m.cmd, m.exited = p, cmd, exited
	m.up.Store(true)
	m.t.Cleanup(func() {
		cmd.Process.Kill()
		<-exited
	})
}

func (m *member) healthy() bool {
	url := "http://" + m.client
	if m.tls != nil {
		url = "https://" + m.client
	}
	return pageOver(m.tls, url+"/health", `"health":"true"`)
}

// page reports whether a page exists and contains a text.
func page(address, path, text string) bool {
	return pageOver(nil, "http://"+address+path, text)
}

func pageOver(config *tls.Config, url, text string) bool {
	client := http.Client{Timeout: 5 * time.Second}
	if config != nil {
		client.Transport = &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	}
	resp, err := client.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK && bytes.Contains(body, []byte(text))
}

// stop stops the member with SIGTERM.
func (m *member) stop() {
	m.t.Helper()
	m.up.Store(false)
	m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.exited:
	case <-time.After(startTimeout):
		m.t.Fatalf("%s does not stop on SIGTERM\n%s", m.program.name, m.logTail())
	}
}

// kill stops the member with SIGKILL.
func (m *member) kill() {
	m.up.Store(false)
	m.cmd.Process.Kill()
	<-m.exited
}

// client3 is a client of this member only, which survives restarts.
func (m *member) client3() *clientv3.Client {
	m.clientOnce.Do(func() { m.clientV3 = m.dial() })
	return m.clientV3
}

// logged reports whether the server's log contains a text.
func (m *member) logged(text string) bool {
	log, err := os.ReadFile(m.log)
	return err == nil && bytes.Contains(log, []byte(text))
}

// logTail is the end of the server's log, for failure messages.
func (m *member) logTail() string {
	log, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	lines = lines[max(0, len(lines)-8):]
	for i, line := range lines {
		lines[i] = line[:min(len(line), 2000)]
	}
	return strings.Join(lines, "\n")
}

// dial opens an official client.
func (m *member) dial() *clientv3.Client {
	m.t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{m.client}, TLS: m.tls, DialTimeout: startTimeout, Logger: zap.NewNop(),
		MaxCallRecvMsgSize: 1 << 30,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}

// conn opens a plain gRPC connection, for what the client hides.
func (m *member) conn() *grpc.ClientConn {
	m.t.Helper()
	c, err := grpc.NewClient(m.client, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}

// db is the member's bbolt file.
func (m *member) db() string { return filepath.Join(m.dir, "member", "snap", "db") }

// ctx is a context for one test's requests.
func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), callTimeout)
	t.Cleanup(cancel)
	return c
}

// hashKV returns the hash of the keyspace at a revision (0: the current one).
func (m *member) hashKV(rev int64) *clientv3.HashKVResponse {
	m.t.Helper()
	c := m.dial()
	defer c.Close()
	r, err := c.HashKV(ctx(m.t), m.client, rev)
	if err != nil {
		m.t.Fatalf("%s: HashKV at %d: %v", m.program.name, rev, err)
	}
	return r
}

// checkBolt runs bbolt's own check over every page of a closed file.
func checkBolt(t testing.TB, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatalf("bbolt cannot open %s: %v", path, err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		var first error
		for e := range tx.Check() {
			if first == nil {
				first = e
			}
		}
		return first
	})
	if err != nil {
		t.Fatalf("bbolt's check of %s: %v", path, err)
	}
}
