package control

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"tapsec/control"
)

// peers accepts connections, and finds out whose they are.
type peers struct{ *net.UnixListener }

// peer is a connection of a Peer. Its remote address, which tells nothing for a Unix socket,
// is the Peer: so that passes through whatever wraps the connection.
type peer struct {
	*net.UnixConn
	by Peer
}

// Peer is who made a connection: a user and a process, as this program's namespaces number
// them. UID -1 is unknown, and so is PID 0.
type Peer struct {
	UID, PID int
	raw      syscall.RawConn
}

func (Peer) Network() string        { return "unix" }
func (p Peer) String() string       { return fmt.Sprintf("process %d of user %d", p.PID, p.UID) }
func (p peer) RemoteAddr() net.Addr { return p.by }

// Accept gives the next connection, a peer.
func (p peers) Accept() (net.Conn, error) {
	conn, err := p.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return peer{conn, peerOf(conn)}, nil
}

// peerOf asks the kernel who made the connection (unix(7), SO_PEERCRED).
func peerOf(conn *net.UnixConn) Peer {
	by := Peer{UID: -1}
	var err error
	if by.raw, err = conn.SyscallConn(); err != nil {
		return by
	}
	_ = by.raw.Control(func(fd uintptr) { // on an error the user stays unknown
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			by.UID, by.PID = int(cred.Uid), int(cred.Pid)
		}
	})
	return by
}

// hungUp reports whether the peer has closed its side for writing, or all. net/http, which
// ends a request then, does not notice behind bytes that nobody has read.
func (p Peer) hungUp() bool {
	fds := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err := p.raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		_, _ = unix.Poll(fds, 0) // on an error nothing is known, until it is asked again
	})
	return err != nil || fds[0].Revents != 0
}

type peerKey struct{}

func withPeer(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, conn.RemoteAddr())
}

// PeerOf is who made the request that a context is of.
func PeerOf(ctx context.Context) Peer {
	if by, known := ctx.Value(peerKey{}).(Peer); known {
		return by
	}
	return Peer{UID: -1}
}

// onlyOwner answers only root and the user of this program. The socket's mode keeps others
// out, unless it was changed or somebody handed them a connection.
func onlyOwner(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if by := PeerOf(r.Context()); by.UID == 0 || by.UID == os.Geteuid() {
			next.ServeHTTP(w, r)
			return
		}
		answer(w, r, func(*http.Request) (any, error) {
			return nil, refuse(control.Forbidden, "this socket is for root and the user who started tapsec")
		})
	})
}
