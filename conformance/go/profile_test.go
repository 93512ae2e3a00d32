package conformance

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// go tool pprof opens every profile of a busy member, and finds the functions in it.
func TestPprofOpensProfiles(t *testing.T) {
	t.Parallel()
	m := startMember(t, ours(), "--enable-pprof")
	c := m.dial()
	done := make(chan struct{})
	defer func() { <-done }()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(done)
		value := strings.Repeat("v", 20_000)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := c.Put(ctx(t), fmt.Sprintf("k%d", i%100), value); err != nil {
				return
			}
		}
	}()
	for _, profile := range []struct {
		path string
		// kind is the type of its samples, function a part of a name in it, if it has any.
		kind, function string
	}{
		{"profile?seconds=2", "cpu", "retcd_"},
		{"heap", "inuse_space", "retcd_"},
		{"heap?seconds=1", "inuse_space", ""},
		{"allocs", "alloc_space", "retcd_"},
		{"goroutine", "goroutine", "apply"},
		{"threadcreate", "threadcreate", "apply"},
		{"block", "delay", ""},
		{"mutex", "delay", ""},
	} {
		file := filepath.Join(t.TempDir(), "profile")
		fetch(t, "http://"+m.client+"/debug/pprof/"+profile.path, file)
		args := []string{"tool", "pprof", "-top", "-nodecount=1000", "-sample_index=" + profile.kind, file}
		out, err := exec.Command("go", args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", profile.path, err, out)
		}
		if !strings.Contains(string(out), "Type: "+profile.kind) || !strings.Contains(string(out), profile.function) {
			t.Errorf("%s: no type %s or no function %q in\n%s", profile.path, profile.kind, profile.function, out)
		}
	}
}

func fetch(t *testing.T, url, file string) {
	t.Helper()
	client := http.Client{Timeout: startTimeout}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v %s %s", url, err, resp.Status, body)
	}
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Pages of profiles answer with the same statuses, types and refusals.
func TestProfilePagesAreAsReference(t *testing.T) {
	t.Parallel()
	theirs := startMember(t, real(), "--enable-pprof")
	ours := startMember(t, ours(), "--enable-pprof")
	client := http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	for _, path := range []string{
		"", "cmdline", "symbol", "heap", "allocs", "goroutine", "goroutine?debug=1", "goroutine?debug=2", "threadcreate",
		"block", "mutex", "heap?debug=1", "heap?seconds=x", "heap?seconds=0", "heap?debug=1&seconds=1", "nope", "a/b",
		"heap/", "profile?seconds=1",
	} {
		var answers []string
		for _, m := range []*member{theirs, ours} {
			resp, err := client.Get("http://" + m.client + "/debug/pprof/" + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			answer := fmt.Sprint(resp.StatusCode)
			for _, name := range []string{"Content-Type", "Content-Disposition", "X-Content-Type-Options", "X-Go-Pprof"} {
				answer += fmt.Sprintf(" %s=%q", name, resp.Header.Get(name))
			}
			if resp.StatusCode >= 400 {
				answer += " " + string(body)
			}
			answers = append(answers, answer)
		}
		if answers[0] != answers[1] {
			t.Errorf("/debug/pprof/%s: reference %s, ours %s", path, answers[0], answers[1])
		}
	}
}
