// Package serve is what the program's HTTP servers have in common: they answer beside the frames, a few
// clients at once, survive passing shortages of the machine, use one log, and read queries strictly.
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

// Limit makes a listener accept that many clients at once; others wait. If it cannot accept one, for
// lack of descriptors or memory, it keeps trying, and ends only when it is closed.
func Limit(l net.Listener, clients int, to *slog.Logger) net.Listener {
	return netutil.LimitListener(&patient{Listener: l, log: to}, clients)
}

// Log puts what a server says about itself into the program's log.
func Log(to *slog.Logger) *log.Logger { return slog.NewLogLogger(to.Handler(), slog.LevelWarn) }

// patient is a listener that survives failures. One goroutine accepts.
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
			p.log.Warn("a client cannot be accepted now, and has to wait", "at", p.Addr().String(), "err", err)
		}
		time.Sleep(pause)
	}
}
