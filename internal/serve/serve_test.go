package serve

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// poor is a listener of a machine that is short of something for a while.
type poor struct {
	net.Listener
	lacks []error
}

func (p *poor) Accept() (net.Conn, error) {
	if len(p.lacks) == 0 {
		return p.Listener.Accept()
	}
	err := p.lacks[0]
	p.lacks = p.lacks[1:]
	return nil, &net.OpError{Op: "accept", Net: "unix", Err: err}
}

// What the machine lacks for a moment ends no server; it is said once, and whatever the server itself says is
// a line of the same log. Closing the listener ends it.
func TestOutagePasses(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	server := http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("of a handler") }), ErrorLog: Log(log)}
	ended := make(chan error, 1)
	go func() {
		ended <- server.Serve(Limit(&poor{l, []error{unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.EPERM}}, 1, log))
	}()
	for range 2 {
		conn, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		io.ReadAll(conn) // until the server has given up on it
		conn.Close()
	}
	server.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if text := said.String(); strings.Count(text, "cannot allocate memory") != 1 || strings.Count(text, "level=WARN") != 3 || strings.Count(text, "\n") != 3 {
		t.Errorf("said:\n%s", text)
	}
}
