// Package public runs tapsec over captures that nobody here has made: those in the
// source packages of tcpdump and Wireshark, which Debian's archive has. Their
// authors say what is in some of them, and tshark says it of all. Nothing of them
// stays here.
package public

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/test/interop"
	"tapsec/test/program"
)

func TestMain(m *testing.M) { program.Plain(m) }

// fetch gets the two source packages from where the machine's other packages come
// from, and unpacks what is needed of them.
func fetch(t *testing.T) (tcpdump, wireshark string) {
	t.Helper()
	interop.Require(t, "apt-get", "tar", "tshark", "sharkd")
	dir := t.TempDir()
	parts := filepath.Join(dir, "parts")
	for _, d := range []string{parts, filepath.Join(dir, "lists", "partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	archives, err := os.ReadFile("/etc/apt/sources.list.d/debian.sources")
	if err != nil {
		rig.Missing(t, "needs a Debian machine: "+err.Error())
	}
	sources := regexp.MustCompile(`(?m)^Types:.*`).ReplaceAll(archives, []byte("Types: deb-src"))
	if err := os.WriteFile(filepath.Join(parts, "src.sources"), sources, 0o644); err != nil {
		t.Fatal(err)
	}
	apt := func(args ...string) {
		cmd := exec.Command("apt-get", append([]string{"-q", "-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=" + parts,
			"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "APT::Sandbox::User=root"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	apt("update")
	apt("source", "--download-only", "tcpdump", "wireshark")
	return unpack(t, dir, "tcpdump_*.orig.tar.*", "*/tests"), unpack(t, dir, "wireshark_*.orig.tar.*", "*/test")
}

// unpack takes a folder out of an archive, and says where it is.
func unpack(t *testing.T, dir, archive, folder string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, archive))
	all = without(all, ".asc")
	if err != nil || len(all) != 1 {
		t.Fatalf("%s: %v, %v", archive, all, err)
	}
	if out, err := exec.Command("tar", "-x", "-C", dir, "-f", all[0], "--wildcards", folder+"/*").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", all[0], err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, strings.SplitN(archive, "_", 2)[0]+"-*", filepath.Base(folder)))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", folder, found, err)
	}
	return found[0]
}

func without(all []string, suffix string) (left []string) {
	for _, s := range all {
		if !strings.HasSuffix(s, suffix) {
			left = append(left, s)
		}
	}
	return left
}

// captures are all files of a folder that may be some, by name; those that are
// compressed are not any more.
func captures(t *testing.T, folder string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !regexp.MustCompile(`\.(p?cap|pcapng|ntar)(\.gz)?$`).MatchString(path) {
			return err
		}
		if plain, ok := strings.CutSuffix(path, ".gz"); ok {
			path = plain
			err = gunzip(plain)
		}
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func gunzip(path string) error {
	packed, err := os.Open(path + ".gz")
	if err != nil {
		return err
	}
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

// header is an SPI of a capture, and sent is what came with it.
type (
	header struct{ protocol, spi string }
	sent   struct{ frames, first, last uint64 }
)

// add counts a frame, or many.
func (s *sent) add(frames, first, last uint64) {
	if s.frames == 0 {
		s.first = first
	}
	s.frames += frames
	s.first, s.last = min(s.first, first), max(s.last, last)
}

// ours is what replay tells of a capture; ok is false where it says that it cannot
// be read.
func ours(t *testing.T, path string, keys ...string) (numbers map[header]sent, good int, ok bool) {
	t.Helper()
	var out, said bytes.Buffer
	cmd := exec.Command(program.Path, append([]string{"replay", "--summary-only", "--json", path}, keys...)...)
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 2 && regexp.MustCompile(`is not understood|link type|expected a pcap|found zeros`).Match(said.Bytes()) {
		return nil, 0, false
	}
	var summary struct {
		Good int `json:"good"`
		SAs  []struct {
			Protocol  string            `json:"protocol"`
			SPI       string            `json:"spi"`
			Good      uint64            `json:"good"`
			LeftAlone uint64            `json:"left_alone"`
			Failed    map[string]uint64 `json:"failed"`
			First     string            `json:"first_seq"`
			Last      string            `json:"last_seq"`
		} `json:"sas"`
	}
	if err := errors.Join(err, json.Unmarshal(out.Bytes(), &summary)); err != nil {
		t.Errorf("%s: %v\n%s", path, err, said.Bytes())
		return nil, 0, false
	}
	numbers = map[header]sent{}
	for _, s := range summary.SAs {
		frames := s.Good + s.LeftAlone
		for _, n := range s.Failed {
			frames += n
		}
		if frames > 0 {
			h := header{s.Protocol, s.SPI}
			n := numbers[h]
			n.add(frames, number(t, s.First), number(t, s.Last))
			numbers[h] = n
		}
	}
	return numbers, summary.Good, true
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// theirs is what sharkd, which is tshark as a server, tells of captures, in their order; of
// one that is broken on purpose it tells what it can. For each tshark would start anew,
// which takes longer than all that it reads.
func theirs(t *testing.T, paths []string) (all []map[header]sent) {
	t.Helper()
	var ask bytes.Buffer
	call := func(method string, params map[string]string) {
		if err := json.NewEncoder(&ask).Encode(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params}); err != nil {
			t.Fatal(err)
		}
	}
	call("setconf", map[string]string{"name": "ip.defragment", "value": "FALSE"})
	for _, path := range paths {
		call("load", map[string]string{"file": path})
		// Of each field the first in a frame. It would take a filter's frames of the capture before.
		call("frames", map[string]string{"column0": "ah.spi:1", "column1": "ah.sequence:1", "column2": "esp.spi:1", "column3": "esp.sequence:1"})
	}
	cmd := exec.Command("sharkd", "-")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.Stdin = &ask
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sharkd: %v", err)
	}
	answers := json.NewDecoder(bytes.NewReader(out))
	answer := func(result any) (ok bool) {
		var a struct{ Result, Error json.RawMessage }
		if err := answers.Decode(&a); err != nil {
			t.Fatalf("sharkd, at capture %d of %d: %v", len(all)+1, len(paths), err)
		}
		return a.Error == nil && json.Unmarshal(a.Result, result) == nil
	}
	if !answer(new(any)) {
		t.Fatal("sharkd does not know ip.defragment")
	}
	for range paths {
		var frames []struct{ C []string }
		numbers := map[header]sent{}
		loaded := answer(new(any)) // or it does not know the link type
		if answered := answer(&frames); loaded && !answered {
			t.Fatalf("sharkd: %s: no list of frames", paths[len(all)])
		}
		if !loaded {
			frames = nil
		}
		for _, f := range frames {
			h, seq := header{"ah", f.C[0]}, f.C[1]
			if h.spi == "" {
				h, seq = header{"esp", f.C[2]}, f.C[3]
			}
			if h.spi, _, _ = strings.Cut(h.spi, " "); h.spi != "" { // in decimal behind it
				n := numbers[h]
				n.add(1, number(t, seq), number(t, seq))
				numbers[h] = n
			}
		}
		all = append(all, numbers)
	}
	return all
}

// TestCaptures: replay reads every capture or says why not, and finds each AH and ESP
// header that tshark finds, with its numbers.
func TestCaptures(t *testing.T) {
	tcpdump, wireshark := fetch(t)
	none := filepath.Join(t.TempDir(), "none.yaml")
	if err := os.WriteFile(none, []byte("sas:\n  - {name: none, spi: 0xfffffff0, dst: 192.0.2.255, protocol: esp, mode: tunnel, suite: aes128gcm16, "+
		"encryption_key: 0x000102030405060708090a0b0c0d0e0f10111213}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	withIPsec := 0
	var read []string
	var found []map[header]sent
	all := append(captures(t, tcpdump), captures(t, filepath.Join(wireshark, "captures"))...)
	for _, path := range all {
		if numbers, _, ok := ours(t, path, "-c", none); ok {
			read, found = append(read, path), append(found, numbers)
		}
	}
	for some := range slices.Chunk(read, 40) { // of each capture sharkd keeps some megabytes
		for i, want := range theirs(t, some) {
			if len(want) > 0 {
				withIPsec++
			}
			if !maps.Equal(found[i], want) {
				t.Errorf("%s: found %v, sharkd %v", filepath.Base(some[i]), found[i], want)
			}
		}
		found = found[len(some):]
	}
	t.Logf("%d captures, %d read, %d with AH or ESP", len(all), len(read), withIPsec)
	if len(read) < 600 || withIPsec < 8 {
		t.Errorf("of %d captures %d were read, and %d had AH or ESP", len(all), len(read), withIPsec)
	}
	t.Run("authors of Wireshark", func(t *testing.T) { opened(t, wireshark) })
	t.Run("authors of tcpdump", func(t *testing.T) { printed(t, tcpdump, none) })
}

// opened: with the keys that Wireshark's authors give, all six frames are good.
func opened(t *testing.T, wireshark string) {
	found, good, ok := ours(t, filepath.Join(wireshark, "captures", "esp-bug-12671.pcapng"), "-k", filepath.Join(wireshark, "config", "esp_sa.tmpl"))
	if !ok || good != 6 || len(found) != 2 {
		t.Errorf("%d good, %v", good, found)
	}
	payloads(t, filepath.Join(wireshark, "captures", "esp-bug-12671.pcapng"), filepath.Join(wireshark, "config", "esp_sa.tmpl"))
}

// payloads: each byte that a frame carried is that which tshark finds with the same keys.
func payloads(t *testing.T, file, keys string) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out.pcapng")
	said, err := program.Command("replay", "--json", "--annotate", "none", "-o", out, "-k", keys, file).Output()
	text, e := os.ReadFile(keys)
	if err = errors.Join(err, e, os.WriteFile(filepath.Join(dir, "esp_sa"), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	tshark := exec.Command("tshark", "-n", "-r", file, "-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE",
		"-T", "fields", "-e", "esp.contained_data", "-e", "esp.icv_good")
	tshark.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+dir)
	theirs, err := tshark.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(theirs)), "\n")
	delivered := interop.Frames(t, out)
	for i, d := 0, json.NewDecoder(bytes.NewReader(said)); d.More(); i++ {
		var v struct {
			Records []struct {
				Offset int `json:"payload_offset"`
				Length int `json:"payload_length"`
			}
		}
		if err := d.Decode(&v); err != nil || len(v.Records) != 1 || i >= len(lines) || i >= len(delivered) {
			t.Fatalf("frame %d: %v, %v; tshark %q", i+1, v, err, lines)
		}
		r := v.Records[0]
		if want := fmt.Sprintf("%x\t1", delivered[i][r.Offset:r.Offset+r.Length]); lines[i] != want {
			t.Errorf("frame %d carries %s, for tshark %s", i+1, want, lines[i])
		}
	}
}

// printed: the headers are those that tcpdump's authors have it print.
func printed(t *testing.T, tcpdump, none string) {
	line := regexp.MustCompile(`\b(ESP|AH)\((?:length=[^,]*,)?spi=(0x[0-9a-f]+),seq=(0x[0-9a-f]+)`)
	for capture, text := range map[string]string{"02-sunrise-sunset-esp.pcap": "esp0.out", "08-sunrise-sunset-esp2.pcap": "esp2.out", "OSPFv3_with_AH.pcap": "ospf3_ah-vv.out"} {
		out, err := os.ReadFile(filepath.Join(tcpdump, text))
		if err != nil {
			t.Fatal(err)
		}
		want := map[header]sent{}
		for text := range strings.Lines(string(out)) {
			m := line.FindStringSubmatch(text) // the outermost
			if m == nil {
				continue
			}
			seq, err := strconv.ParseUint(m[3], 0, 32)
			if err != nil {
				t.Fatal(err)
			}
			h := header{strings.ToLower(m[1]), fmt.Sprintf("0x%08x", hex(t, m[2]))}
			n := want[h]
			n.add(1, seq, seq)
			want[h] = n
		}
		found, _, ok := ours(t, filepath.Join(tcpdump, capture), "-c", none)
		if !ok || len(want) == 0 || !maps.Equal(found, want) {
			t.Errorf("%s: found %v, printed %v", capture, found, want)
		}
	}
}

func hex(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
