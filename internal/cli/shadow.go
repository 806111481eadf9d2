//go:build linux

package cli

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"tapsec/internal/confine"
	"tapsec/internal/exit"
	"tapsec/internal/logging"
	"tapsec/internal/shadow"
)

// shadowOptions are the flags of shadow.
type shadowOptions struct {
	netns string
	time  time.Duration
	json  bool
	log   logging.Options
}

func newShadow() *cobra.Command {
	o := shadowOptions{log: logging.Options{Level: logging.Level(slog.LevelInfo)}}
	cmd := &cobra.Command{
		Use:   "shadow INTERFACE",
		Short: "Judge beside the kernel's IPsec, and compare with its counters",
		Long: `shadow copies the frames that come to an interface for this machine, judges them
by the kernel's SAs, and compares what it calls good or bad with what the kernel
counted for each SA: that 12 frames were dropped, and that 12 have a wrong ICV.
Traffic is not affected. It needs CAP_NET_RAW for the copies and CAP_NET_ADMIN
for the SAs, whose keys stay in memory.

It ends after --for, or with SIGINT, and then prints what it has seen. Exit code
4 means that kernel and tapsec differ on an SA.`,
		Example: `  tapsec shadow eth0 --for 10s
  tapsec shadow eth0 --netns gateway --json | jq .sas`,
		Args: args(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			return untilStopped(cmd, lastWords, func(ctx context.Context) error { return o.run(ctx, cmd, given[0]) })
		},
		ValidArgsFunction: first(completeInterfaces),
	}
	f := cmd.Flags()
	f.StringVar(&o.netns, "netns", "", "network namespace `NAME` of the interface and of the SAs")
	f.DurationVar(&o.time, "for", 0, "`TIME` after which it ends, as 10s (default: when it is stopped)")
	f.BoolVar(&o.json, "json", false, "print JSON and nothing else")
	return cmd
}

func (o *shadowOptions) run(ctx context.Context, cmd *cobra.Command, name string) error {
	if o.time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.time)
		defer cancel()
	}
	log := logging.New(cmd.ErrOrStderr(), o.log)
	defer log.Close()
	s, err := shadow.Open(name, o.netns, log.Logger())
	if err != nil {
		return err
	}
	if err := confine.Apply(confine.Plan{NetAdmin: true}); err != nil {
		log.Logger().Warn("not confined in every respect", "err", err)
	}
	report, err := s.Run(ctx)
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	if err = show(cmd.OutOrStdout(), o.json, report); err == nil && !report.Agrees {
		err = exit.Mark(exit.Disagree, errors.New("kernel and tapsec differ on an SA"))
	}
	return err
}
