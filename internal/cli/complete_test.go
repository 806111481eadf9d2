package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// complete asks as the scripts for bash and zsh do what may follow: the offers, and what else a shell may offer.
func complete(t *testing.T, cmd *cobra.Command, words ...string) (offers []string, directive string) {
	t.Helper()
	out, _, err := command("", slices.Concat([]string{cobra.ShellCompRequestCmd}, strings.Fields(cmd.CommandPath())[1:], words)...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil {
		t.Fatalf("%s %q: %v", cmd.CommandPath(), words, err)
	}
	for _, line := range lines[:len(lines)-1] {
		offer, _, _ := strings.Cut(line, "\t")
		offers = append(offers, offer)
	}
	return offers, lines[len(lines)-1]
}

// What directives say of other offers.
const (
	anyFile, nothing, endingsOnly, foldersOnly = ":0", ":4", ":8", ":16"
)

// A flag with a fixed set of values offers each of them, one that takes a file offers files, and no other
// one offers files, such as for a number.
func TestCompleteFlags(t *testing.T) {
	for cmd := range commands(newRoot()) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			what, _ := pflag.UnquoteUsage(f)
			if what == "" || cmd.Hidden {
				return
			}
			name := cmd.CommandPath() + " --" + f.Name
			offers, directive := complete(t, cmd, "--"+f.Name+"=")
			for i := range offers {
				offers[i] = strings.TrimPrefix(offers[i], "--"+f.Name+"=")
			}
			switch what {
			case "FILE", "PATH":
				if directive != anyFile && directive != endingsOnly {
					t.Errorf("%s offers no files: %s", name, directive)
				}
			case "FOLDER":
				if directive != foldersOnly {
					t.Errorf("%s offers no folders: %s", name, directive)
				}
			default:
				if directive != nothing && !slices.Contains(offers, "all-good") {
					t.Errorf("%s %s offers files: %s", name, what, directive)
				}
				completeFixed(t, name, f, what, offers)
			}
		})
	}
}

// completeFixed checks what a flag offers: whatever its own error says that it takes, and nothing that it does
// not take.
func completeFixed(t *testing.T, name string, f *pflag.Flag, what string, offers []string) {
	t.Helper()
	if slices.Contains([]string{"HOW", "FORM", "WHAT", "WHEN", "BY", "LEVEL", "KINDS", "PARTS", "NAMES"}, what) && len(offers) == 0 && f.Name != "sa" {
		t.Errorf("%s %s offers nothing", name, what)
	}
	for _, offer := range offers {
		if err := f.Value.Set(offer); err != nil {
			t.Errorf("%s does not take what it offers: %v", name, err)
		}
	}
	if err := f.Value.Set("no such value"); err != nil {
		for _, word := range strings.FieldsFunc(err.Error(), func(r rune) bool { return strings.ContainsRune(" ,:\"", r) }) {
			if f.Value.Set(word) == nil && len(offers) > 0 && !slices.Contains(offers, word) {
				t.Errorf("%s offers %q, and not %s", name, offers, word)
			}
		}
	}
}

// Help takes commands and reasons, which are many: those that begin as what was typed.
func TestCompleteHelp(t *testing.T) {
	for typed, want := range map[string]string{"": "run", "es": "esp-icv", "nic/esp-i": "nic/esp-icv", "trans": "transport/clear"} {
		offers, _, err := command("", cobra.ShellCompRequestCmd, "help", typed)
		if err != nil || !slices.ContainsFunc(strings.Split(offers, "\n"), func(offer string) bool { return offer == want || strings.HasPrefix(offer, want+"\t") }) {
			t.Errorf("help %s: %v, no %s in\n%s", typed, err, want, offers)
		}
		if typed == "" && strings.Contains(offers, "esp-icv") {
			t.Error("help offers all reasons to who has typed nothing")
		}
	}
}

// What is chosen from a list, with commas, is completed behind each of them.
func TestCompleteSeveral(t *testing.T) {
	for _, words := range [][]string{{"replay", "--only", "good,fa", "good,failed"}, {"run", "--unmerged", "tso,", "tso,gro"}, {"bench", "--only", "cpu,", "cpu,replay"}} {
		offers, _, err := command("", append([]string{cobra.ShellCompRequestCmd}, words[:3]...)...)
		if err != nil || !slices.Contains(strings.Split(offers, "\n"), words[3]) || strings.Contains(offers, "tso,tso") {
			t.Errorf("%q: %v, %s", words, err, offers)
		}
	}
}

// A command offers no files where it takes no argument.
func TestCompleteArguments(t *testing.T) {
	for cmd := range commands(newRoot()) {
		if cmd.HasSubCommands() || cmd.Hidden || cmd.Name() == "exec" || cmd.Name() == "help" {
			continue
		}
		var given []string
		for range 3 {
			_, directive := complete(t, cmd, append(given, "")...)
			takes := cmd.Args(cmd, append(given, "x")) == nil
			if files := directive != nothing; files && !takes || !files && takes && strings.Contains(cmd.Use, "FILE") {
				t.Errorf("%s %q: %s, and it takes another argument: %t", cmd.CommandPath(), given, directive, takes)
			}
			given = append(given, "x")
		}
	}
}
