// Package control is a running NIC or transport seen from outside: HTTP with
// JSON on a Unix socket that only its owner can open (docs/control.md).
//
//	GET  /        what there is
//	GET  /NAME    a document
//	POST /update  {"protocol": "esp", "spi": "0x1001", "dst": "192.0.2.1", "src": "", "high": 1}
//	POST /delete  {"protocol": "esp", "spi": "0x1001", "dst": "192.0.2.1", "src": ""}
//
// An answer is the document, nothing (204), or {"error": "one sentence"}. For
// instance
//
//	curl --unix-socket /run/tapsec.sock http://tapsec/moved
//
// The package knows neither NIC nor transport: what the documents say, and what
// an update does, is given to it. Requests stay off the frame path. Connections
// are few and short: each has one request, and a few seconds for it.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"tapsec/sa"
)

// Offloader holds offloaded SAs. The error for one that it does not hold is
// sa.ErrUnknown.
type Offloader interface {
	Update(id sa.ID, high uint32) error // the high half of the SA's sequence numbers
	Delete(id sa.ID) error
}

// Config is what there is to see and to do. Its functions and methods are called
// at any time, by several goroutines at once.
type Config struct {
	// Documents make what is encoded as JSON; names are lower-case letters,
	// digits and dashes. Of a key encoding/json shows the length alone, as long
	// as it is an sa.Key.
	Documents map[string]func() any
	Offloader Offloader // nil: there is nothing to update or delete
}

// Index is the answer to GET /.
type Index struct {
	Documents []string `json:"documents"` // GET
	Actions   []string `json:"actions"`   // POST
}

const (
	maxClients   = 16      // at once; the next one waits until one of them is done
	maxBody      = 4 << 10 // bytes of a request
	serverPause  = 5 * time.Second
	closingPause = time.Second
)

// Server answers on one socket.
type Server struct {
	Config
	path  string
	made  os.FileInfo // the socket, to know it again
	http  http.Server
	ended chan error
	once  sync.Once
	err   error // of the first Close
}

var documentName = regexp.MustCompile(`^[a-z0-9-]+$`)

// Open makes the socket at path, with mode 0600, and begins to answer. A socket
// that a dead program left there is replaced; one on which somebody listens, and
// any other file, is an error. It panics where a document's name is none.
func Open(path string, c Config) (*Server, error) {
	for name := range c.Documents {
		if !documentName.MatchString(name) || name == "update" || name == "delete" {
			panic(fmt.Sprintf("control: %q cannot be the name of a document", name))
		}
	}
	l, err := listen(path)
	if err != nil {
		return nil, err
	}
	s := &Server{Config: c, path: path, ended: make(chan error, 1)}
	if s.made, err = os.Lstat(path); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s.http = http.Server{Handler: s, ReadTimeout: serverPause, WriteTimeout: serverPause, MaxHeaderBytes: maxBody}
	s.http.SetKeepAlivesEnabled(false) // nobody holds one of the few for longer than a request takes
	go func() { s.ended <- s.serve(netutil.LimitListener(l, maxClients)) }()
	return s, nil
}

func (s *Server) serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket %s: %w", s.path, err)
	}
	return nil
}

// Close removes the socket, unless another program's has taken its place, and
// ends once requests under way are answered, after a second at most. The error
// is why the server had stopped to answer before. A second Close does no more.
func (s *Server) Close() error {
	s.once.Do(func() { s.err = s.close() })
	return s.err
}

// close looks at the file while the socket is open still: its inode is ours for
// that long.
func (s *Server) close() error {
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.made) {
		os.Remove(s.path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), closingPause)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	return <-s.ended
}

// refusal is an answer that is an error.
type refusal struct {
	status int // of HTTP
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	document, err := s.answer(w, r)
	status := http.StatusOK
	if bad := (*refusal)(nil); errors.As(err, &bad) {
		status = bad.status
	} else if err != nil {
		status = http.StatusInternalServerError
	} else if document == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err != nil {
		document = map[string]string{"error": err.Error()}
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("control: %s: %v", r.URL.Path, err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}

// answer gives the document that answers a request, or nil where none is needed.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	method := http.MethodGet
	if name == "update" || name == "delete" {
		method = http.MethodPost
	} else if name != "" && s.Documents[name] == nil {
		return nil, refuse(http.StatusNotFound, "there is no %q here; GET / lists what there is", name)
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		return nil, refuse(http.StatusMethodNotAllowed, "/%s takes %s, not %s", name, method, r.Method)
	}
	switch name {
	case "":
		return s.index(), nil
	case "update", "delete":
		return nil, s.change(name, http.MaxBytesReader(w, r.Body, maxBody))
	}
	return s.Documents[name](), nil
}

func (s *Server) index() Index {
	i := Index{Documents: slices.Sorted(maps.Keys(s.Documents)), Actions: []string{}}
	if s.Offloader != nil {
		i.Actions = []string{"delete", "update"}
	}
	return i
}

// change is what POST takes.
type change struct {
	Protocol *sa.Protocol `json:"protocol"`
	SPI      *sa.SPI      `json:"spi"`
	Dst      *netip.Addr  `json:"dst"`            // "" where the SA has none
	Src      *netip.Addr  `json:"src"`            // likewise
	High     *uint32      `json:"high,omitempty"` // update alone
}

func newChange(id sa.ID, high *uint32) change {
	return change{&id.Protocol, &id.SPI, &id.Dst, &id.Src, high}
}

// check names what is missing, or too much.
func (c *change) check(name string) error {
	const missing = "%q is missing, %s"
	switch {
	case c.Protocol == nil:
		return fmt.Errorf(missing, "protocol", "esp or ah")
	case c.SPI == nil:
		return fmt.Errorf(missing, "spi", `for instance "0x1001"`)
	case c.Dst == nil:
		return fmt.Errorf(missing, "dst", `the SA's destination, or "" if it has none`)
	case c.Src == nil:
		return fmt.Errorf(missing, "src", `the SA's source, or "" if it has none`)
	case name == "update" && c.High == nil:
		return fmt.Errorf(missing, "high", "the high half of the sequence numbers")
	case name == "delete" && c.High != nil:
		return errors.New(`"high" is for /update`)
	}
	return nil
}

func (c *change) id() sa.ID {
	return sa.ID{Protocol: *c.Protocol, SPI: *c.SPI, Dst: *c.Dst, Src: *c.Src}
}

func (s *Server) change(name string, body io.Reader) error {
	if s.Offloader == nil {
		return refuse(http.StatusNotImplemented, "nothing is offloaded here that one could %s", name)
	}
	c, err := decode(body)
	if err == nil {
		err = c.check(name)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "/%s: %v", name, err)
	}
	if name == "delete" {
		err = s.Offloader.Delete(c.id())
	} else {
		err = s.Offloader.Update(c.id(), *c.High)
	}
	if errors.Is(err, sa.ErrUnknown) {
		return refuse(http.StatusNotFound, "%s: %v", c.id(), sa.ErrUnknown)
	}
	return err
}

// decode reads one change and nothing else.
func decode(body io.Reader) (c change, err error) {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); errors.Is(err, io.EOF) {
		return c, errors.New("the body is empty")
	} else if err != nil {
		return c, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return c, errors.New("there is more behind the object")
	}
	return c, nil
}
