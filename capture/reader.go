// Package capture reads frames from pcap and pcapng files, writes them to
// pcapng with a verdict as each frame's comment, and makes the status trailer
// a gopacket layer.
//
// It opens no interfaces and keeps no frames: a Reader owns one buffer, which
// its next frame overwrites. The files are read here and not by gopacket's
// pcapgo, which has 8 bits for a link type (SLL2 is 276), divides by zero on
// some timestamp resolutions, allocates whatever a length field says, and
// cannot tell a file that was cut short from one that ends.
package capture

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"tapsec/status"
)

// MaxFrame is the longest captured frame that a Reader accepts, in bytes. It
// is libpcap's largest snap length.
const MaxFrame = 262144

// Info is what a capture says about a frame.
type Info struct {
	Number    int       // of the frame in the capture, from 1
	Time      time.Time // zero where the capture has none
	Interface string    // name of the capture's interface, where it has one
	Missing   int       // bytes at the frame's end that the snap length cut off
}

// record is where a frame was found: its link type, and how many bytes follow
// that belong to it and how many behind those are to be skipped.
type record struct {
	Info
	link     uint32
	captured uint32
	rest     int64
}

// format is one of the file formats: header reads up to a frame's first byte.
// Its error is io.EOF only where the capture ends between two records.
type format interface {
	header(in *bufio.Reader) (record, error)
}

// Reader reads a capture. It is not safe for concurrent use.
type Reader struct {
	in     *bufio.Reader
	format format
	frames int
	buf    []byte
}

// NewReader starts to read a capture: pcap with microseconds or nanoseconds,
// or pcapng, in either byte order, plain or compressed with gzip.
func NewReader(r io.Reader) (*Reader, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := in.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		plain, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("capture: reading gzip: %w", err)
		}
		in = bufio.NewReaderSize(plain, 1<<16)
	}
	magic, err := in.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("capture: no pcap or pcapng header: %w", unexpected(err))
	}
	f, err := formatOf(binary.LittleEndian.Uint32(magic), in)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	return &Reader{in: in, format: f}, nil
}

func formatOf(magic uint32, in *bufio.Reader) (format, error) {
	switch magic {
	case blockSection:
		return &pcapng{}, nil
	case 0xa1b2c3d4:
		return newPcap(in, binary.LittleEndian, 1000)
	case 0xa1b23c4d:
		return newPcap(in, binary.LittleEndian, 1)
	case 0xd4c3b2a1:
		return newPcap(in, binary.BigEndian, 1000)
	case 0x4d3cb2a1:
		return newPcap(in, binary.BigEndian, 1)
	}
	return nil, fmt.Errorf("expected a pcap or pcapng file, found one that starts with %#08x", magic)
}

// Next reads a frame. The frame lies in the Reader's buffer until the next
// call, with spare capacity for status.Tailroom behind it. Frames of raw IP,
// BSD loopback and Linux "any" captures get an Ethernet header of zero
// addresses and the EtherType of what they carry; captures of other link types
// are an error. The error is io.EOF at the end of the capture; every other one
// names the frame, and wraps io.ErrUnexpectedEOF where the file ends inside it.
func (r *Reader) Next() ([]byte, Info, error) {
	rec, err := r.format.header(r.in)
	if err == io.EOF {
		return nil, Info{}, io.EOF
	}
	rec.Number = r.frames + 1
	var frame []byte
	if err == nil {
		frame, err = r.read(rec)
	}
	if err != nil {
		return nil, rec.Info, fmt.Errorf("capture: frame %d: %w", rec.Number, err)
	}
	r.frames++
	return frame, rec.Info, nil
}

func (r *Reader) read(rec record) ([]byte, error) {
	if rec.captured > MaxFrame {
		return nil, fmt.Errorf("expected at most %d captured bytes, found %d", MaxFrame, rec.captured)
	}
	end := etherLen + int(rec.captured)
	r.buf = slices.Grow(r.buf[:0], end+status.Tailroom)[:end]
	if _, err := io.ReadFull(r.in, r.buf[etherLen:]); err != nil {
		return nil, unexpected(err)
	}
	if err := skip(r.in, rec.rest); err != nil {
		return nil, err
	}
	return ethernet(rec.link, r.buf)
}

// skip reads over n bytes.
func skip(in *bufio.Reader, n int64) error {
	for n > 0 {
		step := int(min(n, 1<<30))
		if _, err := in.Discard(step); err != nil {
			return unexpected(err)
		}
		n -= int64(step)
	}
	return nil
}

// unexpected makes of an end of file one that should not have come.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// pcap is the older format: a header of 24 bytes, then records of 16 bytes and
// the frame.
type pcap struct {
	order binary.ByteOrder
	unit  int64 // nanoseconds in the unit of a timestamp's fraction
	link  uint32
}

func newPcap(in *bufio.Reader, order binary.ByteOrder, unit int64) (*pcap, error) {
	var h [24]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return nil, fmt.Errorf("the file ends inside its pcap header: %w", unexpected(err))
	}
	if major := order.Uint16(h[4:]); major != 2 {
		return nil, fmt.Errorf("expected pcap version 2, found %d", major)
	}
	// The upper half of the word says whether frames have a checksum behind
	// them; bytes behind the IP length are no part of a packet anyway.
	return &pcap{order, unit, order.Uint32(h[20:]) & 0xffff}, nil
}

func (p *pcap) header(in *bufio.Reader) (record, error) {
	var h [16]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return record{}, err
	}
	captured, length := p.order.Uint32(h[8:]), p.order.Uint32(h[12:])
	at := time.Unix(int64(p.order.Uint32(h[:])), int64(p.order.Uint32(h[4:]))*p.unit).UTC()
	return record{Info{Time: at, Missing: missing(captured, length)}, p.link, captured, 0}, nil
}

// missing is how much shorter than the frame its capture is.
func missing(captured, length uint32) int { return int(max(captured, length) - captured) }
