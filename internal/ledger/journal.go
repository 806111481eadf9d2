package ledger

import (
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
)

const (
	version = 3
	slack   = 256 // superseded lines allowed, plus one for each SA
)

// journal is the file: a header and records, each a line of JSON; a later record replaces
// an earlier one of the same SA. It is appended to, and written anew when it has become
// long or something went wrong. The header says how much of it is relied on; what follows
// is so as far as it is whole. One process has the file, by a lock on one beside it, which
// stays.
type journal struct {
	path  string
	boot  string // the kernel's name for this run of it
	lock  *os.File
	lost  error    // why another process may have had it meanwhile
	file  *os.File // nil: what is at its end is not known, and it must be written anew
	lines int
	size  int64
	sum   uint32 // of its last line

	write func(f *os.File, text []byte) error // fails in tests
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
	switch j.lock, err = takeLock(path); {
	case errors.Is(err, errLocked):
		return nil, fmt.Errorf("state file %s is in use by another process, which holds %s.lock: end that one first, or name another file", path, path)
	case err != nil:
		return nil, fmt.Errorf("state file: %w", err)
	}
	return j, nil
}

// takeLock locks the file beside path.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s.lock: %w", path, err)
	}
	return f, nil
}

// hold makes sure that nobody else has the file, though somebody has removed the lock. Who
// has had it since has written a file of its own, and has used numbers that this process
// does not know.
func (j *journal) hold() error {
	if j.lost != nil {
		return j.lost
	}
	if held, err := isAt(j.lock, j.path+".lock"); held {
		return nil
	} else if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	f, err := takeLock(j.path)
	if err == nil {
		var untouched bool
		if untouched, err = j.untouched(); untouched {
			j.lock.Close()
			j.lock = f
			return nil
		}
		f.Close()
	}
	if err != nil && !errors.Is(err, errLocked) {
		return fmt.Errorf("state file: %w", err)
	}
	j.lost = fmt.Errorf("state file %s: somebody removed %s.lock, and another process uses the file: end one of them, and start this one again", j.path, j.path)
	return j.lost
}

// untouched reports whether no other file than this process's is at the path.
func (j *journal) untouched() (bool, error) {
	if _, err := os.Stat(j.path); errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	return isAt(j.file, j.path)
}

// gone reports whether the file or its lock is no longer where the next process looks for it.
func (j *journal) gone() bool {
	file, err := isAt(j.file, j.path)
	lock, err2 := isAt(j.lock, j.path+".lock")
	return err == nil && err2 == nil && !(file && lock)
}

// isAt reports whether an open file has that path. The error is that this cannot be told.
func isAt(f *os.File, path string) (bool, error) {
	if f == nil {
		return false, nil
	}
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(have, there), err
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
	first, lines, _ := bytes.Cut(text, []byte("\n"))
	var h header
	switch {
	case json.Unmarshal(first, &h) != nil || h.Version == 0:
		return "", nil, j.refuse("is not as tapsec writes it")
	case h.Version != version:
		return "", nil, j.refuse("is of version %d, expected %d", h.Version, version)
	case !bytes.Equal(h.line(), text[:min(len(text), len(first)+1)]):
		return "", nil, j.refuse("is damaged in line 1")
	}
	good, n := whole(lines)
	if end := int64(len(first) + 1 + len(good)); end < h.Size {
		return "", nil, j.refuse("is damaged from line %d on, where %d bytes were written", n+2, h.Size-end)
	}
	records, err = j.decode(good)
	return h.Boot, records, err
}

// decode reads lines behind the header.
func (j *journal) decode(lines []byte) (records []record, err error) {
	d := json.NewDecoder(bytes.NewReader(lines))
	d.DisallowUnknownFields()
	for d.More() {
		var r struct {
			record
			Sum string `json:"sum"`
		}
		if err := cmp.Or(d.Decode(&r), r.check()); err != nil {
			return nil, j.refuse("is not as tapsec writes it, in line %d (%w)", len(records)+2, err)
		}
		records = append(records, r.record)
	}
	return records, nil
}

// append adds records and returns once they are on the disk, and the header says so. After
// it has failed only replace mends the file.
func (j *journal) append(records []record) error {
	err := j.put(j.file, slices.Values(records))
	if err == nil {
		err = j.file.Sync()
	}
	if err == nil {
		err = j.rely(j.file)
	}
	if err != nil {
		j.file.Close()
		j.file = nil
		return fmt.Errorf("state file: %w", err)
	}
	return j.hold()
}

// largest is about how many bytes are written at once.
const largest = 1 << 20

// put writes lines.
func (j *journal) put(f *os.File, records iter.Seq[record]) (err error) {
	var text bytes.Buffer
	flush := func() error {
		defer text.Reset()
		j.size += int64(text.Len())
		return j.write(f, text.Bytes())
	}
	j.sum, err = appendLines(&text, j.sum, func(yield func(record) bool) {
		for r := range records {
			if j.lines++; !yield(r) {
				return
			}
		}
	}, flush)
	return err
}

// rely has the header say that all that was written counts. It reaches the disk with what
// is written next: if the machine stops before, less is relied on, and read all the same.
func (j *journal) rely(f *os.File) error {
	_, err := f.WriteAt(header{Version: version, Boot: j.boot, Size: j.size}.line(), 0)
	return err
}

func write(f *os.File, text []byte) error {
	_, err := f.Write(text)
	return err
}

// long reports whether the file must be written anew.
func (j *journal) long(sas int) bool { return j.file == nil || j.lines > 2*sas+slack || j.gone() }

// replace writes a new file, and renames it over the old one once it is on the disk. At any
// time path holds a complete file, the old one or the new one.
func (j *journal) replace(records iter.Seq[record]) error {
	if err := j.hold(); err != nil {
		return err
	}
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
	f, err := j.swap(records)
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	j.file = f
	return j.hold()
}

// swap replaces the file at path by one of these records, and leaves that open.
func (j *journal) swap(records iter.Seq[record]) (*os.File, error) {
	f, err := os.OpenFile(j.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	first := header{Version: version, Boot: j.boot}.line()
	j.lines, j.size, j.sum = 0, int64(len(first)), 0
	err = j.write(f, first)
	for _, step := range []func() error{
		func() error { return j.put(f, records) },
		func() error { return j.rely(f) },
		f.Sync,
		func() error { return os.Rename(f.Name(), j.path) },
		func() error { return syncDir(filepath.Dir(j.path)) },
	} {
		if err == nil {
			err = step()
		}
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
