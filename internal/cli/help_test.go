package cli

import (
	"bytes"
	"iter"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tapsec/docs/reasons"
	"tapsec/internal/exit"
	"tapsec/internal/wrap"
)

// What each command says of itself fits a terminal, and what a flag takes has a name
// in capitals.
func TestHelp(t *testing.T) {
	for cmd := range commands(newRoot()) {
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > wrap.Width {
				t.Errorf("%s --help: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if name, _ := pflag.UnquoteUsage(f); name != strings.ToUpper(name) || f.Value.Type() != "bool" && name == "" {
				t.Errorf("%s --%s takes %q, expected a name in capitals", cmd.CommandPath(), f.Name, name)
			}
		})
	}
}

// So does what is said of a reason.
func TestHelpOnReasons(t *testing.T) {
	for _, name := range reasons.Names() {
		text, _, err := command("", "help", name)
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(text) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > wrap.Width {
				t.Errorf("help %s: %s", name, line)
			}
		}
	}
}

// commands are one and all beneath it, but for cobra's own.
func commands(cmd *cobra.Command) iter.Seq[*cobra.Command] {
	return func(yield func(*cobra.Command) bool) { visit(cmd, yield) }
}

func visit(cmd *cobra.Command, yield func(*cobra.Command) bool) bool {
	if cmd.Name() == "completion" {
		return true
	}
	more := yield(cmd)
	for _, sub := range cmd.Commands() {
		more = more && visit(sub, yield)
	}
	return more
}

// A flag with nothing, such as an unset variable of a script, is not taken for one that was not
// given: --state "" would seal with numbers that were used before.
func TestEmptyFlags(t *testing.T) {
	for want, given := range map[string][]string{
		"--keys: expected FILE, found nothing":    {"replay", "-k", "", "../../configs/layers.pcapng"},
		"--sa: expected NAME, found nothing":      {"replay", "--sa", "gateway", "--sa=", "-c", "../../configs/layers.yaml", "../../configs/layers.pcapng"},
		"--output: expected FILE, found nothing":  {"keys", "-o", "", "../../configs/layers.yaml"},
		"--control: expected PATH, found nothing": {"sa", "list", "--control", ""},

		`expected a command behind a, found "--rig"; rig exec's own flags come before the host`: {"rig", "exec", "a", "--rig", "x", "--", "true"},
	} {
		if _, _, err := command("", given...); err == nil || err.Error() != want || exitCode(err) != exit.Input {
			t.Errorf("%q: %v, exit code %d, want %q", given, err, exitCode(err), want)
		}
	}
}
