package logging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a writer whose reader may stand still.
type pipe struct {
	open chan struct{} // closed: it is read
	mu   sync.Mutex
	text bytes.Buffer
}

func newPipe() *pipe { return &pipe{open: make(chan struct{})} }

func (p *pipe) Write(line []byte) (int, error) {
	<-p.open
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(line)
}

func (p *pipe) lines(t *testing.T) (all []map[string]any) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.Lines(p.text.String()) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, one)
	}
	return all
}

// Where nobody reads, no call waits; once somebody does, what was lost is told by
// reason, and with it what the lost lines would have said was left out.
func TestUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe()
		l := New(p, Options{Format: JSON})
		log := l.Logger()
		const each = 2 * queueLen
		for i := range each {
			log.Warn("bad", "reason", "icv", "n", i)
			log.Warn("old", "reason", "replay", "suppressed", uint64(9))
			log.Info("hello")
		}
		close(p.open)
		synctest.Wait()
		log.Info("last")
		if !l.Close() {
			t.Error("not all was written")
		}
		got := map[string]float64{}
		next, last := 0.0, ""
		for _, line := range p.lines(t) {
			last = line["msg"].(string)
			switch of, _ := line["reason"].(string); of {
			case "icv":
				if n := line["n"].(float64); n < next {
					t.Fatalf("line %v after %v", n, next)
				} else {
					next = n + 1
				}
				got[of]++
			case "replay":
				got[of] += 10
			default:
				if last == "hello" {
					got["info"]++
				}
			}
			if by, ok := line["of"].(map[string]any); ok {
				sum := 0.0
				for of, n := range by {
					got[of] += n.(float64)
					sum += n.(float64)
				}
				if sum != line["lost"] || sum == 0 {
					t.Errorf("%v", line)
				}
			}
		}
		if got["icv"] != each || got["replay"] != 10*each || got["info"] != each || last != "last" {
			t.Errorf("%v and then %q; expected %d of each, replay ten times", got, last, each)
		}
	})
}

// disk is a writer that fails, and writes nothing, while it is full.
type disk struct {
	full atomic.Bool
	bytes.Buffer
}

func (d *disk) Write(line []byte) (int, error) {
	if d.full.Load() {
		return 0, syscall.ENOSPC
	}
	return d.Buffer.Write(line)
}

// What a full disk did not take is told of once it has room (contract, What is logged).
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		d.full.Store(true)
		l := New(d, Options{Format: JSON})
		log := l.Logger()
		for range 3 {
			log.Warn("bad", "reason", "icv", "suppressed", uint64(9))
			log.Info("hello")
			time.Sleep(lossPause)
		}
		d.full.Store(false)
		log.Info("last")
		if !l.Close() {
			t.Error("not all was written")
		}
		if text := d.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, `"last"`) || !strings.Contains(text, `"lost":33,"of":{"icv":30,"info":3}`) {
			t.Error(text)
		}
	})
}

// A pipe that somebody else has made one not to be waited for gets each line whole.
func TestPipeNotWaitedFor(t *testing.T) {
	var ends [2]int
	if err := errors.Join(syscall.Pipe2(ends[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK), syscall.SetNonblock(ends[1], false)); err != nil {
		t.Fatal(err)
	}
	in, out := os.NewFile(uintptr(ends[0]), "in"), os.NewFile(uintptr(ends[1]), "out")
	defer in.Close()
	if err := in.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	l := New(out, Options{Format: JSON})
	if err := syscall.SetNonblock(ends[1], true); err != nil {
		t.Fatal(err)
	}
	const lines = 100 // more than a pipe holds
	for n := range lines {
		l.Logger().Info("x", "n", n, "text", strings.Repeat("x", 3000))
	}
	reader := json.NewDecoder(in)
	for n := range lines {
		var line struct{ N int }
		if err := reader.Decode(&line); err != nil || line.N != n {
			t.Fatalf("line %d is %d, %v", n, line.N, err)
		}
	}
	if !l.Close() {
		t.Error("not all was written")
	}
	out.Close()
}

// A reader who never comes holds Close up for a moment, and nothing afterwards.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe()
		l := New(p, Options{})
		log := l.Logger()
		log.Info("never read")
		began := time.Now()
		if l.Close() || time.Since(began) != flushPause {
			t.Errorf("after %v", time.Since(began))
		}
		for range 2 * queueLen {
			log.Info("too late")
		}
		close(p.open)
		if !l.Close() {
			t.Error("read at last, and not all was written")
		}
	})
}

// A line has the time of its record, once, and the attributes of its logger.
func TestLines(t *testing.T) {
	for name, c := range map[string]struct {
		Options
		want string
	}{
		"text":  {Options{}, "time=2001-02-03T04:05:06.000Z level=WARN msg=a who=x g.n=1\n"},
		"JSON":  {Options{Format: JSON}, `{"time":"2001-02-03T04:05:06Z","level":"WARN","msg":"a","who":"x","g":{"n":1}}` + "\n"},
		"level": {Options{Level: Level(slog.LevelError)}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			l := New(&out, c.Options)
			h := l.Logger().With("who", "x").WithGroup("g").Handler()
			r := slog.NewRecord(time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC), slog.LevelWarn, "a", 0)
			r.Add("n", 1)
			if h.Enabled(context.Background(), r.Level) {
				h.Handle(context.Background(), r)
			}
			if l.Close(); out.String() != c.want {
				t.Errorf("%s: %s, want %s", name, out.String(), c.want)
			}
		})
	}
}

// Many at once; run with -race.
func TestManyLoggers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(&out, Options{})
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 1000 {
					l.Logger().Info("x", "reason", fmt.Sprint("r", i))
				}
			})
		}
		all.Wait()
		if !l.Close() {
			t.Fatal("not all was written")
		}
		written, lost := 0, 0
		for line := range strings.Lines(out.String()) {
			if _, after, ok := strings.Cut(line, " lost="); ok {
				n := 0
				fmt.Sscan(after, &n)
				lost += n
			} else {
				written++
			}
		}
		if written+lost != 8000 {
			t.Errorf("%d lines and %d lost of 8000", written, lost)
		}
	})
}

func TestNames(t *testing.T) {
	var f Format
	var l Level
	for _, err := range []error{f.UnmarshalText([]byte("json")), l.UnmarshalText([]byte("error"))} {
		if err != nil {
			t.Error(err)
		}
	}
	if f != JSON || slog.Level(l) != slog.LevelError {
		t.Error(f, l)
	}
	for want, err := range map[string]error{
		`expected text or json, found "xml"`:                  f.UnmarshalText([]byte("xml")),
		`expected debug, info, warn or error, found "chatty"`: l.UnmarshalText([]byte("chatty")),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
