// Package testkit has what tests of several packages need of the machine and of files:
// stacks in namespaces, sockets on interfaces, a system call that fails, vectors. What it
// makes goes with the test.
package testkit

import (
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"testing"
	"time"
	"unsafe"

	"github.com/c2sp/wycheproof"
	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/lab/vector"
)

// Patience is how long anything may take on a machine that has much else to do.
const Patience = time.Minute

// Programs ends a test where one of these programs is missing, as rig.Missing does.
func Programs(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			rig.Missing(t, "needs "+name)
		}
	}
}

// Listen opens a socket on the kernel's side of an interface.
func Listen(t testing.TB, name string) *rig.Socket {
	t.Helper()
	s, err := rig.OpenSocket(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Forbid makes a system call fail with EPERM on this thread and in what it starts.
func Forbid(call uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// Vectors are those of a file.
func Vectors(t testing.TB, file string) []vector.Block {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return vector.Parse(string(text))
}

// Wycheproof are the groups of one of Wycheproof's files, each of type G.
func Wycheproof[G any](t testing.TB, file string) []G {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ TestGroups []G }
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return all.TestGroups
}

// Unhex reads hexadecimal digits.
func Unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
