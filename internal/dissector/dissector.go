// Package dissector is the dissector of the status trailer for Wireshark, in Lua. The names
// of codes and reasons in it are those of package status.
package dissector

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tapsec/status"
)

//go:embed tapsec.lua
var source string

const (
	begin = "-- BEGIN NAMES\n"
	end   = "-- END NAMES\n"
)

// Lua is the dissector's text.
func Lua() string {
	head, rest, _ := strings.Cut(source, begin)
	_, tail, _ := strings.Cut(rest, end)
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("local codes = {\n")
	for code := range status.Code(status.NumCodes) {
		fmt.Fprintf(&b, "  [%d] = %q,\n", code, code.String())
	}
	b.WriteString("}\nlocal reasons = {\n")
	for _, r := range status.Reasons() {
		fmt.Fprintf(&b, "  [%d] = %q,\n", r, r.String())
	}
	b.WriteString("}\nlocal sentences = {\n")
	for _, r := range status.Reasons() {
		fmt.Fprintf(&b, "  [%d] = %q,\n", r, r.Sentence())
	}
	b.WriteString("}\nlocal alone = { -- frames without IPsec\n")
	for _, r := range status.Reasons() {
		if !r.OfIPsec() {
			fmt.Fprintf(&b, "  [%d] = true,\n", r)
		}
	}
	b.WriteString("}\n")
	b.WriteString(tail)
	return b.String()
}

// Install writes the dissector into a folder, which it makes if necessary, and returns its
// path. "" is the folder of the user's own Wireshark plugins.
func Install(folder string) (path string, err error) {
	if folder == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("%w; name the folder with --to", err)
		}
		folder = filepath.Join(home, ".local/lib/wireshark/plugins")
	}
	path = filepath.Join(folder, "tapsec.lua")
	if err = os.MkdirAll(folder, 0o755); err == nil {
		err = os.WriteFile(path, []byte(Lua()), 0o644)
	}
	return path, err
}
