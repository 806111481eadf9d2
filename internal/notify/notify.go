// Package notify tells the service manager the program's state, as in sd_notify(3): datagrams of lines to
// the Unix socket that NOTIFY_SOCKET names. Without a manager it does nothing.
package notify

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Service is the program as its manager sees it. The socket is opened once, since the program may be
// unable to do so later. A message that is not heard is not an error: that is what the manager's watchdog
// is for.
type Service struct{ manager *os.File }

// Open removes the manager's socket from the environment, so that children do not speak for us.
func Open() (*Service, error) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return &Service{}, nil
	}
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "@") {
		return nil, fmt.Errorf("NOTIFY_SOCKET=%s: expected a path, or an abstract name after @", name)
	}
	manager, err := dial(name)
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET=%s: %w; unset it where no service manager listens", name, err)
	}
	return &Service{os.NewFile(uintptr(manager), name)}, nil
}

// dial connects to the manager. The kernel waits while the manager's queue is full, so that each message
// is tried at least once, however late the program gets to run.
func dial(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

// Ready says that frames flow, or that a reload is over.
func (s *Service) Ready() { s.tell("READY=1") }

// Reloading says that the configuration is being read again, with the time on the manager's clock.
func (s *Service) Reloading() {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return
	}
	s.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping says that the end has begun.
func (s *Service) Stopping() { s.tell("STOPPING=1") }

// Watchdog says that the program is alive, which it has to do every WatchdogSec.
func (s *Service) Watchdog() { s.tell("WATCHDOG=1") }

// patience is how long to wait for a manager whose queue is full; there is other work to do.
const patience = 100 * time.Millisecond

func (s *Service) tell(state string) {
	if s.manager != nil {
		_, _ = s.manager.WriteString(state)
	}
}

// Close closes the socket.
func (s *Service) Close() error {
	if s.manager == nil {
		return nil
	}
	return s.manager.Close()
}

// Pulse tells from the workers' counts whether all of them are alive. Its zero value is ready to use.
type Pulse struct{ last []uint64 }

// Beats reports whether every worker's count has risen since Beats was last true. The first call only
// takes the counts.
func (p *Pulse) Beats(counts []uint64) bool {
	beats := len(p.last) == len(counts)
	for i := range p.last {
		beats = beats && counts[i] > p.last[i]
	}
	if beats || p.last == nil {
		p.last = slices.Clone(counts)
	}
	return beats
}
