// Package conformance tests the server from outside, as its users do: with the official client,
// next to the reference server, on each other's files, and with SIGKILL.
//
// RETCD_BIN_DIR names the directory of the binaries under test (etcd, etcdctl, etcdutl); the
// default is the debug build. REAL_ETCD_BIN names a built cmd/realetcd; by default the tests build
// one. CONFORMANCE_SEEDS is the number of random scripts to compare.
package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var (
	// binDir holds the binaries under test.
	binDir string
	// realBin is the reference server, v3.7.1.
	realBin string
)

// debianBin is the reference of an older line, used where it is installed.
const debianBin = "/usr/bin/etcd"

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	binDir = os.Getenv("RETCD_BIN_DIR")
	if binDir == "" {
		binDir = "../../target/debug"
	}
	var err error
	if binDir, err = filepath.Abs(binDir); err != nil {
		return fail(err)
	}
	for _, name := range []string{"etcd", "etcdctl", "etcdutl"} {
		if _, err := os.Stat(filepath.Join(binDir, name)); err != nil {
			return fail(fmt.Errorf("no binary under test: %w", err))
		}
	}

	if buildDir, err = os.MkdirTemp("", "realetcd"); err != nil {
		return fail(err)
	}
	defer os.RemoveAll(buildDir)
	realBin = os.Getenv("REAL_ETCD_BIN")
	if realBin == "" {
		realBin = filepath.Join(buildDir, "realetcd")
		build := exec.Command("go", "build", "-buildvcs=false", "-o", realBin, "./cmd/realetcd")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return fail(fmt.Errorf("building the reference server: %w", err))
		}
	}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "conformance:", err)
	return 1
}
