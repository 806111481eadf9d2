package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// Frames says which of a NIC's frames are wanted. The zero Frames are all.
type Frames struct {
	Only     []string // kinds: good, failed, left-alone, replayed, late
	SAs      []string // names
	SPIs     []string
	Hosts    []string // addresses
	Count    uint64   // frames after which it ends; 0: never
	Snap     int      // at most this many bytes of each frame; 0: all. Not for a trace
	NoOpened bool     // without what was opened in them. Not for a trace
}

func (f *Frames) query() string {
	q := url.Values{"only": f.Only, "sa": f.SAs, "spi": f.SPIs, "host": f.Hosts}
	if f.Count > 0 {
		q.Set("count", strconv.FormatUint(f.Count, 10))
	}
	if f.Snap > 0 {
		q.Set("snaplen", strconv.Itoa(f.Snap))
	}
	if f.NoOpened {
		q.Set("headers", "true")
	}
	return q.Encode()
}

// maxLine is what a line of a trace may have, in bytes: more than all that is said of any frame.
const maxLine = 4 << 20

// leaving is how long the rest of a stream may take after its context has ended.
const leaving = 10 * time.Second

// Capture takes frames from the NIC: a stream of pcapng, which begins with the frames that come
// now. When ctx ends the NIC sends what it has taken until then, and the stream ends with
// io.EOF, as it does when the NIC ends. A killed program leaves io.ErrUnexpectedEOF. A slow
// reader loses frames, which the stream counts.
func (c *Client) Capture(ctx context.Context, f Frames) (io.ReadCloser, error) {
	return c.stream(ctx, "capture?"+f.query())
}

// Trace explains frames while the NIC receives them: an object for each (docs/json.md). It ends
// as Capture does.
func (c *Client) Trace(ctx context.Context, f Frames) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		in, err := c.stream(ctx, "trace?"+f.query())
		if err != nil {
			yield(nil, err)
			return
		}
		defer in.Close()
		for lines := bufio.NewReaderSize(in, maxLine); ; {
			line, err := lines.ReadSlice('\n')
			switch {
			case err == io.EOF && len(line) == 0:
				return
			case err != nil:
				yield(nil, fmt.Errorf("control socket %s: the trace ended (%w)", c.path, err))
				return
			case !yield(bytes.Clone(line), nil):
				return
			}
		}
	}
}

// stream asks for a stream. The end of ctx ends the request, not the answer.
func (c *Client) stream(ctx context.Context, name string) (io.ReadCloser, error) {
	var conn atomic.Pointer[net.UnixConn]
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		made, err := new(net.Dialer).DialContext(ctx, "unix", c.path)
		if err == nil {
			conn.Store(made.(*net.UnixConn))
		}
		return made, err
	}
	one := Client{c.path, http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
	asking, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	late := func() { cancel(errLate) }
	begun := time.AfterFunc(clientPause, late)
	answer, err := one.ask(asking, http.MethodGet, name, nil)
	if !begun.Stop() && err == nil {
		answer.Body.Close()
		err = c.unheard(errLate)
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		if conn.Load().CloseWrite() != nil {
			cancel(nil)
		}
		time.AfterFunc(leaving, late)
	})
	return &streaming{answer.Body, func() { stop(); cancel(nil) }}, nil
}

// streaming is an answer that is a stream.
type streaming struct {
	io.ReadCloser
	end func()
}

// Close ends the stream, whatever is left of it.
func (s *streaming) Close() error {
	s.end()
	if err := s.ReadCloser.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
