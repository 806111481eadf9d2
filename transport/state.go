package transport

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tapsec/internal/replay"
	"tapsec/sa"
)

const (
	stateVersion = 1
	// clockSlack is how far a clock may have been set back between two runs.
	clockSlack = time.Minute
)

// State is what a transport knows of its SAs from one run to the next, as a file
// of JSON that holds no key.
//
// A program reads it, writes it back with Clean unset while it runs, and writes
// it with Clean set when it ends. One that was killed thus leaves a file that
// nobody takes for the truth: it lets numbers pass that came after it was
// written.
type State struct {
	Version int       `json:"version"` // set by WriteState
	Saved   time.Time `json:"saved"`   // set by WriteState
	Clean   bool      `json:"clean"`   // the program that wrote it has ended, and this was its last word
	SAs     []SavedSA `json:"sas"`

	path string // where it was read, for messages
}

// SavedSA is what is known of one SA.
type SavedSA struct {
	sa.ID
	Fingerprint string          `json:"fingerprint"` // Fingerprint of the SA
	Window      replay.Snapshot `json:"window"`
	T           uint64          `json:"t"`       // the ESN mark, 0 without ESN
	Packets     uint64          `json:"packets"` // of its lifetime: used
	Bytes       uint64          `json:"bytes"`   // of its lifetime: used
	Since       time.Time       `json:"since"`   // when its lifetime began
}

// Fingerprint names an SA with its keys: 64 bits of an HMAC-SHA-256 under the
// keys over all that sa.SA.Same compares, in hexadecimal. It tells nothing of
// the keys but whether they are the same.
func Fingerprint(s *sa.SA) string {
	encryption, integrity := s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes()
	key := binary.BigEndian.AppendUint32(nil, uint32(len(encryption)))
	mac := hmac.New(sha256.New, slices.Concat(key, encryption, integrity))
	fmt.Fprintf(mac, "tapsec SA 1\n%s\n%s\n%s\n%s\n%s\n%s\n%t\n",
		s.Protocol, sa.SPI(s.SPI), s.Dst, s.Src, s.Mode, s.Suite.Name, s.ESN)
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// ReadState reads a state file. A file that does not exist is an error that is
// fs.ErrNotExist. One that cannot be trusted is refused: of another version, not
// cleanly ended, from the future, or with windows that make no sense.
func ReadState(path string) (State, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return State{}, fmt.Errorf("state file: %w", err)
	}
	s := State{path: path}
	if err := s.decode(text); err != nil {
		return State{}, err
	}
	return s, s.trusted(time.Now())
}

// refuse makes the error for a file that is of no use.
func (s *State) refuse(format string, args ...any) error {
	return fmt.Errorf("state file %s %w; to begin anew with empty windows, remove it", s.path, fmt.Errorf(format, args...))
}

// decode reads the version by itself first, since another one has other fields.
func (s *State) decode(text []byte) error {
	var v struct{ Version int }
	if err := json.Unmarshal(text, &v); err != nil {
		return s.refuse("is not JSON as tapsec writes it (%v)", err)
	}
	if v.Version != stateVersion {
		return s.refuse("is of version %d, expected %d", v.Version, stateVersion)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return s.refuse("is not as tapsec writes it (%v)", err)
	}
	return nil
}

// trusted tells why what the file says may not be true.
func (s *State) trusted(now time.Time) error {
	saved := s.Saved.Format(time.RFC3339)
	switch {
	case !s.Clean:
		return s.refuse("is in use, or its program was killed, and packets that came after %s would pass again: end that program first", saved)
	case s.Saved.After(now.Add(clockSlack)):
		return s.refuse("was saved at %s, which is in the future: set the clock", saved)
	}
	seen := map[sa.ID]bool{}
	for i := range s.SAs {
		a := &s.SAs[i]
		if seen[a.ID] {
			return s.refuse("has two entries for %s", a.ID)
		}
		seen[a.ID] = true
		if err := a.Window.Check(); err != nil {
			return s.refuse("has a window that makes no sense for %s (%w)", a.ID, err)
		}
	}
	return nil
}

// SA finds what is known of an SA, if it still is the same one.
func (s *State) SA(a *sa.SA) (SavedSA, bool) {
	id, fingerprint := a.ID(), Fingerprint(a)
	i := slices.IndexFunc(s.SAs, func(known SavedSA) bool { return known.ID == id && known.Fingerprint == fingerprint })
	if i < 0 {
		return SavedSA{}, false
	}
	return s.SAs[i], true
}

// Check compares the file with the SAs that are configured. An SA of the same
// identity but with another fingerprint is an error: its numbers mean nothing
// here. The notes are what a person may want to know: SAs that are no longer
// configured, and windows that are not what they were.
func (s *State) Check(sas []*sa.SA) (notes []string, err error) {
	configured := map[sa.ID]*sa.SA{}
	for _, a := range sas {
		configured[a.ID()] = a
	}
	for _, known := range s.SAs {
		a := configured[known.ID]
		if a == nil {
			notes = append(notes, fmt.Sprintf("state file %s knows %s, which is no longer configured; that is forgotten", s.path, known.ID))
			continue
		}
		if known.Fingerprint != Fingerprint(a) {
			return nil, s.refuse("is of another %s: its keys, mode, suite or esn have changed since", known.ID)
		}
		w := windowOf(a)
		if is, was := w.Size(), known.Window.Size; is != was {
			notes = append(notes, fmt.Sprintf("the window of %s had %s and now has %s; no packet can pass twice for that", a.Name, packets(was), packets(is)))
		}
	}
	return notes, nil
}

func packets(size uint32) string {
	if size == 0 {
		return "no replay protection"
	}
	return fmt.Sprintf("%d packets", size)
}

// WriteState writes a state file, readable by its owner alone, in one step: what
// is at path is whole at any time, the old one or the new one.
func WriteState(path string, s State) error {
	s.Version, s.Saved = stateVersion, time.Now()
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	if err := replaceFile(path, append(text, '\n')); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	return nil
}

// replaceFile writes beside path, and renames once that is on the disk; then
// puts the name there, too.
func replaceFile(path string, text []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.new") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = cmp.Or(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}
