package live

import (
	"context"
	"io"
	"sync"

	"tapsec/internal/inspect"
	"tapsec/pipeline"
)

// NIC is the running NIC that is looked at. Several goroutines may use it.
type NIC struct {
	Tap        *Tap
	SAD        *pipeline.SAD
	Aside      int               // a worker of the SAD that moves no frames
	Bare       bool              // frames are delivered without their trailers
	Wire, Host string            // names of its interfaces
	Fate       func(Fate) string // a sentence; nil where nobody behind the NIC says anything

	mu   sync.Mutex // held by who uses what follows
	pipe *pipeline.Pipeline
}

// View sends what it sees to w until ctx ends, and then what was taken before. It calls flush
// when nothing waits. The error is w's.
type View func(ctx context.Context, w io.Writer, flush func() error) error

// viewing is what captures and traces share.
type viewing struct {
	nic     *NIC
	request Request
	reader  *Reader
	watched *inspect.Watched
	pair    Pair
	told    uint64 // frames
	lost    uint64 // frames before the next one that is told
}

// view begins to take frames. The error names an SA that is not there.
func (n *NIC) view(r Request) (*viewing, error) {
	watched, err := inspect.Watch(r.Filter, n.SAD)
	if err != nil {
		return nil, err
	}
	return &viewing{nic: n, request: r, watched: watched}, nil
}

// run calls tell with each frame that is wanted, quiet when none waits, and returns when ctx
// has ended or there were as many as asked for.
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

// fate says what became of the frame behind the NIC; empty: that is not known.
func (v *viewing) fate() string {
	if v.nic.Fate == nil {
		return ""
	}
	return v.nic.Fate(v.pair.Fate)
}
