package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// lines are the older release lines that clusters are mixed with.
var lines = []string{"3.4", "3.5", "3.6"}

var (
	builtMu sync.Mutex
	built   = map[string]string{}
	// buildDir holds what is built for one run of the tests.
	buildDir string
)

// line is the reference's program of a release line. 3.4 is the distribution's,
// the others are built from the modules beside this one, when they are needed
// first. REAL_ETCD35_BIN and REAL_ETCD36_BIN name built ones.
func line(t testing.TB, version string) program {
	t.Helper()
	name, catchup := "etcd-"+version, "--snapshot-catchup-entries"
	switch version {
	case "3.4":
		if _, err := os.Stat(debianBin); err != nil {
			t.Fatalf("install the package etcd-server: %v", err)
		}
		// It keeps 5000 entries, whatever it is told.
		return program{name: name, path: debianBin}
	case "3.5":
		catchup = "--experimental-snapshot-catchup-entries"
	}
	digits := version[:1] + version[2:]
	builtMu.Lock()
	defer builtMu.Unlock()
	path := os.Getenv("REAL_ETCD" + digits + "_BIN")
	if path == "" {
		path = built[version]
	}
	if path == "" {
		path = filepath.Join(buildDir, "etcd"+digits)
		build := exec.Command("go", "build", "-buildvcs=false", "-o", path, ".")
		build.Dir = fmt.Sprintf("../go%s", digits)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
		built[version] = path
	}
	return program{name: name, path: path, catchup: catchup}
}

// A directory whose cluster has gone down a version is ready for the older
// program as soon as the member says so, whatever ends it then: the log behind
// its newest snapshot has nothing that the older program refuses.
func TestDowngradedDirectoryIsReady(t *testing.T) {
	for _, p := range []program{ours(), real()} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			m := startMember(t, p)
			must(t, "put", second(m.client3().Put(ctx(t), "a", "b")))
			insist(t, "enable the downgrade", func() error {
				return second(m.client3().Downgrade(ctx(t), clientv3.DowngradeEnable, "3.6.0"))
			})
			eventually(t, "the schema of 3.6", func() bool {
				s := m.status()
				return s != nil && s.StorageVersion == "3.6.0"
			})
			// The reference says so a moment before it is on its disk.
			if p == real() {
				m.stop()
			} else {
				m.kill()
			}
			checkBolt(t, m.db())
			m.start(line(t, "3.6"))
			got, err := m.dial().Get(ctx(t), "a")
			if err != nil || keys(got) != "a" {
				t.Fatalf("%v, %v", got, err)
			}
			m.stop()
			m.start(p)
			must(t, "put", second(m.dial().Put(ctx(t), "a", "c")))
		})
	}
}
