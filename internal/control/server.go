// Package control answers on the control socket of a running NIC or transport:
// HTTP with JSON on a Unix socket, for root and the user who started the program
// (docs/control.md; control/openapi.yaml describes each path).
//
//	curl --unix-socket /run/tapsec.sock http://tapsec/moved
//
// The package knows neither NIC nor transport: it is told what the documents say and what a
// request does. Requests stay off the frame path. Connections are few and short: each has
// one request, and a few seconds for it. Followers of events and streams stay, in places of their own.
package control

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"tapsec/control"
	"tapsec/internal/event"
	"tapsec/internal/serve"
	"tapsec/keys"
	"tapsec/sa"
)

// SAs are the SAs and the NIC of the process. Several goroutines call the methods; errors are
// such as control.ErrorOf knows.
type SAs interface {
	Add(sas []*sa.SA) ([]control.SA, error)
	Delete(which control.Ref, nicOnly bool) error
	Update(which control.Ref, high uint32) error // the high half of the SA's sequence numbers
	Flush() (int, error)
	List(after uint64, limit int) control.Page
	Show(name string) (control.SA, error)
	Export() iter.Seq[*sa.SA] // with their present numbers
	Switch(control.Switches) error
	Capabilities() (control.Capabilities, error)
	Counters(name string) ([]control.Counter, error) // about one SA, or all if the name is empty
}

// Config is what the socket shows and does. Several goroutines may call its functions and
// methods at any time.
type Config struct {
	// Documents return what is encoded as JSON, a list that may be long as an iter.Seq[any]. Names are
	// lower-case letters, digits and dashes. encoding/json shows only the length of an sa.Key.
	Documents map[string]func() any
	SAs       SAs
	Events    *event.Log // nil: there are none
	Streams   map[string]Stream
	Log       *slog.Logger // gets what the server lacks; nil: nothing does
}

const (
	maxClients   = 16      // at once; the next one waits until one of them is done
	maxFollowers = 8       // of events, which stay
	maxWatchers  = 4       // of streams, which stay too
	maxBody      = 4 << 10 // bytes of a request
	maxAdd       = 4 << 20 // bytes of one that adds SAs: some ten thousand
	serverPause  = 5 * time.Second
	addPause     = 30 * time.Second
	closingPause = time.Second
)

// Server answers on one socket.
type Server struct {
	config Config
	mux    *http.ServeMux
	index  control.Index
	path   string
	made   os.FileInfo // the socket, to recognise it
	http   http.Server
	ended  chan error
	ending chan struct{} // closed when following events and streams has to end
	once   sync.Once
	err    error // of the first Close
}

var documentName = regexp.MustCompile(`^[a-z0-9-]+$`)

// Open makes the socket at path, with mode 0600, and begins to answer. It replaces a socket
// that a dead program has left; one with a listener, or any other file, is an error. It
// panics if a document's name is not one.
func Open(path string, c Config) (*Server, error) {
	s := &Server{config: c, path: path, ended: make(chan error, 1), ending: make(chan struct{})}
	s.route()
	log := cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	l, err := listen(path)
	if err != nil {
		return nil, err
	}
	if s.made, err = os.Lstat(path); err != nil {
		l.Close()
		os.Remove(path)
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s.http = http.Server{Handler: onlyOwner(s.mux), ConnContext: withPeer, ReadTimeout: serverPause, WriteTimeout: serverPause,
		MaxHeaderBytes: maxBody, ErrorLog: serve.Log(log)}
	s.http.SetKeepAlivesEnabled(false) // nobody holds one of the few connections longer than a request takes
	go func() { s.ended <- s.serve(serve.Limit(peers{l}, maxClients, log)) }()
	return s, nil
}

func (s *Server) serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket %s: %w", s.path, err)
	}
	return nil
}

// Close removes the socket, unless another program's has replaced it, and returns once
// requests under way are answered, or after a second. The error says why the server had
// stopped answering before. A second Close does nothing.
func (s *Server) Close() error {
	s.once.Do(func() { s.err = s.close() })
	return s.err
}

// There reports whether the socket is where it was made, so that somebody new can find it.
// It may be asked only until Close, while the socket is open: only so long is its inode ours.
func (s *Server) There() bool {
	now, err := os.Lstat(s.path)
	return err == nil && os.SameFile(now, s.made)
}

func (s *Server) close() error {
	if s.There() {
		os.Remove(s.path)
	}
	close(s.ending)
	ctx, cancel := context.WithTimeout(context.Background(), closingPause)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	return <-s.ended
}

// route says what answers which path.
func (s *Server) route() {
	s.mux = http.NewServeMux()
	handle := func(pattern string, f func(*http.Request) (any, error), asks []string) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer(w, r, func(r *http.Request) (any, error) {
				if err := serve.Known(r.URL.Query(), asks...); err != nil {
					return nil, refuse(control.BadRequest, "%s: %v", r.URL.Path, err)
				}
				return f(r)
			})
		})
	}
	get := func(name string, f func(*http.Request) (any, error), asks ...string) { handle("GET /"+name, f, asks) }
	post := func(name string, f func(*http.Request) (any, error)) {
		s.index.Actions = append(s.index.Actions, name)
		handle("POST /"+name, f, nil)
	}
	stream := func(name string, one Stream, p places) {
		s.index.Documents = append(s.index.Documents, name)
		s.mux.HandleFunc("GET /"+name, s.stream(name, one, p))
	}
	s.index.Documents = slices.Collect(maps.Keys(s.config.Documents))
	s.index.Actions = []string{}
	get("{$}", func(*http.Request) (any, error) { return s.index, nil })
	for name, document := range s.config.Documents {
		if !documentName.MatchString(name) {
			panic(fmt.Sprintf("control: %q cannot be the name of a document", name))
		}
		get(name, func(*http.Request) (any, error) { return document(), nil })
	}
	s.mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		w.Write(control.OpenAPI)
	})
	s.mux.HandleFunc("/", s.nothing)
	if s.config.SAs != nil {
		get("sas", s.list, "after", "limit")
		get("sas/{name}", s.show)
		get("capabilities", func(*http.Request) (any, error) { return s.config.SAs.Capabilities() })
		get("export", s.export, "keys")
		get("counters", s.counters, "sa")
		s.index.Documents = append(s.index.Documents, "capabilities", "counters", "export", "sas")
		post("add", s.add)
		post("delete", s.delete)
		post("flush", s.flush)
		post("offload", s.offload)
		post("update", s.update)
	}
	if s.config.Events != nil {
		get("events", s.events, "last")
		s.index.Documents = append(s.index.Documents, "events")
		stream("events/stream", Stream{"text/event-stream", s.follow}, places{make(chan struct{}, maxFollowers),
			"follow the events already, and no more may: end one of them, or ask for the last ones now and then"})
	}
	watchers := places{make(chan struct{}, maxWatchers), "capture and trace already, and no more may: end one of them"}
	for name, one := range s.config.Streams {
		stream(name, one, watchers)
	}
	slices.Sort(s.index.Documents)
}

// nothing answers unknown paths and wrong methods.
func (s *Server) nothing(w http.ResponseWriter, r *http.Request) {
	answer(w, r, func(r *http.Request) (any, error) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := s.mux.Handler(other); pattern != "/" {
				w.Header().Set("Allow", method)
				return nil, refuse(control.NotAllowed, "%s takes %s, not %s", r.URL.Path, method, r.Method)
			}
		}
		return nil, refuse(control.Unknown, "there is no %q here; GET / lists what there is", r.URL.Path)
	})
}

func refuse(code control.Code, format string, args ...any) error {
	return &control.Error{Text: fmt.Sprintf(format, args...), Code: code}
}

// statuses are HTTP's for the codes.
var statuses = map[control.Code]int{
	control.Busy: http.StatusServiceUnavailable, control.Full: http.StatusInsufficientStorage, control.Unknown: http.StatusNotFound, control.Exists: http.StatusConflict,
	control.BeyondProfile: http.StatusUnprocessableEntity, control.BadRequest: http.StatusBadRequest,
	control.NotHere: http.StatusNotImplemented, control.Forbidden: http.StatusForbidden,
	control.NotAllowed: http.StatusMethodNotAllowed, control.Failed: http.StatusInternalServerError,
}

// answer answers one request with f's result: a document, nothing, or an error.
func answer(w http.ResponseWriter, r *http.Request, f func(*http.Request) (any, error)) {
	limit := int64(maxBody)
	if r.URL.Path == "/add" {
		limit = maxAdd
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(addPause)) // a socket has deadlines
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	document, err := f(r)
	status := http.StatusOK
	switch {
	case err != nil:
		said := *control.ErrorOf(err)
		said.Text = keys.Redact(said.Text) // where a name or a field is named there may be a key
		document, status = said, statuses[said.Code]
	case document == nil:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch document := document.(type) {
	case iter.Seq[any]:
		long := newLongAnswer(w)
		long.list("", document)
		long.end("")
	case func(*longAnswer):
		document(newLongAnswer(w))
	default:
		w.WriteHeader(status)
		w.Write(append(encoded("", document), '\n'))
	}
}

// encoded is a value as JSON whose lines after the first are indented.
func encoded(indent string, v any) []byte {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent(indent, "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("control: %v", err))
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}
