// Command go36 is etcd of the 3.6 line in Go, with all of its flags, for members of mixed clusters.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
