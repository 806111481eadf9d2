package control

import (
	"context"
	"net"
	"net/http"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"tapsec/control"
)

// peers accepts connections, and finds out whose they are.
type peers struct{ *net.UnixListener }

// peer is a connection from a client. Its remote address, which tells nothing for a Unix
// socket, is the client: so that passes through whatever wraps the connection.
type peer struct {
	*net.UnixConn
	of client
}

// client is who is at the other end, as an address.
type client struct {
	uid int64 // the user's number; -1 is unknown
	raw syscall.RawConn
}

func (client) Network() string      { return "unix" }
func (client) String() string       { return "a user" }
func (p peer) RemoteAddr() net.Addr { return p.of }

// Accept gives the next connection, a peer.
func (p peers) Accept() (net.Conn, error) {
	conn, err := p.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return peer{conn, clientOf(conn)}, nil
}

// clientOf asks the kernel who made the connection (unix(7), SO_PEERCRED).
func clientOf(conn *net.UnixConn) client {
	c := client{uid: -1}
	var err error
	if c.raw, err = conn.SyscallConn(); err != nil {
		return c
	}
	_ = c.raw.Control(func(fd uintptr) { // on an error the user stays unknown
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			c.uid = int64(cred.Uid)
		}
	})
	return c
}

// hungUp reports whether the client has closed its side for writing, or all. net/http, which
// ends a request then, does not notice behind bytes that nobody has read.
func (c client) hungUp() bool {
	p := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err := c.raw.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		_, _ = unix.Poll(p, 0) // on an error nothing is known, until it is asked again
	})
	return err != nil || p[0].Revents != 0
}

type peerKey struct{}

func withPeer(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, conn.RemoteAddr())
}

// onlyOwner answers only root and the user of this program. The socket's mode keeps others
// out, unless it was changed or somebody handed them a connection.
func onlyOwner(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, known := r.Context().Value(peerKey{}).(client); known && (c.uid == 0 || c.uid == int64(os.Geteuid())) {
			next.ServeHTTP(w, r)
			return
		}
		answer(w, r, func(*http.Request) (any, error) {
			return nil, refuse(control.Forbidden, "this socket is for root and the user who started tapsec")
		})
	})
}
