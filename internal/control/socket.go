package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const maxPath = 107 // bytes; sockaddr_un has room for one more, a zero

// listen makes the socket. It removes what is at path already only if that is a socket on
// which nobody listens.
func listen(path string) (*net.UnixListener, error) {
	switch {
	case len(path) > maxPath:
		return nil, fmt.Errorf("control socket %s: the path has %d bytes, and a socket's at most %d", path, len(path), maxPath)
	case path == "" || strings.HasPrefix(path, "@"):
		return nil, fmt.Errorf("control socket %q: expected the path of a file, whose mode keeps others out", path)
	}
	l, err := bind(path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeDead(path); err != nil {
			return nil, err
		}
		l, err = bind(path)
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // Close checks first whose it is
	return l, nil
}

// bind makes the socket with its mode in one step, so that nobody else can ever connect. For
// that moment the umask holds for every file that the program makes.
func bind(path string) (*net.UnixListener, error) {
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}

// removeDead removes the socket of a program that has ended.
func removeDead(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket %s: there is a file that is no socket; choose another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("control socket: %w", err)
		}
		return nil
	}
	if err == nil {
		conn.Close()
		return fmt.Errorf("control socket %s: another program listens there; end it or choose another path", path)
	}
	return fmt.Errorf("control socket %s is there, and it is unclear whether a program listens (%w); choose another path", path, err)
}
