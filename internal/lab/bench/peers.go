package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Peer is a program of others that took part.
type Peer struct {
	Name    string `json:"name"`
	Program string `json:"program"` // its path
	Version string `json:"version"` // as it says
}

// The peers.
const (
	Iperf3    = "iperf3" // sends and receives the flow of all systems
	WireGuard = "wireguard-go"
	Tcpdump   = "tcpdump" // prints a line for each frame, and decrypts nothing
	Tshark    = "tshark"  // decrypts, and checks ICVs
)

// wireguardVar names the program that is wireguard-go.
const wireguardVar = "TAPSEC_WIREGUARD_GO"

// known is how a peer's program is called, what it calls itself, and how it is installed.
var known = map[string]struct {
	programs      []string
	says, install string
}{
	Iperf3:    {[]string{"iperf3"}, "iperf 3", "apt-get install iperf3"},
	WireGuard: {[]string{"wireguard-go", "wireguard"}, "wireguard-go", "go install golang.zx2c4.com/wireguard@latest, and put it in PATH or name it in " + wireguardVar},
	Tcpdump:   {[]string{"tcpdump"}, "tcpdump", "apt-get install tcpdump"},
	Tshark:    {[]string{"tshark"}, "TShark", "apt-get install tshark"},
}

// patience is how long a program of others may take beyond its work, on a machine that has much else to do.
const patience = time.Minute

// peer finds a program of others. Where it is not installed a note says how it would be.
func (r *Report) peer(name string) (Peer, bool) {
	programs := known[name].programs
	if named := os.Getenv(wireguardVar); name == WireGuard && named != "" {
		programs = []string{named}
	}
	var why error
	for _, program := range programs {
		p, err := find(name, program)
		if err == nil {
			r.Peers = append(r.Peers, p)
			return p, true
		}
		why = errors.Join(why, err)
	}
	r.without(name, fmt.Errorf("%w; %s", why, known[name].install))
	return Peer{}, false
}

// without says why a peer is left out.
func (r *Report) without(name string, why error) {
	r.note("without %s: %s", name, strings.ReplaceAll(why.Error(), "\n", "; "))
}

// find looks a program up and asks for its version.
func find(name, program string) (Peer, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return Peer{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	said, err := bound(ctx, path, "--version").Output()
	if err != nil {
		return Peer{}, fmt.Errorf("%s --version: %w", path, err)
	}
	version, _, _ := strings.Cut(string(said), "\n")
	if says := known[name].says; !strings.Contains(version, says) {
		return Peer{}, fmt.Errorf("%s --version: expected %s, found %.40q", path, says, version)
	}
	return Peer{name, path, version}, nil
}

// bound is a program that the kernel ends with this one, however that ends.
func bound(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// took is time of the processor, and of the clock.
type took struct{ cpu, wall time.Duration }

// spent is what programs that have ended had of the processor.
func spent(ended ...*exec.Cmd) (all time.Duration) {
	for _, p := range ended {
		all += p.ProcessState.UserTime() + p.ProcessState.SystemTime()
	}
	return all
}
