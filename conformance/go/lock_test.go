package conformance

import (
	"bufio"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// holder is a command that waits for a lock or leadership, and then holds it until it is
// terminated.
type holder struct {
	cmd   *exec.Cmd
	lines chan string
}

func hold(t *testing.T, m *member, args ...string) *holder {
	t.Helper()
	cmd := exec.Command(filepath.Join(binDir, "etcdctl"), append([]string{"--endpoints=" + m.client}, args...)...)
	out := need(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	h := &holder{cmd: cmd, lines: make(chan string, 64)}
	go func(out io.Reader) {
		defer close(h.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			h.lines <- lines.Text()
		}
	}(out)
	return h
}

// line waits for the next line; an empty one means the end of the output.
func (h *holder) line(t *testing.T) string {
	t.Helper()
	select {
	case line := <-h.lines:
		return line
	case <-time.After(20 * time.Second):
		t.Fatalf("%v prints nothing", h.cmd.Args)
		return ""
	}
}

func (h *holder) stop(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for range h.lines {
	}
	if err := h.cmd.Wait(); err != nil {
		t.Errorf("%v: %v", h.cmd.Args, err)
	}
}

// waitForKeys waits until count keys have the prefix.
func waitForKeys(t *testing.T, c *clientv3.Client, prefix string, count int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if need(c.Get(ctx(t), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()))(t).Count == count {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not have %d keys", prefix, count)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Go programs and ours wait for each other's locks.
func TestLocksAreSharedWithGo(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		session := need(concurrency.NewSession(c, concurrency.WithContext(ctx(t))))(t)
		mutex := concurrency.NewMutex(session, "l")
		if err := mutex.Lock(ctx(t)); err != nil {
			t.Fatal(err)
		}
		// Ours waits for Go's.
		ours := hold(t, m, "lock", "l")
		waitForKeys(t, c, "l/", 2)
		if err := mutex.Unlock(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if got, want := ours.line(t), keys(need(c.Get(ctx(t), "l/", clientv3.WithPrefix()))(t)); got != want {
			t.Errorf("the lock's key: got %s, want %s", got, want)
		}
		// Go's waits for ours.
		if err := mutex.TryLock(ctx(t)); !errors.Is(err, concurrency.ErrLocked) {
			t.Errorf("a lock that is held: %v", err)
		}
		got := make(chan error, 1)
		go func() { got <- mutex.Lock(ctx(t)) }()
		waitForKeys(t, c, "l/", 2)
		select {
		case err := <-got:
			t.Fatalf("locked twice: %v", err)
		default:
		}
		ours.stop(t)
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

// The same for elections, and both see who leads.
func TestElectionsAreSharedWithGo(t *testing.T) {
	onEach(t, func(t *testing.T, m *member) {
		c := m.dial()
		session := need(concurrency.NewSession(c, concurrency.WithContext(ctx(t))))(t)
		election := concurrency.NewElection(session, "e")
		if err := election.Campaign(ctx(t), "go"); err != nil {
			t.Fatal(err)
		}
		follower := hold(t, m, "elect", "-l", "e")
		sees := func(key, value string) {
			t.Helper()
			if k, v := follower.line(t), follower.line(t); k != key || v != value {
				t.Errorf("our follower: got %s %s, want %s %s", k, v, key, value)
			}
		}
		sees(election.Key(), "go")
		ours := hold(t, m, "elect", "e", "ours")
		waitForKeys(t, c, "e/", 2)
		if err := election.Proclaim(ctx(t), "still go"); err != nil {
			t.Fatal(err)
		}
		sees(election.Key(), "still go")
		if err := election.Resign(ctx(t)); err != nil {
			t.Fatal(err)
		}
		key := ours.line(t)
		sees(key, "ours")
		leader := need(election.Leader(ctx(t)))(t).Kvs[0]
		if string(leader.Key) != key || string(leader.Value) != "ours" {
			t.Errorf("Go's leader: %v", leader)
		}
		got := make(chan error, 1)
		go func() { got <- election.Campaign(ctx(t), "go again") }()
		waitForKeys(t, c, "e/", 2)
		ours.stop(t)
		if err := <-got; err != nil {
			t.Error(err)
		}
		sees(election.Key(), "go again")
		follower.stop(t)
	})
}
