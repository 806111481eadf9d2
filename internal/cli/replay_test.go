package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tapsec/capture"
	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/outbound"
	"tapsec/keys"
)

var update = flag.Bool("update", false, "write the captures and keys under testdata, and what the scripts expect")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tapsec": func() { os.Exit(Main()) }})
}

// TestScripts runs the scripts under testdata. Each finds testdata's captures
// and keys in its working directory.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition:           peer,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit": exitCommand, "nokeys": noKeys, "annotated": annotated, "cut": cut,
		},
	})
}

func setup(e *testscript.Env) error {
	copied := []error{os.CopyFS(e.WorkDir, os.DirFS("testdata"))}
	for name, from := range map[string]string{
		"xfrm.txt": kernelSAs, "layers.yaml": samples + "/layers.yaml", "layers.pcapng": samples + "/layers.pcapng",
	} {
		text, err := os.ReadFile(from)
		copied = append(copied, err, os.WriteFile(filepath.Join(e.WorkDir, name), text, 0o600))
	}
	return errors.Join(copied...)
}

// exitCommand runs a command that must end with an exit code: exit CODE COMMAND...
func exitCommand(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got, coded := 0, (*exec.ExitError)(nil)
	if err = ts.Exec(args[1], args[2:]...); errors.As(err, &coded) {
		got = coded.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// keyDigits are the keys of a file in any of the formats.
var keyDigits = regexp.MustCompile(`0x([0-9a-f]{16,})`)

// noKeys fails where the last command printed a key: nokeys FILE-WITH-KEYS...
func noKeys(ts *testscript.TestScript, _ bool, args []string) {
	said := strings.ToLower(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
	for _, file := range args {
		found := keyDigits.FindAllStringSubmatch(ts.ReadFile(file), -1)
		if len(found) == 0 {
			ts.Fatalf("%s holds no key", file)
		}
		for _, key := range found {
			if strings.Contains(said, key[1][:16]) {
				ts.Fatalf("a key of %s was printed", file)
			}
		}
	}
}

// annotated checks a file of delivered frames: as many as given, each with a
// comment, and a trailer or none: annotated FILE N trailer|none
func annotated(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	frames, comments := blocks([]byte(ts.ReadFile(args[0])))
	if len(frames) != want {
		ts.Fatalf("%s holds %d frames, want %d", args[0], len(frames), want)
	}
	for i, f := range frames {
		p := capture.Decode(f)
		if got := p.Layer(capture.LayerTypeTrailer) != nil; got != (args[2] == "trailer") {
			ts.Fatalf("frame %d: has a trailer: %v", i+1, got)
		}
		if comments[i] == "" {
			ts.Fatalf("frame %d has no comment", i+1)
		}
	}
}

// blocks reads frames and comments of a little-endian pcapng file
// (draft-ietf-opsawg-pcapng, sections 3.1 and 4.3).
func blocks(b []byte) (frames [][]byte, comments []string) {
	u32 := func(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 | int(b[3])<<24 }
	for ; len(b) >= 12; b = b[u32(b[4:]):] {
		if u32(b) != 6 {
			continue
		}
		n := u32(b[20:])
		options := b[28+(n+3)&^3 : u32(b[4:])-4]
		comment := ""
		if len(options) > 4 && u32(options)&0xffff == 1 {
			comment = string(options[4 : 4+u32(options)>>16])
		}
		frames, comments = append(frames, b[28:28+n]), append(comments, comment)
	}
	return frames, comments
}

// cut shortens a file by some bytes: cut FILE N
func cut(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text[:len(text)-n]), 0o600))
}

// peer is the condition [peer:COMMAND]. A peer that is missing though it is
// required fails the script.
func peer(condition string) (bool, error) {
	command, ok := strings.CutPrefix(condition, "peer:")
	if !ok {
		return false, fmt.Errorf("unknown condition %q", condition)
	}
	_, err := exec.LookPath(command)
	if err != nil && rig.PeersRequired() {
		return false, err
	}
	return err == nil, nil
}

// kernelSAs is what a real kernel printed of its SAs.
const kernelSAs = "../../keys/testdata/aead.txt"

// samples has the README's capture.
const samples = "../../configs"

// fixtures are the captures and keys under testdata and samples, by file name.
func fixtures(t *testing.T) map[string][]byte {
	files := map[string][]byte{"xfrm.pcap": pcap(underKernelSAs(t, file(t, kernelSAs)))}
	for _, l := range conformance.Contract() {
		switch l.Name {
		case "plain":
			files["plain.pcap"], files["plain.yaml"], files["plain.esp_sa"] = pcap(frames(l)), configuration(t, &l), table(t, &l)
		case "layers":
			files["layers.pcapng"], files["layers.yaml"] = pcapng(t, frames(l)), configuration(t, &l)
		}
	}
	return files
}

// The files under testdata are what the setups make today.
func TestFixtures(t *testing.T) {
	for name, want := range fixtures(t) {
		path := filepath.Join("testdata", name)
		if strings.HasPrefix(name, "layers.") {
			path = filepath.Join(samples, name)
		}
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(file(t, path), want) {
			t.Errorf("%s is not what the setups make; run this test with -update", path)
		}
	}
}

func file(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func frames(l conformance.Setup) (all [][]byte) {
	for _, c := range l.Cases {
		all = append(all, c.Frame)
	}
	return all
}

// underKernelSAs seals a packet for each SA that a kernel printed.
func underKernelSAs(t *testing.T, text []byte) (all [][]byte) {
	read, err := keys.Read(kernelSAs, text)
	if err != nil || len(read.Notes) > 0 {
		t.Fatal(read, err)
	}
	for i, s := range read.All {
		out, err := outbound.NewSealer(forge.Zeros{}, s)
		if err != nil {
			t.Fatal(err)
		}
		out.SetNumber(0, uint64(i+1))
		packet, err := out.Seal(nil, forge.UDP(nil, netip.AddrPortFrom(s.Src, 40000), netip.AddrPortFrom(s.Dst, 9), []byte("from host to host")))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, forge.AppendFrame(nil, packet))
	}
	return all
}

// began is the time of a capture's first frame; the others follow each a
// millisecond later.
var began = time.Date(2024, 1, 2, 3, 4, 5, 6000, time.UTC)

func at(i int) time.Time { return began.Add(time.Duration(i) * time.Millisecond) }

// pcap is a capture of Ethernet frames with timestamps in microseconds.
func pcap(frames [][]byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0)
	for i, f := range frames {
		b = le.AppendUint32(b, uint32(at(i).Unix()))
		b = le.AppendUint32(b, uint32(at(i).Nanosecond()/1000))
		b = le.AppendUint32(b, uint32(len(f)))
		b = append(le.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

func pcapng(t *testing.T, frames [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := capture.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Interface("wire0", "")
	for i, f := range frames {
		err = errors.Join(err, w.Frame(0, at(i), f, ""))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func table(t *testing.T, l *conformance.Setup) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := keys.WriteESPSA(&b, l.SAs()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// configuration is a setup's NIC as a file.
func configuration(t *testing.T, l *conformance.Setup) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := l.WriteConfig(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReplayLabs runs the contract's table through the command: a setup's SAs as
// a file, its frames as a capture.
func TestReplayLabs(t *testing.T) {
	for _, l := range conformance.Contract() {
		if len(l.Delete) > 0 {
			continue // a file cannot say that there was an SA
		}
		t.Run(l.Name, func(t *testing.T) { replayLab(t, &l) })
	}
}

func replayLab(t *testing.T, l *conformance.Setup) {
	dir := t.TempDir()
	config, in := filepath.Join(dir, "lab.yaml"), filepath.Join(dir, "lab.pcap")
	if err := errors.Join(os.WriteFile(config, configuration(t, l), 0o600), os.WriteFile(in, pcap(frames(*l)), 0o600)); err != nil {
		t.Fatal(err)
	}
	var out, rest bytes.Buffer
	cmd := newRoot()
	cmd.SetArgs([]string{"replay", "--json", "-c", config, in})
	cmd.SetOut(&out)
	cmd.SetErr(&rest)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(out.Bytes(), []byte("\n")), []byte("\n"))
	if len(lines) != len(l.Cases) {
		t.Fatalf("%d lines about %d frames", len(lines), len(l.Cases))
	}
	for i, c := range l.Cases {
		checkReport(t, i+1, lines[i], c)
	}
}

// checkReport compares one line with what the contract says of the frame, and
// its fields and their types with what is promised of --json.
func checkReport(t *testing.T, number int, line []byte, c conformance.Case) {
	t.Helper()
	var got struct {
		Frame          *int
		Word           *string
		CryptoDone     *bool   `json:"crypto_done"`
		NextCryptoDone *bool   `json:"next_crypto_done"`
		CryptoStatus   *string `json:"crypto_status"`
		Reason         *string
		Records        *[]struct {
			Portion, Protocol, SPI *string
			Seq                    *uint64
			SA, Result             *string
		}
	}
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if got.Frame == nil || got.Word == nil || got.CryptoDone == nil || got.NextCryptoDone == nil || got.CryptoStatus == nil || got.Reason == nil || got.Records == nil {
		t.Fatalf("row %s, %s: a field is missing: %s", c.Row, c.Title, line)
	}
	if *got.Frame != number || *got.Word != fmt.Sprintf("0x%s", c.Word) || *got.Reason != c.Reason.String() ||
		*got.CryptoDone != c.Word.Done() || *got.NextCryptoDone != c.Word.Next() || *got.CryptoStatus != c.Word.Code().String() {
		t.Errorf("row %s, %s: want word %s, reason %s: %s", c.Row, c.Title, c.Word, c.Reason, line)
	}
	for _, r := range *got.Records {
		if r.Portion == nil || r.Protocol == nil || r.SPI == nil || r.Seq == nil || r.SA == nil || r.Result == nil {
			t.Errorf("row %s, %s: a field of a record is missing: %s", c.Row, c.Title, line)
		}
	}
}
