// Package daemon is the process around a running appliance: what its user asks for, over
// the configuration; its signals (SIGHUP reloads, SIGINT and SIGTERM end it, a second SIGINT
// at once); its log, its summary, and the service manager that hears of all this.
package daemon

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/appliance"
	"tapsec/internal/console"
	"tapsec/internal/exit"
	"tapsec/internal/logging"
	"tapsec/internal/notify"
)

// Run is the program from start to stop. It logs to stderr and sums up on stdout, after
// failures too.
func Run(ctx context.Context, s Settings, stdout, stderr io.Writer) error {
	if err := s.checkOutputs(); err != nil {
		return exit.Mark(exit.Input, err)
	}
	if err := enoughThreads("", 1); err != nil { // of the least that there may be
		return err
	}
	beFrugal()
	d, err := open(ctx)
	if err != nil {
		return err
	}
	defer d.service.Close()
	said := console.New(stderr)
	log := logging.New(said, s.Lines)
	s.warnIgnored(log)
	a, err := d.prepare(s.options(log.Logger()))
	if err != nil {
		log.Close()
		return err
	}
	s.inForce = a.InForce
	end := said.Show(a.Line)
	err = d.run(a)
	sum := a.Summary()
	err = errors.Join(err, a.Close())
	log.Close()
	end()
	return errors.Join(err, console.Bounded(func() error { return sum.WriteText(stdout) }))
}

// daemon is the process. Signals are caught from when there is one until the process ends.
type daemon struct {
	ctx     context.Context
	reload  chan os.Signal
	service *notify.Service
}

// open catches signals. The error says that a service manager cannot be told.
func open(ctx context.Context) (*daemon, error) {
	service, err := notify.Open()
	if err != nil {
		return nil, err
	}
	d := &daemon{reload: make(chan os.Signal, 1), service: service}
	d.ctx, _ = signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	context.AfterFunc(d.ctx, console.ReleaseInterrupt)
	signal.Notify(d.reload, unix.SIGHUP)
	signal.Ignore(unix.SIGPIPE) // the program outlives the reader of its log
	return d, nil
}

// prepare opens an appliance. A signal ends that, too, where what is opened does not answer.
func (d *daemon) prepare(o appliance.Options) (*appliance.Appliance, error) {
	const grace = 2 * time.Second
	type result struct {
		a   *appliance.Appliance
		err error
	}
	opened := make(chan result, 1)
	go func() {
		var r result
		tidily(func() { r.a, r.err = appliance.New(o) })
		opened <- r
	}()
	var late <-chan time.Time
	for ending := d.ctx.Done(); ; {
		select {
		case r := <-opened:
			return r.a, r.err
		case <-ending:
			ending, late = nil, time.After(grace)
		case <-late:
			return nil, errors.New("ended before all was open: a file does not answer, of the configuration, its keys or the state")
		}
	}
}

// makeRoom gives the runtime a processor for each worker beside those of the machine,
// since a worker sleeps in the kernel with one in hand, and would find it gone when it
// wakes. What the user has set stays.
func makeRoom(a *appliance.Appliance) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + len(a.Rounds()))
	}
}

// run runs an appliance until it ends.
func (d *daemon) run(a *appliance.Appliance) error {
	if err := enoughThreads("", len(a.Rounds())); err != nil {
		return err
	}
	makeRoom(a)
	reserveThreads(len(a.Rounds()))
	done := make(chan error, 1)
	go func() { done <- a.Run(d.ctx) }()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	ready, ending, beat := a.Ready(), d.ctx.Done(), notify.Pulse{}
	reload, reloaded := d.reload, make(chan struct{}, 1)
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
		case <-reload:
			reload = nil // another one waits
			d.service.Reloading()
			go func() {
				tidily(func() { _ = a.Reload() }) // it has logged what is wrong
				reloaded <- struct{}{}
			}()
		case <-reloaded:
			reload = d.reload
			d.service.Ready()
		case err := <-done:
			if ending != nil { // it failed, or select chose the later of two
				d.service.Stopping()
			}
			return err
		}
	}
}

// beFrugal lets less garbage than usual lie beside what is in use: with a million SAs that is
// gigabytes, and frames make none. What the user has set stays.
func beFrugal() {
	const percent = 50
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// tidily does what makes much garbage if there are many SAs, and keeps none of it.
func tidily(do func()) {
	defer debug.FreeOSMemory()
	do()
}
