//go:build linux

package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tapsec/internal/exit"
	"tapsec/internal/lab/rig"
)

// inRig runs a command again, with the flags it was given, in a rig that ends with it. A
// noRig says that none is to be had, and that nothing was run.
func inRig(cmd *cobra.Command) error {
	if err := rig.NeedsTUN(); err != nil {
		return noRig{err}
	}
	again := []string{cmd.Name()}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if list, is := f.Value.(pflag.SliceValue); is {
			value = strings.Join(list.GetSlice(), ",")
		}
		again = append(again, "--"+f.Name+"="+value)
	})
	code, err := rig.Reexec(again...)
	switch {
	case errors.Is(err, rig.ErrRefused):
		return noRig{err}
	case err == nil && code != exit.OK:
		return exit.Mark(code, errSaid)
	}
	return err
}

// noRig is why there is no rig, and what to do about it.
type noRig struct{ error }
