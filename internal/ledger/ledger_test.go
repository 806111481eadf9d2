package ledger

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tapsec/sa"
)

// newSA is an SA with keys that are easy to find in a file.
func newSA(spi uint32, change ...func(*sa.SA)) *sa.SA {
	s := &sa.SA{Name: "web", SPI: spi, Dst: netip.MustParseAddr("192.0.2.1"), Protocol: sa.ESP, Mode: sa.Tunnel}
	suite("aes128-sha256", "encryption key!!", "an integrity key of 32 bytes, no")(s)
	for _, c := range change {
		c(s)
	}
	return s
}

func suite(name, encryption, integrity string) func(*sa.SA) {
	return func(s *sa.SA) {
		su, err := sa.ParseSuite(s.Protocol, name)
		if err != nil {
			panic(err)
		}
		s.Suite, s.EncryptionKey, s.IntegrityKey = su, sa.NewKey([]byte(encryption)), sa.NewKey([]byte(integrity))
	}
}

const lastNumber = math.MaxUint64 - 1

const key20 = "encryption key, salt"

var gcm = suite("aes128gcm16", key20, "")

func statePath(t testing.TB) string { return filepath.Join(t.TempDir(), "state.json") }

// opened is a ledger in a file, whose keeper runs.
func opened(t testing.TB, path string) *Ledger {
	t.Helper()
	l, err := Open(path, func(err error) { t.Log("said:", err) })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closed(t testing.TB, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// killed ends a ledger as kill -9 does: what stands on disk stays.
func killed(l *Ledger) {
	close(l.keeper.stop)
	<-l.keeper.done
	l.keeper.journal.close()
}

func accept(t testing.TB, in *Inbound, want Verdict, seqs ...uint64) {
	t.Helper()
	for _, seq := range seqs {
		if got := in.Accept(seq, 10); got != want {
			t.Fatalf("number %d: %d, want %d", seq, got, want)
		}
	}
}

func next(t testing.TB, c *Counter, want uint64) {
	t.Helper()
	if got, err := c.Next(lastNumber); got != want || err != nil {
		t.Fatalf("number %d, %v, want %d", got, err, want)
	}
}

// RFC 4303 section 3.4.3, contract, Lifecycle: a window lives as long as its
// key, whatever a configuration calls the SA meanwhile, and whatever size it
// gives the window.
func TestInbound(t *testing.T) {
	l := New()
	in := l.Inbound(newSA(1))
	accept(t, in, Fresh, 1, 3, 5)
	for name, change := range map[string]func(*sa.SA){
		"nothing": func(*sa.SA) {},
		"name":    func(s *sa.SA) { s.Name, s.PadCheck, s.Offload = "new", true, sa.Never },
		"mode":    func(s *sa.SA) { s.Mode = sa.Transport },
		"ESN":     func(s *sa.SA) { s.ESN = true },
		"larger":  func(s *sa.SA) { s.Window = 4096 },
		"smaller": func(s *sa.SA) { s.Window = 32 },
	} {
		s := newSA(1, change)
		again := l.Inbound(s)
		again.Configure(s)
		if again != in {
			t.Errorf("%s: another SA", name)
		}
		accept(t, again, Refused, 0, 1, 3, 5)
	}
	for name, change := range map[string]func(*sa.SA){
		"SPI":            func(s *sa.SA) { s.SPI = 2 },
		"destination":    func(s *sa.SA) { s.Dst = netip.MustParseAddr("192.0.2.2") },
		"source":         func(s *sa.SA) { s.Src = netip.MustParseAddr("192.0.2.2") },
		"encryption key": suite("aes128-sha256", "encryption key!?", "an integrity key of 32 bytes, no"),
		"integrity key":  suite("aes128-sha256", "encryption key!!", "an integrity key of 32 bytes, yes"),
		"suite":          suite("aes128-aesxcbc", "encryption key!!", "an integrity key of 32 bytes, no"),
		"moved byte":     suite("aes128-sha256", "encryption key!!a", "n integrity key of 32 bytes, no"),
	} {
		if l.Inbound(newSA(1, change)) == in {
			t.Errorf("%s: the same SA", name)
		}
	}
}

// RFC 4106 section 3.1: where a nonce is made of the number, the key alone says
// which numbers are used. Elsewhere two SAs may have one key and the same
// numbers.
func TestCounterFollowsTheKey(t *testing.T) {
	l := New()
	c := l.Counter(newSA(1, gcm))
	next(t, c, 1)
	for name, change := range map[string]func(*sa.SA){
		"SPI":       func(s *sa.SA) { s.SPI = 2 },
		"addresses": func(s *sa.SA) { s.Dst, s.Src = netip.Addr{}, netip.Addr{} },
		"ICV":       suite("aes128gcm8", key20, ""),
		"GMAC":      suite("aes128gmac", key20, ""),
		"CTR":       suite("aes128ctr-sha256", key20, "an integrity key of 32 bytes, no"),
		"AH": func(s *sa.SA) {
			s.Protocol = sa.AH
			suite("aes128gmac", "", key20)(s)
		},
	} {
		if l.Counter(newSA(1, gcm, change)) != c {
			t.Errorf("%s: another count", name)
		}
	}
	if l.Counter(newSA(1, suite("aes128gcm16", "encryption key, SALT", ""))) == c {
		t.Error("another key: the same count")
	}
	cbc := l.Counter(newSA(1))
	if l.Counter(newSA(2)) == cbc || l.Counter(newSA(1)) != cbc {
		t.Error("CBC: a count that is not the SA's")
	}
}

// A running SA that is taken over goes on where it was; a text that is older
// than what is known turns nothing back.
func TestTakeOver(t *testing.T) {
	at := func(n uint64) *sa.SA { return newSA(1, gcm, func(s *sa.SA) { s.Seq, s.OSeq = n, n }) }
	l := New()
	next(t, l.Counter(at(10)), 11)
	next(t, l.Counter(at(5)), 12)
	next(t, l.Counter(at(20)), 21)
	in := l.Inbound(at(10))
	in.Configure(at(10))
	accept(t, in, Refused, 1, 10)
	accept(t, in, Fresh, 11, 13)
	in.Configure(at(5))
	accept(t, in, Fresh, 12)
	in.Configure(at(20))
	accept(t, in, Refused, 14, 20)
	known := newSA(1, gcm, func(s *sa.SA) { s.Seq, s.Bitmap = 10, sa.Bitmap{0b10101} })
	in = New().Inbound(known)
	in.Configure(known)
	accept(t, in, Refused, 10, 8, 6, 5, 1)
	accept(t, in, Fresh, 9, 7, 11)
	before := in.Window()
	if in.Configure(known); in.Window() != before {
		t.Errorf("the same text again: %+v, before that %+v", in.Window(), before)
	}
	marks := l.Marks().Of
	for _, c := range []struct{ text, want uint64 }{{0, 20}, {30, 30}, {25, 30}} {
		if got := marks(newSA(1, gcm, func(s *sa.SA) { s.ESN, s.Seq = true, c.text })).T(); got != c.want {
			t.Errorf("T is %d, want %d", got, c.want)
		}
	}
}

// Contract, ESN: a mark goes on when a configuration drops its SA and brings it
// back, and one who begins later begins where the windows are.
func TestMarks(t *testing.T) {
	esn := newSA(1, func(s *sa.SA) { s.ESN, s.SeqHigh = true, 3 })
	l := New()
	nic, software := l.Marks().Of, l.Marks().Of
	m := nic(esn)
	if got := m.Number(7); got != 3<<32+7 {
		t.Errorf("number %#x", got)
	}
	higher := newSA(1, func(s *sa.SA) { s.ESN, s.SeqHigh = true, 4 })
	if got := nic(higher).Number(7); got != 4<<32+7 {
		t.Errorf("number %#x: seq_high of the reload does not count", got)
	}
	m = nic(higher)
	m.Authenticated(4<<32 + 9)
	if nic(esn) != m || software(esn) == m {
		t.Error("the mark did not go on, or is another one's")
	}
	accept(t, l.Inbound(esn), Fresh, 5<<32)
	if got := software(esn).T(); got != 5<<32 {
		t.Errorf("T is %#x", got)
	}
}

// What was clean at the end is there at the next beginning, exactly.
func TestCleanRestart(t *testing.T) {
	path, s := statePath(t), newSA(1, gcm)
	l := opened(t, path)
	in := l.Inbound(s)
	accept(t, in, Fresh, 1, 3, 100)
	in.End()
	for n := range uint64(200) {
		next(t, l.Counter(s), n+1)
	}
	want := in.Window()
	closed(t, l)
	accept(t, in, NoLease, 101)
	if _, err := l.Counter(s).Next(lastNumber); !errors.Is(err, ErrLease) {
		t.Errorf("a number after the end: %v", err)
	}

	l = opened(t, path)
	in = l.Inbound(s)
	if got := in.Window(); got != want {
		t.Errorf("window %+v, was %+v", got, want)
	}
	if u := in.Usage(); u.Packets != 3 || u.Bytes != 30 || !u.Ended {
		t.Errorf("usage %+v", u)
	}
	accept(t, in, Refused, 1, 3, 36, 100)
	accept(t, in, Fresh, 37, 99, 101)
	next(t, l.Counter(s), 201)
	closed(t, l)
}

// After kill -9 numbers go on behind the lease, and what is lost is at most its
// length.
func TestKilled(t *testing.T) {
	path, s := statePath(t), newSA(1, gcm)
	l := opened(t, path)
	in, c := l.Inbound(s), l.Counter(s)
	accept(t, in, Fresh, 1, 2)
	next(t, c, 1)
	killed(l)
	l = opened(t, path)
	in, c = l.Inbound(s), l.Counter(s)
	accept(t, in, Refused, 1, 2)
	if top := in.Window().Top; top < 2 || top > 2+leastLease {
		t.Errorf("refuses numbers up to %d", top)
	}
	accept(t, in, Fresh, in.Window().Top+1)
	if n := c.Peek(); n < 2 || n > 2+leastLease {
		t.Errorf("goes on at %d", n)
	}
	closed(t, l)
}

// What a running SA was taken over with is on the disk before anything is sent
// beyond it: the text that said so may be gone next time.
func TestTakenOverAndKilled(t *testing.T) {
	path, s := statePath(t), newSA(1, gcm)
	l, err := open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	next(t, l.Counter(s), 1)
	l.keeper.renew(false)
	l.Counter(s).Raise(1000)
	l.keeper.renew(false)
	l.keeper.journal.close()
	l = opened(t, path)
	if n := l.Counter(s).Peek(); n < 1000 || n > 1000+growth*leastLease {
		t.Errorf("goes on at %d", n)
	}
	closed(t, l)
}

// What was not configured when the program ran is still known when it is again.
func TestDroppedStays(t *testing.T) {
	path, s, other := statePath(t), newSA(1), newSA(2)
	for i, now := range []*sa.SA{s, other, other, s} {
		l := opened(t, path)
		want := Fresh
		if i >= 2 {
			want = Refused
		}
		accept(t, l.Inbound(now), want, 1)
		closed(t, l)
	}
}

// An SA that nobody has configured for long is forgotten; one that somebody has
// is not, however long it was silent.
func TestForgotten(t *testing.T) {
	path, gone, silent := statePath(t), newSA(1), newSA(2)
	l := opened(t, path)
	l.Inbound(gone)
	l.Inbound(silent)
	closed(t, l)
	text, _ := os.ReadFile(path)
	text = bytes.ReplaceAll(text, fmt.Appendf(nil, `"seen":"%d`, time.Now().UTC().Year()), fmt.Appendf(nil, `"seen":"%d`, time.Now().UTC().Year()-1))
	if err := os.WriteFile(path, summed(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ran := range []time.Duration{0, 2 * knowsAfter} {
		l = opened(t, path)
		l.keeper.mu.Lock()
		l.keeper.began = l.keeper.began.Add(-ran)
		l.keeper.mu.Unlock()
		if ran > 0 {
			l.Inbound(silent)
		}
		closed(t, l)
		text, _ = os.ReadFile(path)
		if bytes.Contains(text, []byte("0x00000001")) != (ran == 0) || !bytes.Contains(text, []byte("0x00000002")) {
			t.Errorf("after %v the file is\n%s", ran, text)
		}
	}
}

// Where the time of day is wrong nothing is forgotten: it jumps ahead while the program runs, or what stands in the
// file was written before it was set, as on a router without a clock of its own.
func TestClockSet(t *testing.T) {
	for name, was := range map[string]string{"jumps ahead": fmt.Sprint(time.Now().UTC().Year() - 1), "was not set": "1970"} {
		path, gone := statePath(t), newSA(1)
		l := opened(t, path)
		accept(t, l.Inbound(gone), Fresh, 1)
		closed(t, l)
		text, _ := os.ReadFile(path)
		text = bytes.ReplaceAll(text, fmt.Appendf(nil, `"seen":"%d`, time.Now().UTC().Year()), []byte(`"seen":"`+was))
		if err := os.WriteFile(path, summed(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l = opened(t, path)
		l.keeper.mu.Lock()
		l.keeper.began = l.keeper.began.Add(-2 * knowsAfter)
		if name == "jumps ahead" {
			l.keeper.wall = l.keeper.wall.Add(-2 * forgetful)
		}
		l.keeper.mu.Unlock()
		closed(t, l)
		l = opened(t, path)
		accept(t, l.Inbound(gone), Refused, 1)
		closed(t, l)
	}
}

// Two processes never have one file, and a third has it as soon as they have
// gone, in whatever way.
func TestLock(t *testing.T) {
	path := statePath(t)
	l := opened(t, path)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		_, err := Open(name, nil)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("said %v", err)
		}
	}
	killed(l)
	l = opened(t, link)
	closed(t, l)
	closed(t, opened(t, path))
}

// Who removes the file, or its lock, takes no number away: it is written anew, unless another process has had
// it since.
func TestRemoved(t *testing.T) {
	s := newSA(1, gcm)
	for name, c := range map[string]struct {
		removed        []string
		another, works bool
	}{
		"file":                            {removed: []string{""}, works: true},
		"lock":                            {removed: []string{".lock"}, works: true},
		"both":                            {removed: []string{"", ".lock"}, works: true},
		"lock, and another process comes": {removed: []string{".lock"}, another: true},
		"both, and another process comes": {removed: []string{"", ".lock"}, another: true},
	} {
		path := statePath(t)
		l, err := open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		counter := l.Counter(s)
		next(t, counter, 1)
		for _, ending := range c.removed {
			if err := os.Remove(path + ending); err != nil {
				t.Fatal(err)
			}
		}
		if c.another {
			closed(t, opened(t, path))
		}
		l.keeper.renew(true)
		if counter.Raise(1000); c.works {
			next(t, counter, 1000)
			l.keeper.renew(true)
			if _, err := Open(path, nil); err == nil || !strings.Contains(err.Error(), "in use by another process") {
				t.Errorf("%s: another process said %v", name, err)
			}
		} else if _, err := counter.Next(lastNumber); !errors.Is(err, ErrLease) || !strings.Contains(fmt.Sprint(l.keeper.err), "another process uses the file") {
			t.Errorf("%s: %v, since %v", name, err, l.keeper.err)
		}
		theirs, _ := os.ReadFile(path)
		l.keeper.journal.close()
		l = opened(t, path)
		if n := l.Counter(s).Peek(); c.works != (n > 1000) {
			t.Errorf("%s: then it goes on at %d\n%s", name, n, theirs)
		}
		closed(t, l)
	}
}

// What cannot be told now is not taken for a removal: the folder is another one for a while.
func TestFolderAway(t *testing.T) {
	path, s := filepath.Join(t.TempDir(), "folder", "state"), newSA(1, gcm)
	folder := filepath.Dir(path)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	counter := l.Counter(s)
	next(t, counter, 1)
	if err := errors.Join(os.Rename(folder, folder+"2"), os.WriteFile(folder, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	l.keeper.renew(true)
	counter.Raise(1000)
	if _, err := counter.Next(lastNumber); !errors.Is(err, ErrLease) {
		t.Errorf("a number without a file: %v", err)
	}
	if err := errors.Join(os.Remove(folder), os.Rename(folder+"2", folder)); err != nil {
		t.Fatal(err)
	}
	l.keeper.renew(true)
	next(t, counter, 1000)
	l.keeper.journal.close()
}

// No key is in the file, in no form, and nobody but its owner can read it.
func TestFileIsPrivate(t *testing.T) {
	path, s := statePath(t), newSA(1)
	l := opened(t, path)
	accept(t, l.Inbound(s), Fresh, 1)
	next(t, l.Counter(newSA(1, gcm)), 1)
	check := func() {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("0x00000001")) {
			t.Fatalf("%v: %s", err, text)
		}
		for _, key := range [][]byte{s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes(), []byte(key20)} {
			for _, form := range []string{string(key), hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key)} {
				if strings.Contains(strings.ToLower(string(text)), strings.ToLower(form)[:8]) {
					t.Errorf("a key is in %s", text)
				}
			}
		}
	}
	check()
	closed(t, l)
	check()
}

// What makes no sense is refused with a sentence that names the file and says
// what to do.
func TestRefused(t *testing.T) {
	path := statePath(t)
	l := opened(t, path)
	accept(t, l.Inbound(newSA(1)), Fresh, 3)
	next(t, l.Counter(newSA(1, gcm)), 1)
	closed(t, l)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, new, why string }{
		"another version": {`"ledger":3`, `"ledger":4`, "is of version 4, expected 3"},
		"an older one":    {`"ledger":3`, `"ledger":2`, "is of version 2, expected 3"},
		"not ours":        {string(text), "sas: []\n", "is not as tapsec writes it"},
		"empty":           {string(text), "", "is not as tapsec writes it"},
		"unknown field":   {`"sa":`, `"key":"00","sa":`, `unknown field "key"`},
		"window":          {`"top":3`, `"top":4`, "a window that makes no sense for esp SPI 0x00000001"},
		"a name of sorts": {`"in":"`, `"in":"no`, "expected 32 hexadecimal digits to name an SA, found 34"},
		"half a name":     {string(text), string(text[:bytes.IndexByte(text, '\n')+1]) + `{"out":"0011223344556677","seen":"2026-11-28T00:00:00Z","next":2,"sum":""}` + "\n", "hexadecimal digits"},
		"neither":         {`"out":`, `"sa":`, "neither an inbound nor an outbound"},
		"fingerprint":     {`"out":"`, `"out":"g`, "to name an SA, found 33"},
	} {
		bad := summed(bytes.Replace(text, []byte(c.old), []byte(c.new), 1))
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, nil)
		if err == nil || !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: said %v", name, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(after, bad) {
			t.Errorf("%s: the file was written to", name)
		}
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none", "state")} {
		if _, err := Open(path, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("said %v", err)
		}
	}
}

// summed is a file whose lines were changed, with their sums as they would be.
func summed(text []byte) []byte {
	sum, size, lines := uint32(0), 0, bytes.SplitAfter(text, []byte("\n"))
	for i, line := range lines[1:] {
		body, _, ok := bytes.Cut(line, []byte(`,"sum"`))
		if !ok {
			continue
		}
		sum = crc32.Update(sum, castagnoli, body)
		lines[i+1] = appendSum(bytes.Clone(body), sum)
	}
	for _, line := range lines {
		size += len(line)
	}
	var h header
	if json.Unmarshal(lines[0], &h) == nil && h.Version == version {
		h.Size = int64(size)
		lines[0] = h.line()
	}
	return bytes.Join(lines, nil)
}

// A line that was being written when the machine stopped was never relied upon.
func TestHalfALine(t *testing.T) {
	path, s := statePath(t), newSA(1)
	l := opened(t, path)
	accept(t, l.Inbound(s), Fresh, 3)
	closed(t, l)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"in":"00112233`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for range 2 {
		l = opened(t, path)
		accept(t, l.Inbound(s), Refused, 3)
		killed(l)
	}
}

// A lifetime goes on, and its end is final, after an ordinary end and after kill -9, and
// for a key that was left meanwhile.
func TestLifetimeOnDisk(t *testing.T) {
	for _, end := range []func(*Ledger){killed, func(l *Ledger) { closed(t, l) }} {
		path, s := statePath(t), newSA(1)
		l := opened(t, path)
		in := l.Inbound(s)
		accept(t, in, Fresh, 1)
		in.mu.Lock()
		in.began -= 10 * time.Hour
		in.mu.Unlock()
		in.End()
		l.keeper.renew(false) // which its goroutine may be about to do
		end(l)
		for range 3 {
			l = opened(t, path)
			in = l.Inbound(s)
			u := in.Usage()
			if age := l.Clock() - u.Began; !u.Ended || age < 10*time.Hour || age > 11*time.Hour {
				t.Errorf("began %v ago, ended %v", age, u.Ended)
			}
			l.Leave(in)
			end(l)
		}
	}
}

// A state file may be longer than what is written of it at once.
func TestManySAs(t *testing.T) {
	const sas = 8000
	path := statePath(t)
	l := opened(t, path)
	for spi := range uint32(sas) {
		l.Counter(newSA(spi+1, func(s *sa.SA) { s.OSeq = uint64(spi) + 7 }))
	}
	closed(t, l)
	if info, err := os.Stat(path); err != nil || info.Size() < largest {
		t.Fatalf("%v, %v", info, err)
	}
	l = opened(t, path)
	for spi := range uint32(sas) {
		if n := l.Counter(newSA(spi + 1)).Peek(); n != uint64(spi)+8 {
			t.Fatalf("of SA %d number %d is next", spi, n)
		}
	}
	closed(t, l)
}

// RFC 4301 section 4.4.2.1: a lifetime goes on over a restart by the clock that
// nobody sets, and over one of the machine by the time of day, by which no SA
// becomes younger.
func TestAge(t *testing.T) {
	r := record{Age: time.Hour, Clock: 5 * time.Hour, Wall: time.Now().UnixNano()}
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		here        bool
		wall, clock time.Duration
		want        time.Duration
	}{
		"same boot":                     {true, time.Hour, time.Hour, 2 * time.Hour},
		"same boot, time of day set":    {true, -day, time.Hour, 2 * time.Hour},
		"same boot, set ahead":          {true, 9 * day, time.Hour, 2 * time.Hour},
		"another boot":                  {false, 3 * time.Hour, -4 * time.Hour, 4 * time.Hour},
		"another boot, set back":        {false, -day, -4 * time.Hour, time.Hour},
		"a clock that began once more":  {true, 3 * time.Hour, -4 * time.Hour, 4 * time.Hour},
		"another boot, its clock ahead": {false, 3 * time.Hour, day, 4 * time.Hour},
	} {
		got := r.ageNow(c.here, time.Unix(0, r.Wall).Add(c.wall), r.Clock+c.clock)
		if got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// A number is given once also where several ask, and the last one never is.
func TestCounter(t *testing.T) {
	l := opened(t, statePath(t))
	c := l.Counter(newSA(1, gcm))
	const each, asking = 2000, 8
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for range asking {
		wg.Go(func() {
			for range each {
				n, err := c.Next(lastNumber)
				mu.Lock()
				if err != nil || seen[n] {
					t.Errorf("number %d again, or %v", n, err)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	next(t, c, asking*each+1)
	for _, last := range []uint64{1<<32 - 1, lastNumber} {
		c.Raise(last - 1)
		for _, want := range []error{nil, nil, ErrUsedUp, ErrUsedUp} {
			if n, err := c.Next(last); !errors.Is(err, want) || n > last {
				t.Errorf("number %#x, %v, want %v", n, err, want)
			}
		}
	}
	closed(t, l)
}

// A window of any size is there after a restart as it was, for late packets too.
func TestWindowOfAnySize(t *testing.T) {
	for _, size := range []uint32{32, 64, 1024} {
		path, s := statePath(t), newSA(1)
		s.Window = size
		l := opened(t, path)
		in := l.Inbound(s)
		in.Configure(s)
		last, first := uint64(5000), 5001-uint64(size)
		accept(t, in, Fresh, last, first, last-10)
		closed(t, l)
		l = opened(t, path)
		in = l.Inbound(s)
		in.Configure(s)
		accept(t, in, Refused, last, first, last-10, first-1)
		accept(t, in, Fresh, first+1, last-11)
		closed(t, l)
	}
}
