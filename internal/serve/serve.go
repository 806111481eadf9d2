// Package serve is what the program's HTTP servers have in common, which answer beside the frames: few
// clients at once, an outage of the machine's that passes, and one log.
package serve

import (
	"errors"
	"log"
	"log/slog"
	"net"
	"time"

	"golang.org/x/net/netutil"
)

const (
	firstPause   = 5 * time.Millisecond // before accepting again, doubled each time
	longestPause = time.Second
	silence      = time.Minute // between two lines about that
)

// Limit has a listener take so many clients at once; others wait. While one cannot be taken, for want of
// descriptors or memory, it goes on trying, and ends only when it is closed.
func Limit(l net.Listener, clients int, to *slog.Logger) net.Listener {
	return netutil.LimitListener(&patient{Listener: l, log: to}, clients)
}

// Log has what a server says of itself in the program's log.
func Log(to *slog.Logger) *log.Logger { return slog.NewLogLogger(to.Handler(), slog.LevelWarn) }

// patient is a listener whose failures pass. One goroutine accepts.
type patient struct {
	net.Listener
	log  *slog.Logger
	told time.Time
}

func (p *patient) Accept() (net.Conn, error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		conn, err := p.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		if time.Since(p.told) > silence {
			p.told = time.Now()
			p.log.Warn("a client cannot be taken now, and is to wait", "at", p.Addr().String(), "err", err)
		}
		time.Sleep(pause)
	}
}
