// Package daemon is the process around a running appliance: SIGHUP reloads, SIGINT and
// SIGTERM end it, the second of them at once, and a service manager hears of all of
// it.
package daemon

import (
	"context"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/appliance"
	"tapsec/internal/notify"
)

// Daemon is the process. Signals are caught as soon as there is one.
type Daemon struct {
	ctx     context.Context
	stop    context.CancelFunc
	reload  chan os.Signal
	service *notify.Service
}

// New catches signals. The error is of a service manager that cannot be told.
func New(ctx context.Context) (*Daemon, error) {
	service, err := notify.Open()
	if err != nil {
		return nil, err
	}
	d := &Daemon{reload: make(chan os.Signal, 1), service: service}
	d.ctx, d.stop = signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	context.AfterFunc(d.ctx, d.stop)
	signal.Notify(d.reload, unix.SIGHUP)
	signal.Ignore(unix.SIGPIPE) // a reader of the log that ends is no reason to end
	return d, nil
}

// Close leaves signals to the kernel again.
func (d *Daemon) Close() error {
	d.stop()
	signal.Stop(d.reload)
	return d.service.Close()
}

// Run runs an appliance until it ends.
func (d *Daemon) Run(a *appliance.Appliance) error {
	done := make(chan error, 1)
	go func() { done <- a.Run(d.ctx) }()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	ready, ending, beat := a.Ready(), d.ctx.Done(), notify.Pulse{}
	for {
		select {
		case <-ready:
			ready = nil
			if a.Flows() {
				d.service.Ready()
			}
		case <-second.C:
			if ready == nil && beat.Beats(a.Rounds()) {
				d.service.Watchdog()
			}
		case <-ending:
			ending = nil
			d.service.Stopping()
		case <-d.reload:
			d.service.Reloading()
			_ = a.Reload() // which has logged what is wrong
			d.service.Ready()
		case err := <-done:
			if ending != nil { // by a failure, or this select took the later of two
				d.service.Stopping()
			}
			return err
		}
	}
}
