package live

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"

	"tapsec/internal/explain"
	"tapsec/pipeline"
	"tapsec/status"
)

// Trace explains the frames that a request asks for: an object on each line. The error names
// an SA that does not exist.
func (n *NIC) Trace(r Request) (View, error) {
	v, err := n.view(r)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w io.Writer, flush func() error) error {
		out := bufio.NewWriterSize(w, 1<<16)
		lines := json.NewEncoder(out)
		lines.SetEscapeHTML(false)
		quiet := func() error {
			if err := out.Flush(); err != nil {
				return err
			}
			return flush()
		}
		err := v.run(ctx, func([]byte) error { return lines.Encode(v.traced()) }, quiet)
		if err != nil {
			return err
		}
		return quiet()
	}, nil
}

// traced explains the current frame.
func (v *viewing) traced() *explain.Traced {
	t := &v.pair.Trailer
	f := explain.Judged(int(t.Ordinal), v.nic.Wire, v.pair.Came, t, v.watched.Name, v.nic.tell)
	f.Marks = v.watched.Marks()
	return &explain.Traced{Document: *f.Document(), Transport: v.fate(), Queue: t.Queue, Lost: v.lost}
}

// tell asks the pipeline about a frame, with the SAs that the NIC has now.
func (n *NIC) tell(frame []byte, step func(pipeline.Step)) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pipe == nil {
		n.pipe = pipeline.New(n.SAD, pipeline.Options{Worker: n.Aside, Aside: true})
	}
	room := make([]byte, len(frame), len(frame)+status.Tailroom)
	copy(room, frame)
	return bytes.Clone(n.pipe.Tell(room, step))
}
