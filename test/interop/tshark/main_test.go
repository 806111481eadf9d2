// Package tshark has tshark decode what tapsec opens: frames that scapy sealed and
// damaged, frames of a Linux kernel, and tapsec's own. Its keys are a table esp_sa
// that `tapsec keys` wrote.
package tshark

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tapsec/test/interop"
)

// program is the path of the binary under test.
var program string

func TestMain(m *testing.M) {
	if os.Getenv(interop.Directory) == "" {
		os.Exit(m.Run()) // which skips
	}
	dir, err := os.MkdirTemp("", "tapsec-tshark-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "tapsec")
	code := 1
	if said, err := exec.Command("go", "build", "-o", program, "tapsec").CombinedOutput(); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintf(os.Stderr, "build tapsec: %v\n%s", err, said)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}
