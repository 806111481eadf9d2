package pages

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/yuin/goldmark/ast"
	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/test/testkit"
)

// A step is a command of a page and what the page shows of its output; nil is that it shows
// none, and that the command has to succeed.
type step struct{ command, shown string }

// lesson turns a page's blocks into steps:
//
//	```sh              commands
//	```sh install      commands that get packages, which the Makefile's peers have to have
//	```console         commands behind "$ ", and what they print; "..." is whatever varies,
//	                   in a line, or as a line of its own for any number of lines
//	```go NAME         a file, as the page says
//
// Other blocks are to look at.
func lesson(t *testing.T, p *page) (steps []step) {
	t.Helper()
	p.walk(func(n ast.Node) {
		block, ok := n.(*ast.FencedCodeBlock)
		if !ok || block.Info == nil {
			return
		}
		text := string(block.Lines().Value(p.source))
		language, more, _ := strings.Cut(string(block.Info.Segment.Value(p.source)), " ")
		switch {
		case language == "sh" && more == "install":
			installed(t, text)
		case language == "sh":
			steps = append(steps, step{command: text})
		case language == "go" && more != "":
			steps = append(steps, step{command: "cat >" + more + " <<'end of file'\n" + text + "end of file\n"})
		case language == "console":
			for _, one := range strings.Split("\n"+text, "\n$ ")[1:] {
				command, shown, _ := strings.Cut(one, "\n")
				steps = append(steps, step{command + "\n", shown + "\n"})
			}
		}
	})
	return steps
}

// installed wants packages of a page in the Makefile, too.
func installed(t *testing.T, text string) {
	t.Helper()
	makefile, err := os.ReadFile(root + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^apt-get install -y (?:-t \S+ )?(.*)`).FindAllStringSubmatch(text, -1)
	for _, line := range all {
		for _, name := range strings.Fields(line[1]) {
			if !regexp.MustCompile(`[\s=]` + regexp.QuoteMeta(name) + `\s`).Match(makefile) {
				t.Errorf("the page installs %s, make peers does not", name)
			}
		}
	}
	if all == nil {
		t.Errorf("what does it install? %s", text)
	}
}

// script is the steps for a shell, with a line before the output of each.
func script(steps []step) string {
	var b strings.Builder
	for i, s := range steps {
		strict := "-e"
		if s.shown != "" {
			strict = "+e"
		}
		fmt.Fprintf(&b, "printf '\\n@@%d\\n'; set %s\n%s", i, strict, s.command)
	}
	return b.String() + "printf '\\n@@end\\n'\n"
}

// peers are what a page needs beside what all do.
var peers = map[string][]string{"ids.md": {"suricata", "curl", "python3"}, "strongswan.md": {"swanctl", "/usr/lib/ipsec/charon"}}

// TestTutorials: who follows a tutorial on a fresh machine sees what it says.
func TestTutorials(t *testing.T) {
	rig.Require(t)
	testkit.Programs(t, "unshare", "bash", "ip", "ping", "tcpdump")
	pages, err := filepath.Glob(root + "/docs/tutorials/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatal(pages, err)
	}
	for _, path := range pages {
		name := filepath.Base(path)
		t.Run(strings.TrimSuffix(name, ".md"), func(t *testing.T) {
			testkit.Programs(t, peers[name]...)
			steps := lesson(t, read(t, "docs/tutorials/"+name))
			judge(t, steps, follow(t, script(steps)))
		})
	}
}

// machine is namespaces of their own, which end with the shell and all that it started.
const machine = `mount -t tmpfs run /run && mkdir /run/netns && mount -t sysfs sysfs /sys && ip link set lo up && exec bash "$0"`

// follow has a shell follow a page in the repository's folder, and returns all that is said.
func follow(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("timeout", "300", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", machine, file)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), "HOME="+t.TempDir(), "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	said, err := cmd.CombinedOutput()
	if err != nil || !bytes.HasSuffix(said, []byte("@@end\n")) {
		t.Fatalf("%v\n%s", err, said)
	}
	return string(said)
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	value, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(value))
}

// judge holds what was said against what the page shows.
func judge(t *testing.T, steps []step, said string) {
	t.Helper()
	parts := regexp.MustCompile(`(?m)\n?^@@(\d+|end)\n`).Split(said, -1)[1:]
	for i, s := range steps {
		if s.shown != "" && !pattern(s.shown).MatchString(strings.TrimRight(parts[i], "\n")) {
			t.Errorf("$ %sprints\n%s\nand the page shows\n%s", s.command, parts[i], s.shown)
		}
	}
}

// pattern is what a page shows, where "..." is anything. Empty lines at either end are not
// looked at.
func pattern(shown string) *regexp.Regexp {
	var lines []string
	for line := range strings.SplitSeq(strings.Trim(shown, "\n"), "\n") {
		if line == "..." {
			lines = append(lines, `(?s:.*)`)
			continue
		}
		parts := strings.Split(line, "...")
		for i, part := range parts {
			parts[i] = regexp.QuoteMeta(part)
		}
		lines = append(lines, strings.Join(parts, ".*")+" *")
	}
	return regexp.MustCompile("^\n*" + strings.Join(lines, "\n") + "\n*$")
}

// The convention itself: what varies may, and nothing else.
func TestPattern(t *testing.T) {
	for shown, fits := range map[string][2][]string{
		"a\n...\nb ... d\n": {{"a\n\nb c d\n", "a\nx\ny\nb  d\n"}, {"a\nb c\n", "b c d\n", "a\nb c d\ne\n"}},
		"a\n":               {{"a\n"}, {"a\nb\n", "", "b\na\n"}},
	} {
		for i, want := range []bool{true, false} {
			for _, text := range fits[i] {
				if pattern(shown).MatchString(text) != want {
					t.Errorf("%s as %s: want %s", strconv.Quote(text), strconv.Quote(shown), strconv.FormatBool(want))
				}
			}
		}
	}
}
