package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"tapsec/control"
)

// Stream is an answer that goes on for as long as its listener likes.
type Stream struct {
	Type string // of media
	// Begin reads the query.
	Begin func(query url.Values) (Send, error)
}

// Send sends a stream to w, and calls flush where it is to be read at once, until ctx ends,
// which is when the listener has sent all that it will, has left, or the server ends. It may
// send what is left then. ctx knows the listener (PeerOf). The error is w's.
type Send func(ctx context.Context, w io.Writer, flush func() error) error

// places are for those who follow streams of a kind, one value for each of them.
type places struct {
	taken chan struct{}
	full  string // what one too many is told
}

// stream answers a request for one.
func (s *Server) stream(name string, one Stream, p places) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		send, err := one.Begin(r.URL.Query())
		if err != nil {
			if said := new(control.Error); !errors.As(err, &said) {
				err = refuse(control.BadRequest, "/%s: %v", name, err)
			}
		} else {
			select {
			case p.taken <- struct{}{}:
				defer func() { <-p.taken }()
			default:
				err = refuse(control.Busy, "%d %s", cap(p.taken), p.full)
			}
		}
		if err != nil {
			answer(w, r, func(*http.Request) (any, error) { return nil, err })
			return
		}
		unbounded(w)
		w.Header().Set("Content-Type", one.Type)
		w.WriteHeader(http.StatusOK)
		ctx, cancel := s.listening(r)
		defer cancel()
		_ = send(ctx, w, http.NewResponseController(w).Flush) // an error: the listener has left
	}
}

// listening returns a context that ends when the listener has sent all that it will, has left, or the server
// ends.
func (s *Server) listening(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	go func() {
		defer cancel()
		look := time.NewTicker(time.Second)
		defer look.Stop()
		for {
			select {
			case <-s.ending:
				return
			case <-ctx.Done():
				return
			case <-look.C:
				if PeerOf(ctx).hungUp() {
					return
				}
			}
		}
	}()
	return ctx, cancel
}

// unbounded takes a connection's deadlines away: a listener that does not read waits alone.
func unbounded(w http.ResponseWriter) {
	connection := http.NewResponseController(w)
	_ = connection.SetReadDeadline(time.Time{}) // a socket has deadlines
	_ = connection.SetWriteDeadline(time.Time{})
}
