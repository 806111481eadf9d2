package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// State is what is left to the process, according to the kernel: whatever any of its threads still has.
type State struct {
	Capabilities []string `json:"capabilities"` // effective, permitted, inheritable or ambient
	Bounding     int      `json:"bounding"`     // number of capabilities that an executed file could get, but for no_new_privs
	NoNewPrivs   bool     `json:"no_new_privs"` // no executed file gives any privilege
	Files        bool     `json:"files"`        // Landlock restricts them: / cannot be read
	Landlock     int      `json:"landlock_abi"` // the kernel's version of Landlock, 0 without
	Seccomp      string   `json:"seccomp"`      // disabled, strict or filter
	Dumpable     bool     `json:"dumpable"`     // core dumps can be made
	Threads      int      `json:"threads"`      // how many were asked
}

// Read asks the kernel. It works before Apply and after.
func Read() (State, error) {
	s := State{NoNewPrivs: true, Seccomp: "filter", Capabilities: []string{}}
	files, err := os.ReadDir(tasks)
	if err != nil {
		return s, fmt.Errorf("confinement: %w", err)
	}
	var all uint64
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(tasks, f.Name(), "status"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return s, fmt.Errorf("confinement: %w", err)
		}
		all |= s.add(string(text))
	}
	for v := range cap.MaxBits() {
		if all>>v&1 != 0 {
			s.Capabilities = append(s.Capabilities, v.String())
		}
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	s.Dumpable = dumpable != 0 || err != nil
	s.Landlock = Landlock()
	root, err := os.Open("/")
	if err == nil {
		root.Close()
	}
	s.Files = errors.Is(err, unix.EACCES)
	return s, nil
}

// add adds a thread, and returns its capabilities.
func (s *State) add(status string) (capabilities uint64) {
	s.Threads++
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		set, _ := strconv.ParseUint(value, 16, 64)
		switch name {
		case "CapInh", "CapPrm", "CapEff", "CapAmb":
			capabilities |= set
		case "CapBnd":
			s.Bounding = max(s.Bounding, bits.OnesCount64(set))
		case "NoNewPrivs":
			s.NoNewPrivs = s.NoNewPrivs && value == "1"
		case "Seccomp":
			if mode := map[string]string{"0": "disabled", "1": "strict"}[value]; mode != "" {
				s.Seccomp = mode
			}
		}
	}
	return capabilities
}

// Landlock is the version of the kernel's Landlock ABI, 0 if it has none or it is switched off. It is read
// once, since a confined process may not read it.
var Landlock = sync.OnceValue(func() int {
	version, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return version
})
