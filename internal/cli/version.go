package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"tapsec/esp"
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

// release is the version of a released build: the linker sets it to what git describe says
// (packaging/build).
var release string

// version is what the build knows about itself: its release, or else the module's version or
// commit; the Go release, whose AES it has, and the trailer's version.
func version() string {
	what := cmp.Or(release, "unknown build")
	if info, ok := debug.ReadBuildInfo(); ok && release == "" {
		what = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				what += " " + s.Value
			}
		}
	}
	return fmt.Sprintf("tapsec %s, %s %s/%s, AES of %s, trailer version 1", what, runtime.Version(), runtime.GOOS, runtime.GOARCH, esp.Ciphers)
}
