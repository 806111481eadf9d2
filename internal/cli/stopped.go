package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tapsec/internal/console"
)

// lastWords is how long a command may take that was stopped: for what a NIC still sends, ten
// seconds at most, and for writing it.
const lastWords = 12 * time.Second

// untilStopped runs f with a context that ends at SIGINT, at SIGTERM, or when the terminal hangs up, unless
// nohup(1) keeps that away. Where f does not end within a time after that, nobody reads what it writes. One
// more SIGINT kills.
func untilStopped(cmd *cobra.Command, within time.Duration, f func(context.Context) error) error {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), signals...)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		go console.ReleaseInterrupt()
		return console.Within(within, func() error { return <-done })
	}
}
