package cli

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"tapsec/esp"
	"tapsec/status"
)

func newVersion() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Say which build this is",
		Args:  args(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return show(cmd.OutOrStdout(), asJSON, version()) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// release is the version of a released build: the linker sets it to what git describe says
// (packaging/build).
var release string

// build is what a build knows about itself.
type build struct {
	Version  string `json:"version"`            // the release, or the module's version
	Revision string `json:"revision,omitempty"` // the commit, of a build that is no release
	Modified bool   `json:"modified"`           // it was built with changes to that
	Go       string `json:"go"`                 // the Go release
	System   string `json:"system"`             // the operating system, a slash, and the processor
	AES      string `json:"aes"`                // whose AES-GCM and AES-CBC it has
	Trailer  int    `json:"trailer"`            // version of the trailer
}

func version() build {
	b := build{Version: cmp.Or(release, "unknown build"), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, AES: esp.Ciphers, Trailer: status.TrailerVersion}
	info, ok := debug.ReadBuildInfo()
	if !ok || release != "" {
		return b
	}
	b.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String is the build in one line.
func (b build) String() string {
	what := b.Version
	if b.Revision != "" {
		what += " " + b.Revision
	}
	return fmt.Sprintf("tapsec %s, %s %s, AES of %s, trailer version %d", what, b.Go, b.System, b.AES, b.Trailer)
}

// WriteText writes that line.
func (b build) WriteText(out io.Writer) error {
	_, err := fmt.Fprintln(out, b)
	return err
}
