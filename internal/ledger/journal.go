package ledger

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	version = 2
	slack   = 256 // superseded lines allowed, plus one for each SA
)

// journal is the file: a header and records, each a line of JSON; a later record replaces
// an earlier one of the same SA. It is appended to, and written anew when it has become
// long or something went wrong. A line without its end was never relied on. One process
// has it, by a lock on a file beside it, which stays.
type journal struct {
	path  string
	boot  string // the kernel's name for this run of it
	lock  *os.File
	file  *os.File // nil: the file may end in half a line, and must be written anew
	lines int

	write func(f *os.File, text []byte) error // fails in tests
}

// header is the first line.
type header struct {
	Version int    `json:"ledger"`
	Boot    string `json:"boot"` // names the run of the kernel whose clock the records use
}

// lockJournal takes the file for this process.
func lockJournal(path string) (*journal, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a rename would replace the link
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("state file %s: there is something else, which must not be replaced (%s): name another file", path, info.Mode())
	}
	j := &journal{path: path, boot: bootID(), write: write}
	var err error
	if j.lock, err = os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	if err = lock(j.lock); err == nil {
		return j, nil
	}
	j.lock.Close()
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("state file %s is in use by another process, which holds %s.lock: end that one first, or name another file", path, path)
	}
	return nil, fmt.Errorf("state file: lock %s.lock: %w", path, err)
}

// refuse is the error for a file that makes no sense.
func (j *journal) refuse(format string, args ...any) error {
	return fmt.Errorf("state file %s %w; to begin anew, change the keys of the SAs and remove it", j.path, fmt.Errorf(format, args...))
}

// read returns the records of the file, and the boot that their clock belongs to. A file
// that does not exist has no records.
func (j *journal) read() (boot string, records []record, err error) {
	text, err := os.ReadFile(j.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil, nil
	case err != nil:
		return "", nil, fmt.Errorf("state file: %w", err)
	}
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	var h header
	switch {
	case json.Unmarshal(first, &h) != nil || h.Version == 0:
		records, err = j.readOld(text)
		return "", records, err
	case h.Version != version:
		return "", nil, j.refuse("is of version %d, expected %d", h.Version, version)
	}
	rest = rest[:bytes.LastIndexByte(rest, '\n')+1] // half a line at the end is none
	for d := strict(rest); d.More(); {
		var r record
		if err := cmp.Or(d.Decode(&r), r.check()); err != nil {
			return "", nil, j.refuse("is not as tapsec writes it, in line %d (%w)", len(records)+2, err)
		}
		records = append(records, r)
	}
	return h.Boot, records, nil
}

func strict(text []byte) *json.Decoder {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d
}

// readOld reads version 1: one document, which the program marked as clean when it ended.
func (j *journal) readOld(text []byte) ([]record, error) {
	var s struct {
		Version int       `json:"version"`
		Saved   time.Time `json:"saved"`
		Clean   bool      `json:"clean"`
		SAs     []old     `json:"sas"`
	}
	switch err := strict(text).Decode(&s); {
	case err != nil:
		return nil, j.refuse("is not as tapsec writes it (%w)", err)
	case s.Version != 1:
		return nil, j.refuse("is of version %d, expected %d", s.Version, version)
	case !s.Clean:
		return nil, j.refuse("is of version 1, whose program is still at work or was killed, and packets that came after %s would pass again", s.Saved.Format(time.RFC3339))
	}
	var records []record
	for i := range s.SAs {
		r := s.SAs[i].record(s.Saved)
		if err := r.check(); err != nil {
			return nil, j.refuse("has %w", err)
		}
		records = append(records, r)
	}
	return records, nil
}

// append adds records and returns once they are on the disk. After it has failed only
// replace mends the file.
func (j *journal) append(records []record) error {
	const line = 512 // or less, in bytes
	if err := j.put(j.file, min(line*len(records), largest), slices.Values(records)); err != nil {
		j.file.Close()
		j.file = nil
		return fmt.Errorf("state file: %w", err)
	}
	j.lines += len(records)
	return nil
}

// largest is how many bytes are written at once.
const largest = 1 << 20

// put writes lines, by a buffer of so many bytes, and waits for the disk.
func (j *journal) put(f *os.File, buffer int, records iter.Seq[record]) error {
	w := bufio.NewWriterSize(writer(func(b []byte) error { return j.write(f, b) }), buffer)
	e := json.NewEncoder(w)
	for r := range records {
		if err := e.Encode(&r); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Sync()
}

type writer func([]byte) error

func (w writer) Write(b []byte) (int, error) {
	if err := w(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func write(f *os.File, text []byte) error {
	_, err := f.Write(text)
	return err
}

// long reports whether the file must be written anew.
func (j *journal) long(sas int) bool { return j.file == nil || j.lines > 2*sas+slack }

// replace writes a new file, and renames it over the old one once it is on the disk. At any
// time path holds a complete file, the old one or the new one.
func (j *journal) replace(records iter.Seq[record]) error {
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
	lines := 0
	f, err := j.swap(func(yield func(record) bool) {
		for r := range records {
			if lines++; !yield(r) {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	j.file, j.lines = f, lines
	return nil
}

// swap replaces the file at path by one of these records, and leaves that open.
func (j *journal) swap(records iter.Seq[record]) (*os.File, error) {
	f, err := os.OpenFile(j.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	first, err := json.Marshal(header{version, j.boot})
	if err == nil {
		err = j.write(f, append(first, '\n'))
	}
	if err == nil {
		err = j.put(f, largest, records)
	}
	if err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(j.path))
	}
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return f, nil
}

// close lets go of the file.
func (j *journal) close() {
	if j.file != nil {
		j.file.Close()
	}
	j.lock.Close()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}

// bootID names this run of the kernel. It is read once, at the start, while the process
// still may. If it cannot be read, no two are the same.
var bootID = sync.OnceValue(func() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
})
