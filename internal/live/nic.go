package live

import (
	"context"
	"io"
	"sync"

	"tapsec/internal/inspect"
	"tapsec/pipeline"
)

// NIC is the running NIC being watched. Several goroutines may use it.
type NIC struct {
	Tap        *Tap
	SAD        *pipeline.SAD
	Aside      int               // a worker of the SAD that moves no frames
	Bare       bool              // frames are delivered without their trailers
	Wire, Host string            // names of its interfaces
	Fate       func(Fate) string // a sentence; nil if nobody behind the NIC says anything

	mu   sync.Mutex // guards what follows
	pipe *pipeline.Pipeline
}

// View sends what it sees to w until ctx ends, and then what it had taken by then. It calls
// flush when nothing waits. The error is w's.
type View func(ctx context.Context, w io.Writer, flush func() error) error

// viewing is what captures and traces share.
type viewing struct {
	nic     *NIC
	request Request
	reader  *Reader
	watched *inspect.Watched
	pair    Pair
	told    uint64 // frames
	lost    uint64 // frames missing before the next one
}

// view begins to take frames. The error names an SA that does not exist.
func (n *NIC) view(r Request) (*viewing, error) {
	watched, err := inspect.Watch(r.Filter, n.SAD)
	if err != nil {
		return nil, err
	}
	return &viewing{nic: n, request: r, watched: watched}, nil
}

// run calls tell with each wanted frame, and quiet when none waits. It returns when ctx has
// ended or there were as many frames as asked for.
func (v *viewing) run(ctx context.Context, tell func(comment []byte) error, quiet func() error) error {
	v.reader = v.nic.Tap.Open(v.request.MayTake)
	defer v.reader.Close()
	for ended := false; ; {
		for v.reader.Next(&v.pair) {
			v.lost += v.pair.Lost
			comment, ok := v.watched.Frame(v.pair.Came, v.pair.Left, &v.pair.Trailer)
			if !ok {
				continue
			}
			if err := tell(comment); err != nil {
				return err
			}
			v.lost = 0
			if v.told++; v.told == v.request.Count {
				return nil
			}
		}
		if ended {
			return nil
		}
		if err := quiet(); err != nil {
			return err
		}
		if v.reader.Wait(ctx) != nil {
			v.reader.Close() // and then take what is left
			ended = true
		}
	}
}

// fate says what became of the frame behind the NIC; empty if that is unknown.
func (v *viewing) fate() string {
	if v.nic.Fate == nil {
		return ""
	}
	return v.nic.Fate(v.pair.Fate)
}
