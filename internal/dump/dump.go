// Package dump writes a running capture to files, as dumpcap does: to one, to a series of which
// the latest stay, or to a pipe. A file ends after a whole frame, whatever ends the capture,
// except the death of this process.
package dump

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tapsec/capture"
	"tapsec/internal/files"
)

// Options say where a capture goes.
type Options struct {
	Path string    // of the file; - is Out
	Out  io.Writer // standard output
	Size Size      // bytes after which another file begins; 0: there is only one
	Keep int       // how many of the latest files stay; 0: all
}

// Sum is what was written, and what the capture says was lost.
type Sum struct {
	Frames, Lost uint64
}

// flushed is how many bytes are written at once while there are more.
const flushed = 1 << 16

// dump is a running capture.
type dump struct {
	options Options
	sum     Sum
	sides   int    // interfaces, one packet of a frame on each
	head    []byte // what each file begins with
	frame   []byte // so far

	out     io.Writer // nil before the first file, and between two
	file    *os.File  // nil: out is a pipe
	done    int64     // bytes of the file, all of whole frames
	waiting []byte    // to be written
	number  int       // of the file
	names   []string  // of the files that stay
}

// Copy writes a stream from the control socket until it ends. The error says why it cannot
// continue; what was read until then is written.
func Copy(in io.Reader, o Options) (Sum, error) {
	d := dump{options: o}
	err := d.begin()
	if err == nil {
		err = d.copy(capture.NewBlocks(in))
	}
	return d.sum, errors.Join(err, d.close())
}

func (d *dump) copy(in *capture.Blocks) error {
	for {
		b, err := in.Next()
		if err == io.EOF {
			return d.flush()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("the capture ended before its time: %w", err), d.flush())
		}
		if err := d.block(b); err != nil {
			return err
		}
		if !in.Waiting() || len(d.waiting) >= flushed {
			if err := d.flush(); err != nil {
				return err
			}
		}
	}
}

// block takes one block. A frame's packets are kept until all of them have come.
func (d *dump) block(b capture.Block) error {
	if b.Heads() {
		if d.sides++; len(d.head) == 0 {
			d.sides = 0 // the section block is no interface
		}
		d.head = append(d.head, b...)
		d.waiting = append(d.waiting, b...)
		return nil
	}
	if side, ok := b.Frame(); ok {
		if d.frame = append(d.frame, b...); side < d.sides-1 {
			return nil
		}
		err := d.put(d.frame)
		d.frame = d.frame[:0]
		d.sum.Frames++
		return err
	}
	if _, c, ok := b.Counts(); ok {
		d.sum.Lost = c.Lost
	}
	d.waiting = append(d.waiting, b...) // counts alone are no reason for another file
	return nil
}

// put adds a frame, to the next file if this one is full.
func (d *dump) put(b []byte) error {
	now := d.done + int64(len(d.waiting))
	if d.options.Size > 0 && now > int64(len(d.head)) && now+int64(len(b)) > int64(d.options.Size) {
		if err := d.flush(); err != nil {
			return err
		}
		if err := errors.Join(d.close(), d.begin()); err != nil {
			return err
		}
		d.waiting = append(d.waiting, d.head...)
	}
	d.waiting = append(d.waiting, b...)
	return nil
}

// begin opens the next file.
func (d *dump) begin() error {
	if d.options.Path == "-" {
		d.out = d.options.Out
		return nil
	}
	path := d.options.Path
	if d.options.Size > 0 {
		d.number++
		path = Name(path, d.number, time.Now())
	}
	file, err := (files.Inputs{}).Create("-w", path, 0o600) // only the owner may read opened packets
	if err != nil {
		return err
	}
	d.out, d.done = file, 0
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		d.file = file
	}
	if d.names = append(d.names, path); d.options.Keep > 0 && len(d.names) > d.options.Keep {
		if err = os.Remove(d.names[0]); errors.Is(err, fs.ErrNotExist) {
			err = nil // somebody else has taken it away
		}
		d.names = d.names[1:]
	}
	return err
}

// Name is the name of a file in a series, as dumpcap has it: with its number and the time it
// was begun before the extension.
func Name(path string, number int, begun time.Time) string {
	ext := filepath.Ext(path)
	return fmt.Sprintf("%s_%05d_%s%s", strings.TrimSuffix(path, ext), number, begun.Format("20060102150405"), ext)
}

// flush writes what waits. What a full disk does not take is left out, whole frames at a time.
func (d *dump) flush() error {
	if len(d.waiting) == 0 || d.out == nil {
		return nil
	}
	_, err := d.out.Write(d.waiting)
	if err == nil {
		d.done += int64(len(d.waiting))
		d.waiting = d.waiting[:0]
		return nil
	}
	d.waiting = nil
	if d.file != nil {
		err = errors.Join(err, d.file.Truncate(d.done))
	}
	if errors.Is(err, syscall.EPIPE) {
		err = fmt.Errorf("-w %s: its reader left after at most %d frames", d.options.Path, d.sum.Frames)
	}
	return err
}

// close closes the file.
func (d *dump) close() error {
	out := d.out
	d.out, d.file = nil, nil
	if f, ok := out.(*os.File); ok && d.options.Path != "-" {
		return f.Close()
	}
	return nil
}
