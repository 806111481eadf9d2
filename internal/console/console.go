// Package console shows the progress of a command beneath its log, and keeps a slow reader
// from holding up its end.
package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/term"

	"tapsec/internal/files"
	"tapsec/sa"
)

// Console is standard error: log lines and, on a terminal, one line of progress beneath
// them. Several goroutines may use it. Each waits while nobody reads, as on a terminal
// stopped with Ctrl-S.
type Console struct {
	io.Writer
	terminal bool

	mu    sync.Mutex
	shown bool
}

const clearLine = "\r\x1b[K"

// New makes a Console of standard error.
func New(w io.Writer) *Console { return &Console{Writer: w, terminal: IsTerminal(w)} }

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	file, ok := files.Of(w)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Colour reports whether output to w is coloured, given the flag --color: auto, always or
// never (https://no-color.org).
func Colour(when string, w io.Writer) (bool, error) {
	switch when {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && IsTerminal(w), nil
	}
	return false, fmt.Errorf("--color: expected auto, always or never, found %s", sa.Quote(when))
}

// Write replaces the progress line by a log line.
func (c *Console) Write(line []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	return c.Writer.Write(line)
}

// progress rewrites the progress line, on a terminal.
func (c *Console) progress(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.terminal {
		fmt.Fprint(c.Writer, clearLine+line)
		c.shown = true
	}
}

// end removes the progress line for good.
func (c *Console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	c.terminal = false
}

func (c *Console) clear() {
	if c.shown {
		fmt.Fprint(c.Writer, clearLine)
		c.shown = false
	}
}

// Show rewrites the progress line each second, in a goroutine of its own, until end is
// called. Without a terminal it does nothing.
func (c *Console) Show(line func() string) (end func()) {
	if !c.terminal {
		return func() {}
	}
	second, ended := time.NewTicker(time.Second), make(chan struct{})
	go func() {
		for {
			select {
			case <-second.C:
				c.progress(line())
			case <-ended:
				return
			}
		}
	}()
	return func() {
		second.Stop()
		close(ended)
		_ = Bounded(func() error { c.end(); return nil })
	}
}

// readPause is how long a program's end waits for the reader of its output.
const readPause = time.Second

var errUnread = errors.New("nobody reads what is written")

// Bounded waits for write, which may never end, for at most a second.
func Bounded(write func() error) error { return Within(readPause, write) }

// Within waits for write, which may never end, for at most a time.
func Within(pause time.Duration, write func() error) error {
	done := make(chan error, 1)
	go func() { done <- write() }()
	select {
	case err := <-done:
		return err
	case <-time.After(pause):
		return errUnread
	}
}

// Interrupts returns a channel that is closed at SIGINT, for a program that then sums up what it
// has. If its input is a pipe, a terminal sends the signal to the program at the other end
// too, whose last output and end of file are still to come: then the first SIGINT is ignored.
// One after that which closes the channel kills, as ReleaseInterrupt has it.
func Interrupts(pipe bool) <-chan struct{} {
	came, done := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(came, os.Interrupt)
	go func() {
		if pipe {
			<-came
		}
		<-came
		close(done)
		ReleaseInterrupt()
	}()
	return done
}

// ReleaseInterrupt lets SIGINT kill, a moment after one that does not: timeout(1) passes on what its
// terminal has sent to the program already.
func ReleaseInterrupt() {
	const moment = 200 * time.Millisecond
	time.Sleep(moment)
	signal.Reset(os.Interrupt)
}
