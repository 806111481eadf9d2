//go:build linux

package appliance

import (
	"context"
	"io"
	"log/slog"
	"net/url"

	"tapsec/configs"
	server "tapsec/internal/control"
	"tapsec/internal/event"
	"tapsec/internal/live"
)

// streams are those of the control socket that show the NIC's frames.
func (a *Appliance) streams() map[string]server.Stream {
	c := a.config
	n := &live.NIC{Tap: a.tap, Aside: c.Queues, Bare: c.Host.Annotate == configs.None, Wire: c.Wire.Name, Host: c.Host.Name}
	if a.adapter != nil {
		n.SAD = a.adapter.sad
	}
	if a.host != nil {
		n.Host, n.Fate = "transport", saidOf // which has the frames before the stack
	}
	stream := func(name, media string, view func(live.Request) (live.View, error)) server.Stream {
		return server.Stream{Type: media, Begin: func(query url.Values) (server.Send, error) {
			if a.adapter == nil {
				return nil, errNoNIC
			}
			r, err := live.ParseRequest(query)
			if err != nil {
				return nil, err
			}
			send, err := view(r)
			if err != nil {
				return nil, err
			}
			return a.recorded(name, server.Send(send)), nil
		}}
	}
	return map[string]server.Stream{
		"capture": stream("capture", "application/x-pcapng", n.Capture),
		"trace":   stream("trace", "application/x-ndjson", n.Trace),
	}
}

// recorded reports who looks at the NIC's frames, and since when until when.
func (a *Appliance) recorded(name string, send server.Send) server.Send {
	return func(ctx context.Context, w io.Writer, flush func() error) error {
		by := server.PeerOf(ctx)
		who := []slog.Attr{slog.String("stream", name), slog.Int("uid", by.UID), slog.Int("pid", by.PID)}
		a.tell(event.CaptureBegan, who...)
		defer a.tell(event.CaptureEnded, who...)
		return send(ctx, w, flush)
	}
}
