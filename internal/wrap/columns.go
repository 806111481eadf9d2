package wrap

import (
	"bytes"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// Columns lays out lines whose cells are parted by tabs, as a tabwriter does, and breaks
// the last cell of a line that would end beyond Width. What is written comes out with
// Flush.
type Columns struct {
	out  io.Writer
	text bytes.Buffer
}

// NewColumns makes one that writes to out.
func NewColumns(out io.Writer) *Columns { return &Columns{out: out} }

// Write takes lines, or parts of them.
func (c *Columns) Write(b []byte) (int, error) { return c.text.Write(b) }

// Flush lays out what was written.
func (c *Columns) Flush() error {
	var aligned bytes.Buffer
	var last []string
	w := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for line := range strings.Lines(c.text.String()) {
		line = strings.TrimSuffix(line, "\n")
		cell := strings.LastIndexByte(line, '\t') + 1
		last = append(last, line[cell:])
		io.WriteString(w, line[:cell]+"\n") // to memory, as all before Flush's end
	}
	c.text.Reset()
	w.Flush()
	var text strings.Builder
	for i, begin := range strings.Split(aligned.String(), "\n")[:len(last)] {
		at := utf8.RuneCountInString(begin)
		text.WriteString(strings.TrimRight(begin+Text(last[i], at, Width-at), " ") + "\n")
	}
	_, err := io.WriteString(c.out, text.String())
	return err
}
