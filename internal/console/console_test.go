package console

import (
	"bytes"
	"testing"
)

// TestConsole: a log line takes the progress line's place; off a terminal there
// is none.
func TestConsole(t *testing.T) {
	var out bytes.Buffer
	c := New(&out)
	c.progress("10 frames")
	c.Write([]byte("log\n"))
	c.end()
	if got := out.String(); got != "log\n" {
		t.Errorf("off a terminal: %q", got)
	}
	out.Reset()
	c.terminal = true
	c.progress("10 frames")
	c.progress("20 frames")
	c.Write([]byte("log\n"))
	c.Write([]byte("more\n"))
	c.progress("30 frames")
	c.end()
	c.end()
	want := clearLine + "10 frames" + clearLine + "20 frames" + clearLine + "log\nmore\n" + clearLine + "30 frames" + clearLine
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// No progress line comes behind the end, whatever came first.
func TestEnd(t *testing.T) {
	for range 20000 {
		var out bytes.Buffer
		c := &Console{Writer: &out, terminal: true}
		shown := make(chan struct{})
		go func() {
			c.progress("10 frames")
			close(shown)
		}()
		c.end()
		<-shown
		if got := out.String(); got != "" && got != clearLine+"10 frames"+clearLine {
			t.Fatalf("the terminal is left with %q", got)
		}
	}
}
