package live

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"math"
	"time"

	"tapsec/capture"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Numbers of the interfaces in a capture.
const (
	wireSide = iota
	hostSide
)

// capturing writes a capture.
type capturing struct {
	*viewing
	out     *bufio.Writer
	file    *capture.Writer
	left    []byte         // scratch: a frame with its trailer
	counted capture.Counts // written last, at a time in ns
	at      int64
}

// Capture makes a capture in pcapng of what a request asks for. A frame is two packets: on the
// wire's interface as it came, and on the host's as it is delivered. Both have the comment
// that replay -o writes, and the same packet number: that of the frame on its queue, with the
// queue in the upper 16 bits. Counts follow at least once a second while frames come, and at
// the end. The error names an SA that does not exist.
func (n *NIC) Capture(r Request) (View, error) {
	v, err := n.view(r)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w io.Writer, flush func() error) error {
		c := capturing{viewing: v, out: bufio.NewWriterSize(w, 1<<16)}
		if err := c.begin(); err != nil {
			return err
		}
		quiet := func() error {
			if err := c.count(time.Now().UnixNano()); err != nil {
				return err
			}
			if err := c.out.Flush(); err != nil {
				return err
			}
			return flush()
		}
		if err := c.run(ctx, c.both, quiet); err != nil {
			return err
		}
		c.at = 0 // the last counts are due
		return quiet()
	}, nil
}

func (c *capturing) begin() (err error) {
	if c.file, err = capture.NewWriter(c.out); err != nil {
		return err
	}
	if _, err = c.file.Interface(c.nic.Wire, "frames as they came"); err != nil {
		return err
	}
	_, err = c.file.Interface(c.nic.Host, capture.Delivered)
	return err
}

// both writes a frame's two packets.
func (c *capturing) both(comment []byte) error {
	t := &c.pair.Trailer
	m := capture.Mark{Packet: uint64(t.Queue)<<48 | t.Ordinal, Queue: uint32(t.Queue), Lost: c.lost,
		Verdict: binary.LittleEndian.AppendUint32(nil, uint32(t.Word))}
	text := string(comment)
	if fate := c.fate(); fate != "" {
		text += "; " + fate
	}
	if err := c.packet(wireSide, c.pair.Came, len(c.pair.Came), text, m); err != nil {
		return err
	}
	c.left = append(c.left[:0], c.pair.Left...)
	if !c.nic.Bare {
		c.left = status.Annotate(c.left, t)
	}
	reach := len(c.left)
	if c.request.Sealed {
		reach = min(reach, sealed(c.pair.Left, t))
	}
	if err := c.packet(hostSide, c.left, reach, text, m); err != nil {
		return err
	}
	return c.count(t.Received)
}

func (c *capturing) packet(side int, frame []byte, reach int, comment string, m capture.Mark) error {
	if c.request.Snap > 0 {
		reach = min(reach, c.request.Snap)
	}
	m.Missing = len(frame) - reach
	return c.file.Marked(side, c.pair.Trailer.Time(), frame[:reach], comment, &m)
}

// count writes the counts, if they have changed since a second ago. A clock that was set back
// does not tell how long ago that is.
func (c *capturing) count(now int64) error {
	counts := c.reader.Counts()
	if passed := now - c.at; 0 <= passed && passed < int64(time.Second) || counts == c.counted && c.at > 0 {
		return nil
	}
	c.counted, c.at = counts, now
	for side := range 2 {
		if err := c.file.Counts(side, time.Unix(0, now), counts); err != nil {
			return err
		}
	}
	return nil
}

// sealed is how many bytes of a delivered frame precede what was opened in it.
func sealed(body []byte, t *status.Trailer) int {
	if t.Removed > 0 {
		_, l3, _ := wire.Ethernet(body)
		return l3
	}
	for _, r := range t.Records[:t.N] {
		if r.Protocol == uint8(sa.ESP) && r.State == status.ICVValid {
			return int(r.Payload)
		}
	}
	return math.MaxInt
}
