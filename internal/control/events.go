package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tmaxmax/go-sse"

	"tapsec/control"
	"tapsec/internal/event"
	"tapsec/internal/serve"
)

// defaultEvents is how many of the last events are given unless the request says.
const defaultEvents = 100

// events answers with the last events.
func (s *Server) events(r *http.Request) (any, error) {
	last, err := serve.Number(r.URL.Query(), "last", defaultEvents, event.Kept)
	if err != nil {
		return nil, refuse(control.BadRequest, "/events: %v", err)
	}
	all, _ := s.config.Events.After(s.config.Events.Place(last))
	if all == nil {
		all = []control.Event{}
	}
	return control.Events{Events: all}, nil
}

// follow sends the last events and then new ones as server-sent events, until the
// listener leaves, has as many as it asked for, or the server ends.
func (s *Server) follow(query url.Values) (Send, error) {
	if err := serve.Known(query, "last", "count"); err != nil {
		return nil, err
	}
	last, err := serve.Number(query, "last", 0, event.Kept)
	if err != nil {
		return nil, err
	}
	count, err := serve.Number(query, "count", 0, 1<<32)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w io.Writer, flush func() error) error {
		return s.send(ctx, w, flush, last, count)
	}, nil
}

// send sends events, earlier ones first; count 0 is no bound.
func (s *Server) send(ctx context.Context, w io.Writer, flush func() error, last, count uint64) error {
	place, sent := s.config.Events.Place(last), uint64(0)
	for ended := false; ; {
		events, more := s.config.Events.After(place)
		for _, e := range events {
			if err := tell(w, &e); err != nil {
				return err
			}
			place = e.ID
			if sent++; sent == count {
				return nil
			}
		}
		if err := flush(); err != nil || ended {
			return err
		}
		select {
		case <-more:
		case <-ctx.Done():
			ended = true
		}
	}
}

func tell(w io.Writer, e *control.Event) error {
	text, err := json.Marshal(e)
	if err != nil {
		panic("control: " + e.Event + ": " + err.Error())
	}
	m := sse.Message{ID: sse.ID(strconv.FormatUint(e.ID, 10)), Type: sse.Type(e.Event)}
	m.AppendData(string(text))
	_, err = m.WriteTo(w)
	return err
}
