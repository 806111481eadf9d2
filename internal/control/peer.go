package control

import (
	"context"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"tapsec/control"
)

// peers accepts connections of which it is known whose they are.
type peers struct{ *net.UnixListener }

// peer is a connection from a user. The remote address of a Unix socket says
// nothing, and is in its place who is there: it goes through whatever wraps a
// connection.
type peer struct {
	*net.UnixConn
	uid user
}

// user is a user's number as an address; -1 is nobody known.
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
	_ = raw.Control(func(fd uintptr) { // an error leaves nobody known
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

// onlyOwner answers root and the user whose program this is. The socket's mode keeps
// others out, unless it was changed or they were handed a connection.
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
