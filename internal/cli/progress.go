package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// console is standard error: log lines, and on a terminal one line beneath them
// that is written again and again. Its zero value with a Writer works; it may
// be used by several goroutines. Each of them waits for as long as nobody reads,
// as on a terminal that was stopped with Ctrl-S.
type console struct {
	io.Writer
	terminal bool

	mu    sync.Mutex
	shown bool
}

const clearLine = "\r\x1b[K"

// newConsole finds out whether w is a terminal.
func newConsole(w io.Writer) *console {
	f, ok := w.(*os.File)
	return &console{Writer: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// Write takes the progress line away and writes a log line in its place.
func (c *console) Write(line []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	return c.Writer.Write(line)
}

// progress rewrites the progress line, on a terminal.
func (c *console) progress(line string) {
	if !c.terminal {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprint(c.Writer, clearLine+line)
	c.shown = true
}

// end takes the progress line away for good.
func (c *console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	c.terminal = false
}

func (c *console) clear() {
	if c.shown {
		fmt.Fprint(c.Writer, clearLine)
		c.shown = false
	}
}

// show rewrites the progress line each second, in a goroutine of its own, until
// end is called. Off a terminal it does nothing.
func (c *console) show(line func() string) (end func()) {
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
		_ = bounded(func() error { c.end(); return nil })
	}
}

// readPause is how long the end of a program waits for whoever reads what it says.
const readPause = time.Second

var errUnread = errors.New("nobody reads what is written")

// bounded waits for write, which may never end, for a second.
func bounded(write func() error) error {
	done := make(chan error, 1)
	go func() { done <- write() }()
	select {
	case err := <-done:
		return err
	case <-time.After(readPause):
		return errUnread
	}
}
