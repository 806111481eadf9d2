package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/control"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
	"tapsec/test/program"
)

// needles are pieces of keys, in every form in which they might be shown, by their
// first eight bytes.
type needles map[[8]byte][]needle

type needle struct{ text, of string }

const piece = 9 // bytes of a key in a row, which is shown if they are

// needlesOf are those of keys, by name.
func needlesOf(keys map[string][]byte) needles {
	all := needles{}
	for name, key := range keys {
		all.learn(name, key)
	}
	return all
}

// learn adds those of one more key.
func (n needles) learn(name string, key []byte) {
	for at := 0; at+piece <= len(key); at++ {
		part := key[at : at+piece]
		n.add(string(part), name+" in bytes")
		n.add(hex.EncodeToString(part), name+" in hexadecimal")
		n.add(strings.Trim(fmt.Sprint(part), "[]"), name+" in decimal")
		for shift := range 3 {
			for _, form := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				text := form.EncodeToString(slices.Concat(make([]byte, shift), part))
				first, last := (shift*8+5)/6, (shift+piece)*8/6 // characters that other bytes have no part in
				n.add(text[first:last], name+" in base64")
			}
		}
	}
}

func (n needles) add(text, of string) {
	start := [8]byte([]byte(text))
	n[start] = append(n[start], needle{text, of})
}

var (
	oneDigit   = regexp.MustCompile(`(?i)0x([0-9a-f])([^0-9a-f]|$)`) // as %#v has a byte below 16
	notation   = regexp.MustCompile(`(?i)0x|\\x|\\n|[^0-9a-z+/_-]`)
	separators = regexp.MustCompile(`[+/_-]`)
)

// in names what of the keys stands in a text: as it is, and as digits of either case
// whatever stands between them.
func (n needles) in(text []byte) (found []string) {
	plain := notation.ReplaceAll(oneDigit.ReplaceAll(text, []byte("0x0$1$2")), nil)
	digits := bytes.ToLower(separators.ReplaceAll(plain, nil))
	for _, form := range [][]byte{text, plain, digits} {
		for at := 0; at+8 <= len(form); at++ {
			for _, one := range n[[8]byte(form[at:])] {
				if bytes.HasPrefix(form[at:], []byte(one.text)) && !slices.Contains(found, one.of) {
					found = append(found, one.of)
				}
			}
		}
	}
	return found
}

// TestNeedles: a key is found in each form that the test of all output looks for.
func TestNeedles(t *testing.T) {
	key := make([]byte, 20)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	n := needlesOf(map[string][]byte{"key": key})
	digits := hex.EncodeToString(key)
	for _, text := range []string{
		string(key), string(key[3:16]), "x" + digits + "y", strings.ToUpper(digits), fmt.Sprintf("% x", key), fmt.Sprintf("% #X", key),
		strings.ReplaceAll(fmt.Sprintf("% x", key), " ", ":"), strings.ReplaceAll(fmt.Sprintf("% x", key), " ", "-"),
		fmt.Sprintf("%#v", key), fmt.Sprint(key), fmt.Sprintf("%x_%x", key[:4], key[4:]), digits[:32] + "\n" + digits[32:],
		base64.StdEncoding.EncodeToString(key), base64.StdEncoding.EncodeToString(append([]byte("a"), key...)),
		base64.URLEncoding.EncodeToString(append([]byte("ab"), key...)), base64.StdEncoding.EncodeToString(key)[:9] + "\n" + base64.StdEncoding.EncodeToString(key)[9:],
	} {
		if len(n.in([]byte("before "+text+" after"))) == 0 {
			t.Errorf("the key is not found in %q", text)
		}
	}
	other := make([]byte, 1<<20)
	if _, err := rand.Read(other); err != nil || len(n.in(other)) > 0 {
		t.Errorf("%v in random bytes, %v", n.in(other), err)
	}
}

// said is all that a program and its tools have said and written, by what said it.
type said struct {
	t *testing.T
	needles
	texts int
	shown map[string][]string // what shows which keys
}

// hear looks through a text.
func (s *said) hear(who string, text []byte) {
	s.texts++
	if found := s.in(text); len(found) > 0 {
		s.shown[who] = found
	}
}

// tool runs tapsec, whatever the exit code, and hears it on both outputs.
func (s *said) tool(stdin string, args ...string) {
	s.t.Helper()
	cmd := program.Command(args...)
	cmd.Stdin = strings.NewReader(stdin)
	var text bytes.Buffer
	cmd.Stderr = &text
	if args[0] != "keys" { // they are what it prints
		cmd.Stdout = &text
	}
	if err := cmd.Run(); text.Len() == 0 && err != nil {
		s.t.Errorf("tapsec %s: %v, and nothing said", strings.Join(args, " "), err)
	}
	s.hear("tapsec "+strings.Join(args, " "), text.Bytes())
}

func (s *said) file(path string) {
	s.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Error(err)
	}
	s.hear(filepath.Base(path), text)
}

// secret is a configuration with fresh keys, and these.
func secret(t *testing.T) (text string, keys map[string][]byte) {
	t.Helper()
	keys = map[string][]byte{"site": make([]byte, 20), "web": make([]byte, 36), "ah": make([]byte, 32), "cbc": make([]byte, 32),
		"cbc-integrity": make([]byte, 32), "more": make([]byte, 20)}
	for _, key := range keys {
		if _, err := rand.Read(key); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf(`local: [192.0.2.2, 198.51.100.10]
sas:
  - {name: site, spi: 0xc001, src: 192.0.2.1, dst: 192.0.2.2, protocol: esp, mode: tunnel, suite: aes128gcm16, encryption_key: 0x%x}
  - {name: web, spi: 0xc002, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes256gcm16, esn: true, encryption_key: 0x%x}
  - {name: ah, spi: 0xc003, dst: 198.51.100.10, protocol: ah, mode: transport, suite: sha256, integrity_key: 0x%x, bundle: cbc}
  - {name: cbc, spi: 0xc004, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes256-sha256, encryption_key: 0x%x, integrity_key: 0x%x}
`, keys["site"], keys["web"], keys["ah"], keys["cbc"], keys["cbc-integrity"]), keys
}

// TestNoKeyAnywhere: whatever a full run says and writes shows no key, but for the
// files that are asked for by --with-keys, --save and keys; there each one is found.
func TestNoKeyAnywhere(t *testing.T) {
	rig.Require(t)
	text, keys := secret(t)
	s := &said{t: t, needles: needlesOf(keys), shown: map[string][]string{}}
	dir := t.TempDir()
	config, capture := write(t, text), filepath.Join(dir, "in.pcap")
	for _, format := range []string{"text", "json"} {
		s.serve(config, text, format, capture, fmt.Sprintf("%x", keys["more"]))
	}
	more := fmt.Sprintf("%x", keys["more"])
	s.apart(config, text, dir, more)
	s.rigged(config, more)
	s.offline(config, text, dir, capture)
	for who, found := range s.shown {
		t.Errorf("%s shows %v", who, found)
	}
	if s.texts < 100 {
		t.Errorf("only %d texts were looked through", s.texts)
	}
	clear(s.shown)
	s.file(filepath.Join(dir, "with-keys.pcapng"))
	s.file(filepath.Join(dir, "other.xfrm"))
	s.file(filepath.Join(filepath.Dir(config), "saved-json"))
	if len(s.shown["with-keys.pcapng"]) < 5 || len(s.shown["other.xfrm"]) < 5 || len(s.shown["saved-json"]) != 6 {
		t.Errorf("where all keys are asked for there are %v", s.shown)
	}
}

// serve runs the appliance with all that it can be asked, under traffic of each kind.
func (s *said) serve(config, text, format, capture, more string) {
	t, dir := s.t, sockets(s.t)
	socket, state := filepath.Join(dir, "nic"), filepath.Join(filepath.Dir(config), "state-"+format)
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	p := launch(t, config, "--transport", "stack0", "--control", socket, "--metrics", "127.0.0.1:0", "--state", state, "--log-format", format, "--log-level", "debug")
	program.Await(t, "frames flow", func() bool { return strings.Contains(p.logged(), "ready") })
	at := regexp.MustCompile(`http://[0-9.:]+/metrics`).FindString(p.logged())
	followed := s.follow(socket)
	s.traffic(text, capture)
	s.commands(config, socket, format, more)
	s.documents(socket, more)
	s.hear("metrics "+format, fetch(t, at))
	for _, broken := range []string{strings.Replace(text, "0x", "0y", -1), text} {
		rewrite(t, config, broken)
		p.signal(unix.SIGHUP)
	}
	program.Await(t, "both reloads", func() bool { return strings.Contains(p.logged(), "reloaded") })
	if gcore, err := exec.LookPath("gcore"); err == nil {
		core := filepath.Join(t.TempDir(), "core")
		_ = exec.Command(gcore, "-o", core, fmt.Sprint(p.cmd.Process.Pid)).Run() // TestNoKeyInCore knows whether it may
		for files, _ := filepath.Glob(core + "*"); len(files) > 0; files = files[1:] {
			s.file(files[0])
		}
	}
	if format == "text" {
		s.hear("summary", []byte(p.stop()))
	} else {
		p.signal(unix.SIGQUIT) // Go tells where each goroutine stands
		<-p.exited
		if !strings.Contains(p.logged(), "goroutine ") {
			t.Errorf("no crash dump:\n%s", program.Tail(p.logged(), 20))
		}
	}
	s.followed(followed)
	s.hear("log in "+format, []byte(p.logged()))
	s.file(state)
}

// traffic sends good frames, wrong ones, replays and strangers, and writes them down.
func (s *said) traffic(text, capture string) {
	t, sas := s.t, sasOf(s.t, text)
	wire, stack := listen(t, "wire0"), listen(t, "stack0")
	defer wire.Close()
	defer stack.Close()
	stranger := *sas["site"]
	stranger.SPI = 0xdddd
	file := bytes.NewBuffer(binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4))
	for _, v := range []any{[2]uint16{2, 4}, [4]uint32{0, 0, 65535, 1}} {
		_ = binary.Write(file, binary.LittleEndian, v)
	}
	send := func(frame []byte) {
		wire.send(frame)
		_ = binary.Write(file, binary.LittleEndian, [4]uint32{1, 0, uint32(len(frame)), uint32(len(frame))})
		file.Write(frame)
	}
	for round, one := range []struct {
		to  string
		via []string
	}{{"192.0.2.2:9", []string{"site"}}, {server, []string{"web"}}, {server, []string{"cbc", "ah"}}, {server, []string{"web", "site"}}} {
		send(framed(sealed(t, sealer(t, &stranger), plain(interior, 1, 50))))
		var bundle []*sa.SA
		for _, name := range one.via {
			bundle = append(bundle, sas[name])
		}
		s := sealer(t, bundle...)
		for layer := range bundle {
			s.SetNumber(layer, uint64(10*round+1))
		}
		send(framed(spoiled(sealed(t, s, plain(one.to, 2, 50)))))
		good := framed(sealed(t, s, plain(one.to, 3, 50)))
		send(good)
		stack.next()
		send(good) // a replay
	}
	if err := os.WriteFile(capture, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// commands asks by the program's own.
func (s *said) commands(config, socket, format, more string) {
	entry := `{name: more, spi: 0x1001, dst: 192.0.2.9, protocol: esp, mode: transport, suite: aes128gcm16, encryption_key: 0x` + more + `}`
	at := []string{"--control", socket}
	for _, in := range []string{entry, entry, // which is there by then
		strings.Replace(entry, "0x1001", "0x"+more, 1), strings.Replace(entry, "name: more", "name: 0x"+more, 1),
		strings.Replace(entry, "aes128gcm16", more, 1), strings.Replace(entry, "dst: 192.0.2.9", "dst: "+more, 1),
		strings.Replace(entry, "0x"+more, "0x"+more[:30], 1), strings.Replace(entry, "encryption_key", "encription_key", 1), entry[:len(entry)-9]} {
		s.tool(in, append([]string{"sa", "add", "-"}, at...)...)
	}
	s.tool("src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x2001 mode tunnel\n\taead rfc4106(gcm(aes)) 0x"+more[:38]+" 128\n", append([]string{"sa", "import", "-"}, at...)...)
	for _, args := range []string{"sa list", "sa list --json", "sa show more", "sa show more --json", "sa show web --json", "sa update web --high 1",
		"sa export", "sa export --with-keys", "sa delete nobody", "sa delete " + more, "capabilities", "capabilities --json", "counters", "counters --json",
		"counters --sa web", "events", "events --json", "offload on", "offload " + more} {
		s.tool("", append(strings.Fields(args), at...)...)
	}
	s.tool("", append([]string{"sa", "export", "--save", filepath.Join(filepath.Dir(config), "saved-"+format)}, at...)...)
}

// documents asks each path of the socket, and some that are wrong.
func (s *said) documents(socket, more string) {
	dial := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	ask := func(method, path, body string) {
		request, err := http.NewRequest(method, "http://tapsec/"+path, strings.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		answer, err := dial.RoundTrip(request)
		if err != nil {
			s.t.Errorf("%s /%s: %v", method, path, err)
			return
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			s.t.Error(err)
		}
		s.hear(method+" /"+path, text)
	}
	client, err := control.Dial(socket)
	if err != nil {
		s.t.Fatal(err)
	}
	var index control.Index
	if err := client.Get("", &index); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range append(index.Documents, "", "openapi.yaml", "events?last=1000", "events/"+more, "export?keys=false", "export?keys=maybe", "sas/web", "counters?sa=web") {
		switch name {
		case "events/stream", "capture", "trace": // have no end; follow reads the first, TestCaptureRows the others
		default:
			ask(http.MethodGet, name, "")
		}
	}
	for _, name := range index.Actions {
		for _, body := range []string{more, `{"name": "` + more + `"}`, `{"sas": "` + more + `"}`, `{"` + more + `": 1}`, `{"sas": [{"name": "x", "spi": "` + more + `"}]}`} {
			if name != "flush" {
				ask(http.MethodPost, name, body)
			}
		}
	}
}

// offline judges the capture, and files that are spoiled in many ways.
func (s *said) offline(config, text, dir, capture string) {
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, args := range [][]string{
		{"validate", config}, {"validate", "--json", config}, {"replay", "-c", config, capture}, {"replay", "-c", config, "--json", capture},
		{"replay", "-c", config, "--summary-only", capture}, {"replay", "-c", config, "--summary-only", "--json", capture},
		{"replay", "-c", config, capture, "-o", in("verdicts.pcapng")}, {"replay", "-c", config, capture, "-o", in("decap.pcapng"), "--form", "decap"},
		{"replay", "-c", config, capture, "-o", in("with-keys.pcapng"), "--with-keys"}, {"replay", in("with-keys.pcapng"), "-o", in("without.pcapng")},
		{"replay", in("with-keys.pcapng"), "--json"}, {"replay", "-c", config, capture, "--expect", "all-good"},
		{"keys", "--to", "xfrm", config, "-o", in("other.xfrm")}, {"replay", "-k", in("other.xfrm"), capture},
	} {
		s.tool("", args...)
	}
	for _, name := range []string{"verdicts.pcapng", "decap.pcapng", "without.pcapng"} {
		s.file(in(name))
	}
	xfrm, err := os.ReadFile(in("other.xfrm"))
	if err != nil {
		s.t.Fatal(err)
	}
	for name, whole := range map[string]string{"validate": text, "keys": string(xfrm)} {
		for part := range 8 { // which ends in the middle of something
			broken := whole[:len(whole)*(2*part+3)/20] + "\x00"
			s.tool(broken, name, "-")
		}
	}
}
