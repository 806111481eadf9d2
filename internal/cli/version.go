package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which build this is",
		Args:  args(0),
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), version())
		},
	}
}

// version is what the build knows of itself: the module's version or commit,
// the Go release and the trailer's version.
func version() string {
	what := "unknown build"
	if info, ok := debug.ReadBuildInfo(); ok {
		what = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				what += " " + s.Value
			}
		}
	}
	return fmt.Sprintf("tapsec %s, %s %s/%s, trailer version 1", what, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
