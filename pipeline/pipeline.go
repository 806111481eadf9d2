// Package pipeline is the NIC's receive path as a function of a frame: parse,
// tunnel-layer crypto, transport-layer crypto, annotate. It checks and decrypts
// AH and ESP as NDIS IPsec task offload asks of a miniport, and passes on every
// frame, one out for one in, with the annotation that says what was found: as a
// value to a transport in the same process (Check), as the frame's trailer to
// everybody else (Process).
//
// It knows no interfaces, drops nothing, keeps no sequence window and no
// policy: those are the transport's. A Pipeline belongs to one worker; the SAD
// is shared by all of them.
package pipeline

import (
	"time"

	"tapsec/ah"
	"tapsec/esp"
	"tapsec/status"
	"tapsec/wire"
)

// maxFrame bounds what is looked at of a frame in bytes, because the trailer's
// offsets have 16 bits. No TAP delivers more.
const maxFrame = 1<<16 - 1

// Options say what one pipeline is to do besides checking.
type Options struct {
	Worker    int         // this pipeline's number among the SAD's workers
	Queue     uint16      // the receive queue, for the trailer
	Form      status.Form // of the delivered frames
	NoTrailer bool        // deliver frames without their annotation

	// Failed, if not nil, is called for each frame whose CryptoStatus is not SUCCESS,
	// before headers come off. It is on the frame path: it must not wait, nor keep what
	// it is given.
	Failed func(frame []byte, t *status.Trailer)

	// Aside makes a pipeline that is asked about frames beside their way: what it finds
	// changes nothing that is known of an SA, neither its counts nor its ESN mark.
	Aside bool
}

// Pipeline handles the frames of one queue, in order. It is unsafe for concurrent use.
type Pipeline struct {
	sad      *SAD
	opt      Options
	counters Counters
	now      int64
	ordinal  uint64
	assumed  *Assumed // nil but in Ahead

	*work // the frame in work
	burst

	undo []byte // an inner portion as it came; kept for its memory

	// What ciphers write to; it is here because it would escape to the heap.
	esp esp.Scratch
	ah  ah.Scratch
}

// work is a frame on its way through the stages.
type work struct {
	frame   []byte
	l3      int // offset after the EtherType
	trailer status.Trailer
	outer   portion
	inner   portion
}

// New makes the pipeline of one worker.
func New(sad *SAD, opt Options) *Pipeline {
	if opt.Worker < 0 || opt.Worker >= sad.workers {
		panic("pipeline: worker number outside the SAD's workers")
	}
	p := &Pipeline{sad: sad, opt: opt}
	p.work = &p.works[0]
	return p
}

// At sets the receive time of the frames that follow.
func (p *Pipeline) At(t time.Time) { p.now = t.UnixNano() }

// Next sets the ordinal of the next frame, where others have frames of the same queue.
func (p *Pipeline) Next(ordinal uint64) { p.ordinal = ordinal - 1 }

// Counters may be read by any goroutine; they advance once a batch.
func (p *Pipeline) Counters() *Counters { return &p.counters }

// Publish lets others read what Check and Process have counted.
func (p *Pipeline) Publish() { p.counters.publish() }

// Batch processes the frames of one batch, in order and in place.
func (p *Pipeline) Batch(frames [][]byte) [][]byte {
	p.At(time.Now())
	p.Expect(frames)
	for i, f := range frames {
		frames[i] = p.Process(f)
	}
	p.Publish()
	return frames
}

// Process is Check, with the annotation as the frame's trailer. That goes into the
// frame's spare capacity, so that a frame with status.Tailroom bytes of it costs no
// allocation.
func (p *Pipeline) Process(frame []byte) []byte { return p.Deliver(p.Check(frame)) }

// Check checks one frame in place, and returns it in the form asked for, and what was
// found. Both stand until the next frame.
func (p *Pipeline) Check(frame []byte) (delivered []byte, found *status.Trailer) {
	if esp.Burst == 1 || !p.inBurst(frame) {
		p.parse(frame)
		p.tunnelPortion()
		p.transportPortion()
	}
	return p.annotate()
}

// begin forgets the previous frame.
func (p *Pipeline) begin(frame []byte) {
	p.frame = frame
	p.outer = portion{}
	p.inner = portion{} // assigned together they would be made elsewhere and copied
	p.trailer = status.Trailer{Queue: p.opt.Queue, WireLen: uint32(len(frame))}
}

// parse finds the frame's IP packet and the outermost IPsec portion in it.
func (p *Pipeline) parse(frame []byte) {
	p.begin(frame)
	etherType, l3, ok := wire.Ethernet(frame)
	version := versionOf(etherType)
	if !ok || version == 0 {
		p.trailer.Reason = status.NotIP
		return
	}
	p.l3 = l3
	if p.outer.packet.ParseIP(frame, l3, min(len(frame), maxFrame), version) != nil {
		p.trailer.Reason = status.BadIPHeader
		return
	}
	p.find(&p.outer)
	if !p.outer.wanted() {
		p.trailer.Reason = p.outer.skip
		p.leave(&p.outer)
	}
}

func versionOf(etherType uint16) uint8 {
	switch etherType {
	case wire.EtherIPv4:
		return 4
	case wire.EtherIPv6:
		return 6
	}
	return 0
}
