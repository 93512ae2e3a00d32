package conformance

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A directory of an older line with data of API v2 is started on by ours, after a clean stop and
// after SIGKILL: the same tree, history, users and roles. And again from what ours has written. The
// index grows with each start, when a member tells its name.
func TestV2Takeover(t *testing.T) {
	for _, version := range []string{"3.4", "3.5"} {
		for _, end := range []string{"stopped", "killed"} {
			t.Run(version+"/"+end, func(t *testing.T) {
				t.Parallel()
				m := newMember(t, "--snapshot-count=100", cheap)
				m.start(withV2(line(t, version)))
				draw := &v2Script{script: newScript(uint64(len(end)), false)}
				must(t, "put", second(m.client3().Put(ctx(t), "a", "b")))
				m.populateV2Users()
				m.populateV2(draw, 400)
				for turn := range 3 {
					before := m.stateOfV2()
					if end == "killed" {
						m.kill()
					} else {
						m.stop()
					}
					m.start(ours())
					if after := m.stateOfV2(); after != before {
						was, is := firstDifference(before, after)
						t.Fatalf("turn %d:\nbefore: %s\nafter:  %s", turn, was, is)
					}
					got, err := m.client3().Get(ctx(t), "a")
					if err != nil || keys(got) != "a" {
						t.Fatalf("API v3: %v, %v", got, err)
					}
					m.populateV2(draw, 150)
				}
			})
		}
	}
}

// populateV2 writes what a script draws; it must not be refused altogether.
func (m *member) populateV2(draw *v2Script, n int) {
	m.t.Helper()
	done := map[int]int{}
	for range n {
		step := draw.next()
		if step.isWatch || step.expires != "" || strings.Contains(step.path, "/v2/members") {
			continue
		}
		reply, err := m.askV2(step.v2Request)
		if err != nil {
			m.t.Fatalf("%s: %v: %v", m, step.v2Request, err)
		}
		draw.index = max(draw.index, reply.index())
		done[reply.status]++
	}
	if done[http.StatusCreated] < n/20 {
		m.t.Fatalf("%s: only %v of %d requests", m, done, n)
	}
	m.mustV2(v2Put("/end", fmt.Sprint("value=", draw.index)))
}

const v2Root = "root:secret"

func v2JSON(method, path, body string) v2Request {
	return v2Request{method: method, path: "/v2/auth" + path, form: body, kind: "application/json"}
}

func (m *member) populateV2Users() {
	m.t.Helper()
	m.mustV2(v2JSON("PUT", "/users/root", `{"user":"root","password":"secret"}`))
	m.mustV2(v2JSON("PUT", "/roles/r", `{"role":"r","permissions":{"kv":{"read":["/a/*","/b"],"write":["/a/*"]}}}`))
	m.mustV2(v2JSON("PUT", "/users/u", `{"user":"u","password":"pass","roles":["r"]}`))
}

// stateOfV2 is what API v2 shows of a member: tree, history, users and roles.
func (m *member) stateOfV2() string {
	m.t.Helper()
	text := regexp.MustCompile(`index[": ]+[0-9]+`).ReplaceAllString(m.v2Tree("/", "/_h", "/a/_i", "/q/_i"), "")
	for _, path := range []string{"/users/root", "/users/u", "/roles", "/enable"} {
		text += m.mustV2(v2Request{method: "GET", path: "/v2/auth" + path}).body
	}
	// The last write that watches see.
	end := m.mustV2(v2Get("/end")).event(m.t).Node.ModifiedIndex
	for from := max(1, end-min(end, 200)); from <= end; {
		reply, err := m.askV2(v2Get(fmt.Sprintf("/?wait=true&recursive=true&waitIndex=%d", from)))
		if err != nil || reply.status != http.StatusOK {
			m.t.Fatalf("%s: watch from %d of %d: %v, %v", m, from, end, err, reply)
		}
		event := reply.event(m.t)
		text += strings.ReplaceAll(v2TTL.ReplaceAllString(reply.body, `"ttl":N`), `\ufffd`, "\ufffd")
		from = event.Node.ModifiedIndex + 1
	}
	return text
}

// As long as a member of the older line keeps the cluster's version down, directories go back and
// forth, with what API v2 has written to them.
func TestV2SwappedBack(t *testing.T) {
	for _, version := range []string{"3.4", "3.5"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			older := withV2(line(t, version))
			c := newCluster(t, 3, "--snapshot-count=100", cheap)
			c.start(older, older, older)
			for _, step := range []struct {
				member int
				to     program
			}{{0, ours()}, {1, ours()}, {0, older}, {1, older}, {0, ours()}} {
				m := c.members[step.member]
				h := c.loadV2(2)
				h.await(150)
				m.stop()
				h.await(30)
				m.start(step.to)
				c.lead(m)
				h.await(50)
				h.finish()
				c.version(version + ".0")
			}
		})
	}
}

// From a lone member of ours, whose cluster is of version 3.7, a backup goes back to an older line,
// with what both APIs hold. To 3.7, which would end at the writes of API v2 in the log, goes a
// snapshot, with what API v3 holds.
func TestV2WayBack(t *testing.T) {
	m := startMember(t, ours(), "--snapshot-count=100", cheap)
	m.populateV2Users()
	m.populateV2(&v2Script{script: newScript(7, false)}, 400)
	for i := range 20 {
		must(t, "put", second(m.client3().Put(ctx(t), fmt.Sprint("key-", i%7), fmt.Sprint(i))))
	}
	snapshot := filepath.Join(t.TempDir(), "snapshot")
	tool(t, "etcdctl", "--endpoints", m.client, "snapshot", "save", snapshot)
	wantV2, wantV3 := m.stateOfV2(), m.hashKV(0)
	m.stop()
	checkV3 := func(back *member) {
		t.Helper()
		if got := back.hashKV(wantV3.HashRevision); got.Hash != wantV3.Hash {
			t.Errorf("%s: HashKV %v, want %v", back, got, wantV3)
		}
	}
	for _, version := range []string{"3.4", "3.5"} {
		t.Run(version, func(t *testing.T) {
			back := newMember(t, "--force-new-cluster", cheap)
			backup := exec.Command(filepath.Join(binDir, "etcdctl"), "backup", "--with-v3", "--data-dir", m.dir, "--backup-dir", back.dir)
			backup.Env = append(os.Environ(), "ETCDCTL_API=2")
			if out, err := backup.CombinedOutput(); err != nil {
				t.Fatalf("etcdctl backup: %v\n%s", err, out)
			}
			for range 2 {
				back.start(withV2(line(t, version)))
				if got := back.stateOfV2(); got != wantV2 {
					was, is := firstDifference(wantV2, got)
					t.Fatalf("before: %s\nafter:  %s", was, is)
				}
				checkV3(back)
				must(t, "put", second(back.client3().Put(ctx(t), "other", "")))
				back.mustV2(v2Put("/other-way", "value=1"))
				back.mustV2(v2Request{method: "DELETE", path: "/v2/keys/other-way"})
				back.stop()
				back.flags = []string{cheap}
			}
		})
	}
	t.Run("3.7", func(t *testing.T) {
		back := newMember(t, cheap)
		tool(t, "etcdutl", "snapshot", "restore", snapshot, "--name=default", "--data-dir="+back.dir,
			"--initial-cluster=default=http://"+back.peer, "--initial-advertise-peer-urls=http://"+back.peer)
		back.start(real())
		checkV3(back)
	})
}
