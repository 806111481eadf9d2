package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/tmaxmax/go-sse"

	"tapsec/keys"
	"tapsec/sa"
)

const (
	clientPause = 2 * time.Second
	addPause    = 30 * time.Second // thousands of SAs take their time
	exportPause = 10 * time.Minute // and millions
	maxPage     = 1000             // SAs
	maxAsking   = 8                // requests under way of one Client; others wait
	maxAnswer   = 64 << 20         // bytes; a document may list a great many SAs
)

// Client asks the program that listens on one socket. Several goroutines may use it, and it
// keeps working after a restart of that program. Every request except an add, a flush and WriteExport
// ends within two seconds; its error is one sentence.
type Client struct {
	path string
	http http.Client
}

// Dial makes a Client and asks once, to see whether anybody answers.
func Dial(path string) (*Client, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	c := &Client{path, http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, MaxConnsPerHost: maxAsking},
	}}
	if err := c.Get("", new(Index)); err != nil {
		return nil, err
	}
	return c, nil
}

// Get decodes a document into v; the name "" is that of the Index.
func (c *Client) Get(name string, v any) error { return c.do(http.MethodGet, name, nil, v) }

// Add puts SAs in force, all or none. As in a configuration, an AH SA may name the ESP SA
// beneath it. The keys go over the socket.
func (c *Client) Add(sas []*sa.SA) ([]SA, error) {
	var body bytes.Buffer
	if err := keys.WriteJSON(&body, sas); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", c.path, err)
	}
	var added Added
	err := c.do(http.MethodPost, "add", body.Bytes(), &added)
	return added.SAs, err
}

// Update tells the NIC the high half of an SA's sequence numbers. The error wraps
// sa.ErrUnknown if the NIC does not hold the SA.
func (c *Client) Update(which Ref, high uint32) error {
	return c.post("update", fields(which, "high", high), nil)
}

// Delete deletes an SA, or only its offloaded copy. The error wraps sa.ErrUnknown if there is
// none.
func (c *Client) Delete(which Ref, nicOnly bool) error {
	if nicOnly {
		return c.post("delete", fields(which, "nic_only", true), nil)
	}
	return c.post("delete", which, nil)
}

// fields returns the fields of a reference, and one more.
func fields(which Ref, name string, value any) map[string]any {
	if which.Name != "" {
		return map[string]any{"name": which.Name, name: value}
	}
	id := which.ID
	return map[string]any{"protocol": id.Protocol, "spi": id.SPI, "dst": id.Dst, "src": id.Src, name: value}
}

// Flush deletes all SAs, and returns how many there were.
func (c *Client) Flush() (int, error) {
	var flushed Flushed
	err := c.post("flush", struct{}{}, &flushed)
	return flushed.SAs, err
}

// Switch enables and disables offload.
func (c *Client) Switch(s Switches) error { return c.post("offload", s, nil) }

// List returns a page of the SAs, oldest first: at most limit of those after a cursor.
func (c *Client) List(after uint64, limit int) (page Page, err error) {
	return page, c.Get(fmt.Sprintf("sas?after=%d&limit=%d", after, limit), &page)
}

// All is an iterator over the list, page by page.
func (c *Client) All() iter.Seq2[SA, error] {
	return func(yield func(SA, error) bool) {
		for after := uint64(0); ; {
			page, err := c.List(after, maxPage)
			if err != nil {
				yield(SA{}, err)
				return
			}
			for _, s := range page.SAs {
				if !yield(s, nil) {
					return
				}
			}
			if after = page.Next; after == 0 {
				return
			}
		}
	}
}

// Missing returns those of sas that are not in force; the identity decides.
func (c *Client) Missing(sas []*sa.SA) (missing []*sa.SA, err error) {
	there := map[sa.ID]bool{}
	for s, err := range c.All() {
		if err != nil {
			return nil, err
		}
		there[s.ID] = true
	}
	return slices.DeleteFunc(slices.Clone(sas), func(s *sa.SA) bool { return there[s.ID()] }), nil
}

// Show returns one SA.
func (c *Client) Show(name string) (s SA, err error) {
	return s, c.Get("sas/"+url.PathEscape(name), &s)
}

// Capabilities returns those in force.
func (c *Client) Capabilities() (caps Capabilities, err error) {
	return caps, c.Get("capabilities", &caps)
}

// Counters returns all counters, or with a name what they say about that SA.
func (c *Client) Counters(name string) ([]Counter, error) {
	var all Counters
	err := c.Get("counters?sa="+url.QueryEscape(name), &all)
	return all.Counters, err
}

// Events returns the last n events, oldest first.
func (c *Client) Events(n int) ([]Event, error) {
	var all Events
	err := c.Get(fmt.Sprintf("events?last=%d", n), &all)
	return all.Events, err
}

// Follow is an iterator over the last n events and then new ones, until ctx ends or the
// program does. A slow listener loses events, and gets an event that says so: events-lost.
func (c *Client) Follow(ctx context.Context, n int) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		answer, err := c.ask(ctx, http.MethodGet, fmt.Sprintf("events/stream?last=%d", n), nil)
		if err != nil {
			if ctx.Err() == nil {
				yield(Event{}, err)
			}
			return
		}
		defer answer.Body.Close()
		for message, err := range sse.Read(answer.Body, nil) {
			var e Event
			if err == nil {
				err = json.Unmarshal([]byte(message.Data), &e)
			}
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				yield(Event{}, fmt.Errorf("control socket %s: the events ended (%w)", c.path, err))
				return
			case !yield(e, nil):
				return
			}
		}
	}
}

// WriteExport writes to w the SAs in force with their present numbers, as a configuration in JSON, with keys only if
// withKeys says so. An error of w is returned as it is.
func (c *Client) WriteExport(w io.Writer, withKeys bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), exportPause)
	defer cancel()
	answer, err := c.ask(ctx, http.MethodGet, fmt.Sprintf("export?keys=%t", withKeys), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	to := &sink{w: w}
	switch _, err = io.Copy(to, answer.Body); {
	case to.err != nil:
		return to.err
	case err != nil:
		return c.unheard(err)
	}
	return nil
}

// sink is a writer that remembers its error.
type sink struct {
	w   io.Writer
	err error
}

// Write writes.
func (s *sink) Write(b []byte) (n int, err error) {
	n, s.err = s.w.Write(b)
	return n, s.err
}

func (c *Client) post(name string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("control socket %s: %w", c.path, err)
	}
	return c.do(http.MethodPost, name, body, answer)
}

func (c *Client) do(method, name string, body []byte, v any) error {
	pause := clientPause
	if name == "add" || name == "flush" {
		pause = addPause
	}
	ctx, cancel := context.WithTimeout(context.Background(), pause)
	defer cancel()
	answer, err := c.ask(ctx, method, name, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return c.unheard(err)
	case len(text) > maxAnswer:
		return fmt.Errorf("control socket %s: the answer to /%s is longer than %d MiB: ask for one SA, or a page of them", c.path, name, maxAnswer>>20)
	case v == nil:
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("control socket %s: the answer to /%s is not what this program expects (%w): is it of the same version?", c.path, name, err)
	}
	return nil
}

// ask sends a request, and turns an answer that is an error into one.
func (c *Client) ask(ctx context.Context, method, name string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://tapsec/"+name, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", c.path, err)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.unheard(err)
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, c.unheard(err)
	}
	said := Error{Code: Failed}
	if json.Unmarshal(text, &said) != nil || said.Text == "" {
		said.Text = answer.Status
	}
	return nil, fmt.Errorf("control socket %s: %w", c.path, &said)
}

// errLate is for an answer that does not come, or does not end.
var errLate = fmt.Errorf("no answer in time (%w): is the program stopped?", os.ErrDeadlineExceeded)

// unheard says why there was no answer, and what to do.
func (c *Client) unheard(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("control socket %s does not exist: is tapsec running, with its control socket there? (%w)", c.path, fs.ErrNotExist)
	case errors.Is(err, syscall.ECONNREFUSED) && !isSocket(c.path):
		return fmt.Errorf("control socket %s is no socket: give the path that the running program has after --control (%w)", c.path, syscall.ENOTSOCK)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("control socket %s: nobody listens any more (%w): restart the program that made it", c.path, syscall.ECONNREFUSED)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("control socket %s is for the user who started tapsec, and root (%w)", c.path, fs.ErrPermission)
	case os.IsTimeout(err), errors.Is(err, errLate):
		return fmt.Errorf("control socket %s: %w", c.path, errLate)
	}
	return fmt.Errorf("control socket %s: %w", c.path, err)
}

// isSocket reports whether a path leads to a socket, or to nothing that can be looked at.
func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err != nil || info.Mode().Type() == fs.ModeSocket
}
