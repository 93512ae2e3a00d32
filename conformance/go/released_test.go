package conformance

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// lines are the older release lines in mixed clusters.
var lines = []string{"3.4", "3.5", "3.6"}

var (
	builtMu sync.Mutex
	built   = map[string]string{}
	// buildDir holds binaries built for one run of the tests.
	buildDir string
)

// line is the reference of a release line. 3.4 is the distribution's, the others are built on first
// use from the modules next to this one. REAL_ETCD35_BIN and REAL_ETCD36_BIN name built ones, and
// REAL_ETCD34_BIN the program of another distribution, which may be a 3.3 where API v2 is compared.
func line(t testing.TB, version string) program {
	t.Helper()
	name, catchup := "etcd-"+version, "--snapshot-catchup-entries"
	switch version {
	case "3.4":
		path := cmp.Or(os.Getenv("REAL_ETCD34_BIN"), debianBin)
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("install the package etcd-server: %v", err)
		}
		// It retains 5000 entries, whatever the flags.
		return program{name: name, path: path}
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

// The directory of a downgraded cluster is ready for the older program as soon as the member
// reports it, however it stops then: the log after its newest snapshot contains nothing that the
// older program rejects.
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
			// The reference reports it shortly before it is on disk.
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
