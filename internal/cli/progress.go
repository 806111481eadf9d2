package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// console is standard error: log lines, and on a terminal one line beneath them
// that is written again and again. Its zero value with a Writer works; it may
// be used by several goroutines.
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
}

func (c *console) clear() {
	if c.shown {
		fmt.Fprint(c.Writer, clearLine)
		c.shown = false
	}
}

// ticks gives the times at which to show progress: never, off a terminal.
func (c *console) ticks() (<-chan time.Time, func()) {
	if !c.terminal {
		return nil, func() {}
	}
	t := time.NewTicker(time.Second)
	return t.C, t.Stop
}
