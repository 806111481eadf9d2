package test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/test/program"
)

func decode(t *testing.T, text []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// startTransport starts `tapsec transport` and waits until frames flow.
func startTransport(t *testing.T, config string, flags ...string) *process {
	t.Helper()
	p := launchProgram(t, program.Command(append([]string{"transport", "-c", config}, flags...)...))
	p.waitLog("msg=ready")
	return p
}

// asker asks a running appliance by the program's own commands.
type asker struct {
	t      *testing.T
	socket string
	said   bytes.Buffer // all that it said
}

// ask runs a command and returns what it says, on both outputs.
func (a *asker) ask(exit int, stdin string, args ...string) string {
	a.t.Helper()
	cmd := program.Command(append(args, "--control", a.socket)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	text := stdout.String() + stderr.String()
	a.said.WriteString(text)
	code, failed := 0, (*exec.ExitError)(nil)
	if errors.As(err, &failed) {
		code = failed.ExitCode()
	}
	if code != exit {
		a.t.Errorf("tapsec %s: exit code %d, expected %d\n%s", strings.Join(args, " "), code, exit, text)
	}
	asJSON := slices.Contains(args, "--json")
	if values, err := jsonValues(stdout.Bytes()); asJSON && (err != nil || values == 0 && exit == 0) {
		a.t.Errorf("tapsec %s: %v, and %d values of JSON before it:\n%s", strings.Join(args, " "), err, values, stdout.Bytes())
	}
	for line := range strings.Lines(stdout.String()) {
		if len(strings.TrimRight(line, "\n")) > 80 && !asJSON {
			a.t.Errorf("tapsec %s: a line of more than 80 columns:\n%s", strings.Join(args, " "), line)
		}
	}
	return text
}

// jsonValues counts the values of JSON in a text, which has nothing else.
func jsonValues(text []byte) (n int, err error) {
	for d := json.NewDecoder(bytes.NewReader(text)); ; n++ {
		var v any
		if err := d.Decode(&v); err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

const (
	cliKey   = "c0ffee0123456789abcdef5eedf00d99a1a2a3a4"
	cliEntry = `{name: a name that is much longer than its column, spi: 0x1001, dst: "2001:db8:0:1234:5678:9abc:def0:1234",
 protocol: esp, mode: transport, suite: aes128gcm16, encryption_key: 0x` + cliKey + `}`
	cliXFRM = `src 192.0.2.1 dst 192.0.2.2
	proto esp spi 0x00002001 reqid 1 mode tunnel
	replay-window 32
	aead rfc4106(gcm(aes)) 0x` + cliKey + ` 128
`
)

// TestCommands: the commands ask a running appliance, each failure has an exit code
// of its own, and no key is ever said but into a file of its owner's alone.
func TestCommands(t *testing.T) {
	rig.Require(t)
	a := &asker{t: t, socket: filepath.Join(sockets(t), "nic")}
	file := write(t, "profile: mlx5-crypto\nsa_capacity: 2\n")
	p := start(t, file, "--control", a.socket)
	a.ask(0, cliEntry, "sa", "add", "-")
	a.ask(7, cliEntry, "sa", "add", "-")
	a.ask(8, strings.NewReplacer("0x1001", "0x1002", "longer", "shorter", "aes128gcm16", "aes128gcm8").Replace(cliEntry), "sa", "add", "-")
	a.ask(2, strings.Replace(cliEntry, "esp", "tcp", 1), "sa", "add", "-")
	a.ask(0, cliXFRM, "sa", "import", "-")
	if text := a.ask(0, cliXFRM, "sa", "import", "-"); !strings.HasPrefix(text, "no SA was missing\n") {
		t.Errorf("an import without a new SA says %q", text)
	}
	a.ask(0, cliXFRM, "sa", "import", "-", "--json")
	a.ask(5, strings.NewReplacer("0x1001", "0x1003", "longer", "wider").Replace(cliEntry), "sa", "add", "-")
	if text := a.ask(0, "", "sa", "list"); strings.Count(text, "\n") != 3 || !strings.Contains(text, "esp-00002001") {
		t.Errorf("two SAs are listed as\n%s", text)
	}
	a.ask(6, "", "sa", "show", "nobody")
	a.ask(0, "", "sa", "show", "esp-00002001")
	a.ask(0, "", "sa", "show", "esp-00002001", "--json")
	a.ask(0, "", "sa", "update", "esp-00002001", "--high", "7")
	a.ask(2, "", "sa", "update", "esp-00002001")
	a.ask(0, "", "capabilities")
	a.ask(0, "", "offload", "off", "esp")
	if text := a.ask(0, "", "capabilities", "--json"); !strings.Contains(text, `"esp": false`) {
		t.Errorf("esp was switched off:\n%s", text)
	}
	a.ask(2, "", "offload", "maybe")
	a.ask(0, "", "counters")
	a.ask(0, "", "counters", "--sa", "esp-00002001", "--json")
	a.ask(0, "", "sa", "list", "--json")
	a.ask(0, "", "events", "--json")
	a.ask(6, "", "counters", "--sa", "nobody")
	a.ask(0, "", "sa", "export")
	a.ask(2, "", "sa", "export", "--with-keys") // no terminal
	saved := filepath.Join(t.TempDir(), "saved.json")
	a.ask(0, "", "sa", "export", "--save", saved)
	a.ask(2, "", "sa", "export", "--save", saved)
	p.savedRule(a, file, saved)
	for name, form := range map[string]string{"hexadecimal": cliKey[:16], "base64": base64.StdEncoding.EncodeToString(raw(t))[:16], "bytes": string(raw(t)[:8])} {
		if strings.Contains(strings.ToLower(a.said.String()+p.logged()), form) {
			t.Errorf("a key is shown, in %s", name)
		}
	}
}

func raw(t *testing.T) []byte {
	b, err := hex.DecodeString(cliKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// savedRule: what was added survives a reload, and what was exported is a
// configuration.
func (p *process) savedRule(a *asker, file, saved string) {
	t := p.t
	if info, err := os.Stat(saved); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	text, err := os.ReadFile(saved)
	if err != nil || !strings.Contains(string(text), cliKey) {
		t.Errorf("the file has no key: %v", err)
	}
	rewrite(t, file, "profile: mlx5-crypto\nsa_capacity: 2\nsas: []\n")
	p.signal(unix.SIGHUP)
	a.said.WriteString(p.waitLog("msg=reloaded"))
	if text := a.ask(0, "", "sa", "list"); strings.Count(text, " socket\n") != 2 {
		t.Errorf("after a reload:\n%s", text)
	}
	a.ask(0, "", "sa", "delete", "esp-00002001")
	a.ask(6, "", "sa", "delete", "esp-00002001")
	a.ask(0, "", "sa", "flush")
	a.ask(0, string(text), "sa", "add", "-")
	if text := a.ask(0, "", "sa", "list", "--json"); strings.Count(text, `"offloaded": true`) != 2 {
		t.Errorf("what was saved is taken as\n%s", text)
	}
}

// Another user is refused, also where the socket's mode would let them in.
func TestControlPeer(t *testing.T) {
	rig.Require(t)
	if os.Getuid() != 0 {
		rig.Missing(t, "needs root to be somebody else")
	}
	dir := sockets(t)
	socket := filepath.Join(dir, "nic")
	start(t, write(t, "{}\n"), "--control", socket)
	for _, path := range []string{dir, socket} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for uid, want := range map[uint32]string{0: "200", 65533: "403"} {
		cmd := exec.Command("curl", "-sS", "--unix-socket", socket, "-w", "%{http_code}", "http://tapsec/sas")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		text, err := cmd.CombinedOutput()
		if err != nil || !strings.HasSuffix(string(text), want) {
			t.Errorf("user %d: %s, %v", uid, text, err)
		}
	}
}
