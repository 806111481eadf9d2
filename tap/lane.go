package tap

import (
	"fmt"
	"time"
)

// Options say how frames are moved between two devices.
type Options struct {
	Room     int           // longest frame in bytes
	Tail     int           // spare capacity in bytes behind a frame
	Engine   Engine        // the zero value is Auto
	BusyPoll time.Duration // how long after the last frame to look for another before sleeping

	// SingleReads has the ring read frame by frame, as it must before Linux 6.7.
	SingleReads bool
}

// Lane is what one goroutine drives: under the plain engine one direction of a queue pair, under the
// ring both. Next and Send are for that goroutine alone, which calls Next until it returns an error:
// a ring binds it to its thread meanwhile, and lets go of descriptors and memory then. Until its
// first Next a lane holds nothing.
type Lane struct {
	links  []*Link
	engine engine
}

// Join makes the lanes between one queue of a and the same queue of b, each link in one of them: first
// the one from a to b, then the one back. A queue has one join at a time. Frames of a packet socket
// are always received by the plain engine, for they come with more than their bytes.
func Join(a, b *Device, queue int, o Options) ([]*Lane, error) {
	if queue < 0 || queue >= a.Queues() || queue >= b.Queues() {
		return nil, fmt.Errorf("no queue %d on both %s and %s", queue, a.name, b.name)
	}
	o, err := o.settle()
	if err != nil {
		return nil, err
	}
	var lanes []*Lane
	var ringed []*Link
	for _, l := range []*Link{newLink(a, b, queue, o), newLink(b, a, queue, o)} {
		if o.Engine == Ring && l.from.out == nil {
			ringed = append(ringed, l)
			continue
		}
		p, err := newPlain(l, o)
		if err != nil {
			return nil, err
		}
		lanes = append(lanes, newLane(p, l))
	}
	if len(ringed) > 0 {
		lanes = append(lanes, newLane(newRing(ringed, o), ringed...))
	}
	return lanes, nil
}

func newLane(e engine, links ...*Link) *Lane {
	for _, l := range links {
		l.engine = e
	}
	return &Lane{links: links, engine: e}
}

// Links returns the lane's links.
func (l *Lane) Links() []*Link { return l.links }

// Next waits for at least one frame and returns the link that it came by and all that are ready, up
// to Batch, in order. They lie in the link's slots and are the caller's until its next call. What it
// sends, once for each Next, may be written no sooner than then. After an error there is nothing more, and it comes again.
func (l *Lane) Next() (*Link, [][]byte, error) { return l.engine.next() }

// Stop makes a blocked Next, and every later one, return ErrStopped, as soon as the frames that the
// lane has already received have been handed out. Anyone may call it.
func (l *Lane) Stop() { l.engine.stop() }
