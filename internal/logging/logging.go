// Package logging keeps a program's log from stopping the program: logging puts a line into a
// bounded queue, and one goroutine writes. If nobody reads the log, or too slowly, the queue
// fills up and lines are lost, as are those that cannot be written; the next line that gets
// through says how many, by reason.
package logging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say which lines are written, and how. The zero value is text, from level info on.
type Options struct {
	Format Format
	Level  Level
}

const (
	queueLen   = 4096            // lines
	flushPause = time.Second / 2 // how long Close waits
	lossPause  = time.Second     // between two lines about losses, while the queue is never empty
	fullPause  = 5 * time.Millisecond
)

// Log is the queue and its writer.
type Log struct {
	root  slog.Handler
	lines chan line
	close func()
	ends  chan struct{} // closed to flush
	ended chan struct{}

	mu   sync.Mutex
	lost map[string]uint64 // not reported yet, by reason or else by level

	said time.Time // when losses were last reported
}

// line is a record, and a handler with the attributes of its logger.
type line struct {
	to slog.Handler
	slog.Record
}

// New begins to write to w, which belongs to the Log until Close returns true.
func New(w io.Writer, o Options) *Log {
	l := &Log{lines: make(chan line, queueLen), ends: make(chan struct{}), ended: make(chan struct{}), lost: map[string]uint64{}}
	l.close = sync.OnceFunc(func() { close(l.ends) })
	l.root = o.handler(waiting{w})
	go l.write()
	return l
}

// Logger returns a logger whose calls never wait for the writer.
func (l *Log) Logger() *slog.Logger { return slog.New(handler{l.root, l}) }

// Close writes what is in the queue, for half a second at most, and reports whether
// all of it was written. What is logged afterwards is lost.
func (l *Log) Close() bool {
	l.close()
	select {
	case <-l.ended:
		return true
	case <-time.After(flushPause):
		return false
	}
}

func (l *Log) write() {
	defer close(l.ended)
	for {
		select {
		case next := <-l.lines:
			l.one(next)
			continue
		default:
		}
		l.tellLoss()
		select {
		case next := <-l.lines:
			l.one(next)
		case <-l.ends:
			if len(l.lines) == 0 {
				return
			}
		}
	}
}

// one writes a line, or counts it: a full disk may have room again.
func (l *Log) one(next line) {
	if next.to.Handle(context.Background(), next.Record) != nil {
		l.lose(&next.Record)
	}
	if time.Since(l.said) >= lossPause {
		l.tellLoss()
	}
}

// put queues a line, or counts it.
func (l *Log) put(next line) {
	select {
	case l.lines <- next:
	default:
		l.lose(&next.Record)
	}
}

// lose counts a line by its reason, with the suppressed events that it would have reported.
func (l *Log) lose(r *slog.Record) {
	of, n := strings.ToLower(r.Level.String()), uint64(1)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "reason":
			of = a.Value.String()
		case "suppressed":
			if a.Value.Kind() == slog.KindUint64 {
				n += a.Value.Uint64()
			}
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost[of] += n
}

// tellLoss writes what was lost so far.
func (l *Log) tellLoss() {
	l.mu.Lock()
	lost := maps.Clone(l.lost)
	clear(l.lost)
	l.mu.Unlock()
	if len(lost) == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "lines of the log are lost, since they are not read as fast as they come", 0)
	var all uint64
	var by []any
	for _, of := range slices.Sorted(maps.Keys(lost)) {
		all += lost[of]
		by = append(by, slog.Uint64(of, lost[of]))
	}
	r.AddAttrs(slog.Uint64("lost", all), slog.Group("of", by...))
	l.said = time.Now()
	if l.root.Handle(context.Background(), r) == nil {
		return
	}
	l.mu.Lock() // the next line says so
	defer l.mu.Unlock()
	for of, n := range lost {
		l.lost[of] += n
	}
}

// waiting writes all of a line to a pipe that is not to be waited for: whoever shares it may have made it so.
type waiting struct{ io.Writer }

func (w waiting) Write(line []byte) (written int, err error) {
	for {
		n, err := w.Writer.Write(line[written:])
		if written += n; !errors.Is(err, syscall.EAGAIN) {
			return written, err
		}
		time.Sleep(fullPause)
	}
}

// handler is a logger's end of the queue.
type handler struct {
	to  slog.Handler
	log *Log
}

func (h handler) Enabled(ctx context.Context, level slog.Level) bool { return h.to.Enabled(ctx, level) }

func (h handler) Handle(_ context.Context, r slog.Record) error {
	h.log.put(line{h.to, r.Clone()})
	return nil
}

func (h handler) WithAttrs(a []slog.Attr) slog.Handler { return handler{h.to.WithAttrs(a), h.log} }
func (h handler) WithGroup(name string) slog.Handler   { return handler{h.to.WithGroup(name), h.log} }

func (o Options) handler(w io.Writer) slog.Handler {
	how := &slog.HandlerOptions{Level: slog.Level(o.Level)}
	if o.Format == JSON {
		return slog.NewJSONHandler(w, how)
	}
	return slog.NewTextHandler(w, how)
}

// Format is how a line is written.
type Format uint8

// The formats.
const (
	Text Format = iota // key=value
	JSON               // an object to a line
)

// MarshalText gives the format's name.
func (f Format) MarshalText() ([]byte, error) { return []byte([...]string{"text", "json"}[f]), nil }

// UnmarshalText takes the format's name.
func (f *Format) UnmarshalText(text []byte) error {
	switch string(text) {
	case "text":
		*f = Text
	case "json":
		*f = JSON
	default:
		return fmt.Errorf("expected text or json, found %q", text)
	}
	return nil
}

// Level is the least level of which lines are written.
type Level slog.Level

// MarshalText gives the level's name.
func (l Level) MarshalText() ([]byte, error) {
	return []byte(strings.ToLower(slog.Level(l).String())), nil
}

// UnmarshalText takes the level's name.
func (l *Level) UnmarshalText(text []byte) error {
	if (*slog.Level)(l).UnmarshalText(text) != nil {
		return fmt.Errorf("expected debug, info, warn or error, found %q", text)
	}
	return nil
}
