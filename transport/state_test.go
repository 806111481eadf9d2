package transport

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"tapsec/internal/replay"
	"tapsec/sa"
)

// savedTestSA is an SA with keys that are easy to find in a file.
func savedTestSA(t *testing.T, change ...func(*sa.SA)) *sa.SA {
	t.Helper()
	suite, err := sa.ParseSuite(sa.ESP, "aes128-sha256")
	if err != nil {
		t.Fatal(err)
	}
	s := &sa.SA{Name: "web", SPI: 0xc001, Dst: netip.MustParseAddr("192.0.2.1"), Protocol: sa.ESP, Mode: sa.Tunnel, Suite: suite, ESN: true,
		EncryptionKey: sa.NewKey([]byte("encryption key!!")), IntegrityKey: sa.NewKey([]byte("an integrity key of 32 bytes, yes"[:32]))}
	for _, c := range change {
		c(s)
	}
	return s
}

// savedState is a State with one SA whose window has seen 1, 3 and 3 again.
func savedState(s *sa.SA) State {
	w := windowOf(s)
	for _, seq := range []uint64{1, 3, 3} {
		w.Accept(seq)
	}
	return State{Clean: true, SAs: []SavedSA{{ID: s.ID(), Fingerprint: Fingerprint(s), Window: w.Snapshot(),
		T: 3, Packets: 2, Bytes: 200, Since: time.Now().UTC().Truncate(time.Second)}}}
}

func stateFile(t *testing.T) string { return filepath.Join(t.TempDir(), "state.json") }

func write(t *testing.T, path string, s State) {
	t.Helper()
	if err := WriteState(path, s); err != nil {
		t.Fatal(err)
	}
}

// edit changes the file as a text would be edited.
func edit(t *testing.T, path, old, new string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(text, []byte(old)) {
		t.Fatalf("%v; no %s in %s", err, old, text)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(old), []byte(new), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantRefusal checks that an error is one sentence that names the file, says
// why, and says what to do.
func wantRefusal(t *testing.T, err error, path, why string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; expected: %s", why)
	}
	said := err.Error()
	if !strings.Contains(said, path) || !strings.Contains(said, why) || !strings.Contains(said, "remove it") || strings.Contains(said, "\n") {
		t.Errorf("said %q, expected %q", said, why)
	}
}

// Contract, The transport, step 3: what a window has let through it does not let through again
// after a restart.
func TestStateSurvivesRestart(t *testing.T) {
	path, s := stateFile(t), savedTestSA(t)
	want := savedState(s)
	write(t, path, want)
	got, err := ReadState(path)
	if err != nil {
		t.Fatal(err)
	}
	if notes, err := got.Check([]*sa.SA{s}); err != nil || len(notes) != 0 {
		t.Errorf("%v, %v", notes, err)
	}
	known, ok := got.SA(s)
	if !ok || !reflect.DeepEqual(known, want.SAs[0]) || time.Since(got.Saved) > time.Minute {
		t.Fatalf("%+v\nexpected %+v", known, want.SAs[0])
	}
	w := windowOf(s)
	if err := w.Restore(known.Window); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		seq uint64
		ok  bool
	}{{1, false}, {3, false}, {2, true}, {4, true}} {
		if w.Accept(step.seq) != step.ok {
			t.Errorf("Accept(%d) = %v", step.seq, !step.ok)
		}
	}
}

// A program that is killed while it runs leaves the mark of one that runs.
func TestStateOfKilledProgram(t *testing.T) {
	path, s := stateFile(t), savedTestSA(t)
	write(t, path, savedState(s))
	running, err := ReadState(path)
	if err != nil {
		t.Fatal(err)
	}
	running.Clean = false
	write(t, path, running)
	_, err = ReadState(path)
	wantRefusal(t, err, path, "is in use, or its program was killed")
	running.Clean = true
	write(t, path, running)
	if _, err := ReadState(path); err != nil {
		t.Error(err)
	}
}

func TestStateRefused(t *testing.T) {
	for name, c := range map[string]struct{ old, new, why string }{
		"another version":      {`"version": 1`, `"version": 2`, "of version 2, expected 1"},
		"other version's form": {`"version": 1`, `"version": 2, "more": {}`, "of version 2, expected 1"},
		"no version":           {`"version": 1,`, ``, "of version 0, expected 1"},
		"no mark":              {`"clean": true,`, ``, "is in use"},
		"future":               {`"saved": "2`, `"saved": "9`, "in the future: set the clock"},
		"unknown field":        {`"t": 3`, `"t": 3, "key": "00"`, `unknown field "key"`},
		"wrong type":           {`"t": 3`, `"t": "3"`, "not as tapsec writes it"},
		"negative":             {`"t": 3`, `"t": -3`, "not as tapsec writes it"},
		"protocol":             {`"esp"`, `"tcp"`, `found "tcp"`},
		"cut off":              {"\n}", "", "is not JSON"},
		"two documents":        {"\n}", "\n}{}", "is not JSON"},
		"window":               {`"top": 3`, `"top": 4`, "a window that makes no sense for esp SPI 0x0000c001 to 192.0.2.1"},
		"no window":            {`"size": 64`, `"size": 0`, "0 packets, expected 32 to 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			path := stateFile(t)
			write(t, path, savedState(savedTestSA(t)))
			edit(t, path, c.old, c.new)
			_, err := ReadState(path)
			wantRefusal(t, err, path, c.why)
		})
	}
}

func TestStateTwice(t *testing.T) {
	path, s := stateFile(t), savedState(savedTestSA(t))
	s.SAs = append(s.SAs, s.SAs[0])
	write(t, path, s)
	_, err := ReadState(path)
	wantRefusal(t, err, path, "two entries for esp SPI 0x0000c001")
}

// A clock that was set back by seconds is no reason to forget everything.
func TestStateClock(t *testing.T) {
	s := State{Clean: true, Saved: time.Now()}
	for ahead, ok := range map[time.Duration]bool{-time.Hour: true, 59 * time.Second: true, 61 * time.Second: false} {
		if err := s.trusted(s.Saved.Add(-ahead)); (err == nil) != ok {
			t.Errorf("%v ahead: %v", ahead, err)
		}
	}
}

func TestStateMissing(t *testing.T) {
	path := stateFile(t)
	_, err := ReadState(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}

// The same identity with anything else changed is another SA: its numbers mean
// nothing here.
func TestStateForeign(t *testing.T) {
	path, s := stateFile(t), savedTestSA(t)
	write(t, path, savedState(s))
	read, err := ReadState(path)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := sa.ParseSuite(sa.ESP, "aes128-sha384")
	for name, change := range map[string]func(*sa.SA){
		"encryption key": func(s *sa.SA) { s.EncryptionKey = sa.NewKey([]byte("encryption key!?")) },
		"integrity key":  func(s *sa.SA) { s.IntegrityKey = sa.NewKey([]byte("another")) },
		"moved bytes": func(s *sa.SA) {
			s.EncryptionKey, s.IntegrityKey = sa.NewKey([]byte("encryption key!!a")), sa.NewKey(s.IntegrityKey.Bytes()[1:])
		},
		"mode":  func(s *sa.SA) { s.Mode = sa.Transport },
		"suite": func(s *sa.SA) { s.Suite = other },
		"ESN":   func(s *sa.SA) { s.ESN = false },
	} {
		foreign := savedTestSA(t, change)
		_, err := read.Check([]*sa.SA{foreign})
		wantRefusal(t, err, path, "is of another esp SPI 0x0000c001 to 192.0.2.1")
		if _, ok := read.SA(foreign); ok {
			t.Errorf("%s: found", name)
		}
	}
	// What has nothing to do with the numbers may change.
	same := savedTestSA(t, func(s *sa.SA) { s.Name, s.PadCheck, s.Offload, s.Lifetimes.Hard.Bytes = "new", true, sa.Never, 1 })
	if _, err := read.Check([]*sa.SA{same}); err != nil {
		t.Error(err)
	}
	if _, ok := read.SA(same); !ok {
		t.Error("renamed: not found")
	}
}

func TestStateNotes(t *testing.T) {
	path, s := stateFile(t), savedTestSA(t)
	write(t, path, savedState(s))
	read, err := ReadState(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		change     func(*sa.SA)
	}{
		{"another SPI", "knows esp SPI 0x0000c001 to 192.0.2.1, which is no longer configured", func(s *sa.SA) { s.SPI = 1 }},
		{"another source", "no longer configured", func(s *sa.SA) { s.Src = netip.MustParseAddr("192.0.2.9") }},
		{"larger", "had 64 packets and now has 128 packets", func(s *sa.SA) { s.Window = 128 }},
		{"off", "had 64 packets and now has no replay protection", func(s *sa.SA) { s.ReplayOff = true }},
	} {
		notes, err := read.Check([]*sa.SA{savedTestSA(t, c.change)})
		if err != nil || len(notes) != 1 || !strings.Contains(notes[0], c.want) {
			t.Errorf("%s: %q, %v", c.name, notes, err)
		}
	}
}

// The fingerprint was computed by Python's hmac.
func TestFingerprint(t *testing.T) {
	enc, integrity := make([]byte, 16), make([]byte, 32)
	for i := range integrity {
		enc[i%16], integrity[i] = byte(i%16), byte(100+i)
	}
	s := savedTestSA(t, func(s *sa.SA) { s.EncryptionKey, s.IntegrityKey = sa.NewKey(enc), sa.NewKey(integrity) })
	if got := Fingerprint(s); got != "abd18b742825eb32" {
		t.Error(got)
	}
}

// No key is in the file, in no form, and nobody but its owner can read it.
func TestStateFileIsPrivate(t *testing.T) {
	path, s := stateFile(t), savedTestSA(t)
	if err := os.WriteFile(path, []byte("an old one, readable by all"), 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, path, savedState(s))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !json.Valid(text) {
		t.Fatal(err)
	}
	for _, key := range [][]byte{s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes()} {
		for _, form := range []string{string(key), hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key)} {
			if strings.Contains(strings.ToLower(string(text)), strings.ToLower(form)[:8]) {
				t.Errorf("a key is in %s", text)
			}
		}
	}
}

// A write that fails leaves the old file as it was, and nothing beside it.
func TestStateWriteFails(t *testing.T) {
	path := stateFile(t)
	if err := os.Mkdir(path, 0o700); err != nil { // nothing can be renamed over it
		t.Fatal(err)
	}
	err := WriteState(path, State{})
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if err := WriteState(filepath.Join(path, "none", "state"), State{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// FuzzState reads whatever there may be at the path; what is taken for good can
// be restored.
func FuzzState(f *testing.F) {
	w := replay.New(32)
	w.Accept(7)
	text, _ := json.Marshal(State{Version: 1, Clean: true, SAs: []SavedSA{{Window: w.Snapshot()}}})
	f.Add(text)
	f.Add([]byte(`{"version":1,"clean":true,"sas":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := State{path: "x"}
		if s.decode(text) != nil || s.trusted(time.Now()) != nil {
			return
		}
		for _, known := range s.SAs {
			var w replay.Window
			if err := w.Restore(known.Window); err != nil {
				t.Fatal(err)
			}
		}
	})
}
