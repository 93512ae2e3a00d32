// Command go35 is etcd of the 3.5 line in Go, with all of its flags: a member of
// the clusters that the tests mix.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
