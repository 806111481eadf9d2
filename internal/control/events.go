package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/tmaxmax/go-sse"

	"tapsec/control"
	"tapsec/internal/event"
)

// defaultEvents is how many of the last events are given unless the request says.
const defaultEvents = 100

// events answers with the last events.
func (s *Server) events(r *http.Request) (any, error) {
	if err := onlyAsks(r, "last"); err != nil {
		return nil, err
	}
	last, err := queryNumber(r, "last", defaultEvents, event.Kept)
	if err != nil {
		return nil, refuse(control.BadRequest, "/events: %v", err)
	}
	all, _ := s.config.Events.After(s.config.Events.Place(last))
	if all == nil {
		all = []control.Event{}
	}
	return control.Events{Events: all}, nil
}

// stream sends the last events and then new ones as server-sent events, until the
// listener leaves, has as many as it asked for, or the server ends.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	last, err1 := queryNumber(r, "last", 0, event.Kept)
	count, err2 := queryNumber(r, "count", 0, 1<<32)
	err := errors.Join(err1, err2)
	if unknown := onlyAsks(r, "last", "count"); unknown != nil {
		err = unknown
	} else if err != nil {
		err = refuse(control.BadRequest, "/events/stream: %v", first(err))
	} else {
		select {
		case s.follow <- struct{}{}:
			defer func() { <-s.follow }()
		default:
			err = refuse(control.Busy, "%d follow the events already, and no more may: end one of them, or ask for the last ones now and then", maxFollowers)
		}
	}
	if err != nil {
		answer(w, r, func(*http.Request) (any, error) { return nil, err })
		return
	}
	unbounded(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	s.send(w, r, last, count)
}

// send sends events, earlier ones first; count 0 is no bound.
func (s *Server) send(w http.ResponseWriter, r *http.Request, last, count uint64) {
	ctx, cancel := s.listening(r)
	defer cancel()
	place, sent := s.config.Events.Place(last), uint64(0)
	for ended := false; ; {
		events, more := s.config.Events.After(place)
		for _, e := range events {
			if tell(w, &e) != nil {
				return // the listener has left
			}
			place = e.ID
			if sent++; sent == count {
				return
			}
		}
		if ended || http.NewResponseController(w).Flush() != nil {
			return
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
