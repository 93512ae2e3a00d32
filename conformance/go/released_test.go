package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
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
