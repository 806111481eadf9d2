//go:build linux

package appliance

import (
	"context"
	"io"
	"net/url"

	"tapsec/configs"
	server "tapsec/internal/control"
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
	stream := func(media string, view func(live.Request) (live.View, error)) server.Stream {
		return server.Stream{Type: media, Begin: func(query url.Values) (func(context.Context, io.Writer, func() error) error, error) {
			if a.adapter == nil {
				return nil, errNoNIC
			}
			r, err := live.ParseRequest(query)
			if err != nil {
				return nil, err
			}
			return view(r)
		}}
	}
	return map[string]server.Stream{"capture": stream("application/x-pcapng", n.Capture), "trace": stream("application/x-ndjson", n.Trace)}
}
