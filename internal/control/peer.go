package control

import (
	"context"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"tapsec/control"
)

// peers accepts connections, and finds out whose they are.
type peers struct{ *net.UnixListener }

// peer is a connection from a user. Its remote address, which tells nothing for a Unix
// socket, is the user: so that passes through whatever wraps the connection.
type peer struct {
	*net.UnixConn
	uid user
}

// user is a user's number as an address; -1 is unknown.
type user int64

func (user) Network() string        { return "unix" }
func (user) String() string         { return "a user" }
func (p peer) RemoteAddr() net.Addr { return p.uid }

// Accept gives the next connection, a peer.
func (p peers) Accept() (net.Conn, error) {
	conn, err := p.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return peer{conn, userOf(conn)}, nil
}

// userOf asks the kernel who made the connection (unix(7), SO_PEERCRED).
func userOf(conn *net.UnixConn) user {
	uid := user(-1)
	raw, err := conn.SyscallConn()
	if err != nil {
		return uid
	}
	_ = raw.Control(func(fd uintptr) { // on an error the user stays unknown
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = user(cred.Uid)
		}
	})
	return uid
}

type peerKey struct{}

func withPeer(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, conn.RemoteAddr())
}

// onlyOwner answers only root and the user of this program. The socket's mode keeps others
// out, unless it was changed or somebody handed them a connection.
func onlyOwner(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if uid, known := r.Context().Value(peerKey{}).(user); known && (uid == 0 || uid == user(os.Geteuid())) {
			next.ServeHTTP(w, r)
			return
		}
		answer(w, r, func(*http.Request) (any, error) {
			return nil, refuse(control.Forbidden, "this socket is for root and the user who started tapsec")
		})
	})
}
