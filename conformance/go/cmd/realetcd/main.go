// Command realetcd is the reference: etcd v3.7.1 in Go, with all of its flags. The tests run it
// next to the server under test and compare the answers.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
