// Package testbed has NICs that the laboratory's frames are sent to: this program's
// on TAPs, its pipeline alone, and whatever stands between two interfaces.
package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/pipeline"
	"tapsec/status"
)

// Load is the result of mixed traffic.
type Load struct {
	Sent, Received uint64
	Wrong          uint64 // answers with another word than expected, or out of order
	Took           time.Duration
}

// take judges the next answer to the setup's cases, which were sent in turn.
func (r *Load) take(answer []byte, l *conformance.Setup) {
	_, t, err := status.Split(answer)
	c := &l.Cases[r.Received%uint64(len(l.Cases))]
	r.Received++
	if err != nil || t.Word != c.Word || t.Ordinal != r.Received {
		r.Wrong++
	}
}

// Memory runs frames through the pipeline without any interface.
type Memory struct{ pipe *pipeline.Pipeline }

// Ready makes the pipeline anew.
func (b *Memory) Ready(l *conformance.Setup) (err error) {
	b.pipe, err = newPipeline(l)
	return err
}

// newPipeline is a pipeline whose NIC is ready for the setup's cases.
func newPipeline(l *conformance.Setup) (*pipeline.Pipeline, error) {
	sad := pipeline.NewSAD(l.Profile, 1)
	if err := l.Arrange(sad); err != nil {
		return nil, err
	}
	return pipeline.New(sad, pipeline.Options{}), nil
}

// Exchange is the pipeline itself.
func (b *Memory) Exchange(frames [][]byte) (delivered [][]byte, err error) {
	b.pipe.At(time.Now())
	for _, f := range frames {
		delivered = append(delivered, b.pipe.Process(bytes.Clone(f)))
	}
	return delivered, nil
}

// Load sends the setup's cases over and over, for so long.
func (b *Memory) Load(l *conformance.Setup, d time.Duration) (r Load, err error) {
	begin := time.Now()
	for n := uint64(0); time.Since(begin) < d; n++ {
		c := &l.Cases[n%uint64(len(l.Cases))]
		b.pipe.At(time.Now())
		r.Sent++
		r.take(b.pipe.Process(bytes.Clone(c.Frame)), l)
	}
	r.Took = time.Since(begin)
	return r, nil
}

// Close has nothing to close.
func (b *Memory) Close() error { return nil }

// link is the other ends of a NIC's two interfaces: a frame sent out of the wire
// comes to the host.
type link struct {
	wire, host string
	send, recv *rig.Socket
	wait       time.Duration // how long the NIC may keep a frame
}

func openLink(wire, host string, wait time.Duration) (l link, err error) {
	l.wire, l.host, l.wait = wire, host, wait
	if l.send, err = rig.OpenSocket(wire); err != nil {
		return l, err
	}
	if l.recv, err = rig.OpenSocket(host); err != nil {
		return l, errors.Join(err, l.send.Close())
	}
	return l, nil
}

func (l *link) close() error { return errors.Join(l.send.Close(), l.recv.Close()) }

// refused says what an interface lacks that does not take a frame of that length, or gives none.
func refused(name string, frame int, err error) error {
	switch {
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Errorf("interface %s is down: ip link set %s up", name, name)
	case errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("interface %s does not take a frame of %d bytes; raise its MTU, and behind the NIC by %d more for trailers", name, frame, status.MaxTrailer)
	}
	return fmt.Errorf("interface %s: %w", name, err)
}

// Exchange sends frames and collects them; what the kernel sends of its own
// accord passes through a NIC too.
func (l *link) Exchange(frames [][]byte) (delivered [][]byte, err error) {
	for _, f := range frames {
		if err := l.send.Send(f); err != nil {
			return nil, refused(l.wire, len(f), err)
		}
	}
	for since := time.Now(); len(delivered) < len(frames); {
		got, err := l.recv.Receive(l.wait - time.Since(since)) // others' frames are not waited for
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break // what is missing shows
		} else if err != nil {
			return nil, refused(l.host, 0, err)
		}
		if conformance.Stamped(got) {
			delivered, since = append(delivered, bytes.Clone(got)), time.Now()
		}
	}
	return delivered, nil
}
