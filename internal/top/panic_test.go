package top

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tapsec/control"
	"tapsec/internal/lab/rig"
)

const panicVar = "TOP_TEST_PANIC"

// broken is a context that panics where Run asks it, after the terminal was taken.
type broken struct{ context.Context }

func (broken) Done() <-chan struct{} { panic("a mistake of ours") }

// After a panic the terminal, which is tmux's, is as it was, and shows why. The test runs
// itself in it.
func TestPanic(t *testing.T) {
	if os.Getenv(panicVar) != "" {
		t.Log(Run(broken{context.Background()}, new(control.Client), "", true))
		return
	}
	if _, err := exec.LookPath("tmux"); err != nil {
		rig.Missing(t, "tmux")
	}
	dir, err := os.MkdirTemp("", "top")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	tmux := func(args ...string) string {
		t.Helper()
		text, err := exec.Command("tmux", append([]string{"-S", filepath.Join(dir, "tmux")}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %q: %v\n%s", args, err, text)
		}
		return string(text)
	}
	tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "50",
		panicVar+"=1 "+os.Args[0]+" -test.run=^TestPanic$ -test.v 2>&1; echo ended $?; stty -a; exec sleep 1000")
	defer tmux("kill-server")
	screen := ""
	for deadline := time.Now().Add(time.Minute); !strings.Contains(screen, "echoke"); time.Sleep(10 * time.Millisecond) {
		if screen = tmux("capture-pane", "-p"); time.Now().After(deadline) {
			t.Fatalf("no end:\n%s", screen)
		}
	}
	mode := tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}")
	if mode != "0 1\n" || !strings.Contains(screen, "a mistake of ours") || !strings.Contains(screen, "ended 2") || strings.Contains(screen, "-icanon") {
		t.Errorf("mode %s\n%s", mode, fmt.Sprint(screen))
	}
}
