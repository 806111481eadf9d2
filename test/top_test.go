package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/test/program"
)

// terminal is a real one, tmux's, in which a command runs in a shell.
type terminal struct {
	t      *testing.T
	server string // its socket
}

// openTerminal runs a command in a terminal of that size, and then says how it ended and
// how the terminal is.
func openTerminal(t *testing.T, width, height int, command string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		rig.Missing(t, "tmux")
	}
	x := &terminal{t, filepath.Join(sockets(t), "tmux")}
	x.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height),
		command+`; echo "ended $?"; stty -a; exec sleep 1000`)
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", x.server, "kill-server").Run() })
	return x
}

func (x *terminal) tmux(args ...string) string {
	x.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-S", x.server}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	text, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %q: %v\n%s", args, err, text)
	}
	return string(text)
}

func (x *terminal) keys(keys ...string) { x.tmux(append([]string{"send-keys"}, keys...)...) }

// screen is what is to be seen, with escape sequences where they are wanted.
func (x *terminal) screen(more ...string) string {
	return x.tmux(append([]string{"capture-pane", "-p"}, more...)...)
}

// await waits until the screen matches, and returns it.
func (x *terminal) await(pattern string) (screen string) {
	x.t.Helper()
	defer func() {
		if x.t.Failed() {
			x.t.Logf("expected %s on the screen:\n%s", pattern, screen)
		}
	}()
	program.Await(x.t, "the screen", func() bool {
		screen = x.screen()
		return regexp.MustCompile(pattern).MatchString(screen)
	})
	return screen
}

// restored waits until the command has ended and compares the terminal with a fresh one.
func (x *terminal) restored(code int) {
	x.t.Helper()
	screen := x.await(fmt.Sprintf(`(?s)ended %d\n.* echoke`, code))
	if mode := x.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag} #{keypad_flag}"); mode != "0 1 0\n" {
		x.t.Errorf("alternate screen, cursor, keypad: %s", mode)
	}
	for _, setting := range []string{"icanon", "echo", "isig", "icrnl", "opost"} {
		if !regexp.MustCompile(`[ \n]` + setting + `\b`).MatchString(screen) {
			x.t.Errorf("the terminal has lost %s:\n%s", setting, screen)
		}
	}
}

// command is the process that runs in the terminal's shell.
func (x *terminal) command() (pid int) {
	x.t.Helper()
	shell := strings.TrimSpace(x.tmux("display-message", "-p", "#{pane_pid}"))
	program.Await(x.t, "the command", func() bool {
		text, _ := os.ReadFile("/proc/" + shell + "/task/" + shell + "/children")
		n, _ := fmt.Sscan(string(text), &pid)
		return n == 1
	})
	return pid
}

// TestTop watches a running appliance with traffic in a terminal.
func TestTop(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "nic")
	p := start(t, write(t, ourServer), "--wire", "top0", "--transport", "tops0", "--control", socket)
	wire, s := listen(t, "top0"), sealer(t, sasOf(t, moreSAs)["web"])
	traffic := func() {
		for n := range uint64(20) {
			wire.send(framed(sealed(t, s, plain(server, n, 100))))
		}
		wire.send(spoiled(framed(sealed(t, s, plain(server, 0, 100)))))
	}
	awaitBusy := func(x *terminal, pattern string, more ...string) {
		t.Helper()
		program.Await(t, "traffic on the screen: "+pattern, func() bool {
			traffic()
			return regexp.MustCompile(pattern).MatchString(x.screen(more...))
		})
	}
	command := program.Path + " top --control " + socket
	x := openTerminal(t, 80, 24, command)
	awaitBusy(x, `(?m)^> web +yes +[1-9]\d* +[1-9][\d.]* +\d+ +\d+ +\d+ +64 +\d+$`)
	screen := x.await(`(?m)^to host +[\d.k]+ frames/s .* lost`)
	for _, want := range []string{"tapsec at ", "offload on, ", "event    ", "SA               NIC PACKETS/S FAILED/S  FAILED  DROPPED REPLAYS WINDOW   GAPS", "up, down: choose an SA   e: explain   q: quit"} {
		if !strings.Contains(screen, want) {
			t.Errorf("no %q in\n%s", want, screen)
		}
	}
	awaitBusy(x, `TRANSPORT_ESP_AUTH_FAILED [\d.]+/s`)
	awaitBusy(x, `\x1b\[[\d;]*(31|91|38;5;9|38;5;1)m?[\d;]*m?`, "-e") // red
	x.keys("e")
	x.await(`an ICV is wrong`)
	x.tmux("resize-window", "-x", "40", "-y", "10")
	x.await(`(?s)SA web.*scroll`)
	x.keys("e")
	x.tmux("resize-window", "-x", "120", "-y", "40")
	awaitBusy(x, `(?m)^> web {40,}yes`)
	x.keys("Down")
	x.await(`(?m)^  web (?s:.*)^> `)
	x.keys("q")
	x.restored(0)

	x = openTerminal(t, 80, 24, "NO_COLOR= "+command+" --color never")
	awaitBusy(x, `> web `)
	if colors := x.screen("-e"); regexp.MustCompile(`\x1b\[[\d;]*([349][0-7]|38|48)[;m]`).MatchString(colors) {
		t.Errorf("no color was asked for:\n%q", colors)
	}
	if err := syscall.Kill(x.command(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	x.restored(0)

	x = openTerminal(t, 80, 24, command)
	x.await(`> `)
	p.stop() // and it goes on asking
	x.await(`no answer, asking again: control socket`)
	x.keys("C-c")
	x.restored(0)
}

// TestTopRefuses: top wants a terminal.
func TestTopRefuses(t *testing.T) {
	rig.Require(t)
	a := &asker{t: t, socket: filepath.Join(sockets(t), "nic")}
	start(t, write(t, "{}\n"), "--wire", "top1", "--host", "toph1", "--control", a.socket)
	if said := a.ask(2, "", "top"); !strings.Contains(said, "needs a terminal") {
		t.Error(said)
	}
	x := openTerminal(t, 80, 24, "TERM= "+program.Path+" top --control "+a.socket+"; true")
	x.await(`ended|q: quit`) // with an answer, or a view all the same
}
