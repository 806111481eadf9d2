package dump

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/capture"
)

// first calls do before the first read.
type first struct {
	io.Reader
	do func()
}

func (f *first) Read(b []byte) (int, error) {
	if f.do != nil {
		f.do()
		f.do = nil
	}
	return f.Reader.Read(b)
}

// A file that cannot grow ends the capture, and with it the ring: no further file takes the place of one that has
// frames.
func TestFullDiskEndsTheRing(t *testing.T) {
	const before, frames = 10, 200
	var stream bytes.Buffer
	w, side := beginning(t, &stream)
	early := 0
	for i := range frames {
		if i == before {
			early = stream.Len()
		}
		if err := w.Frame(side, time.Unix(int64(i), 0), make([]byte, 1000), ""); err != nil {
			t.Fatal(err)
		}
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 15, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &was)
	dir := t.TempDir()
	all := stream.Bytes()
	in := io.MultiReader(bytes.NewReader(all[:early]), bytes.NewReader(all[early:]))
	if _, err := Copy(in, Options{Path: filepath.Join(dir, "x.pcapng"), Size: 1 << 16, Keep: 1}); !errors.Is(err, unix.EFBIG) {
		t.Errorf("the capture ended with %v", err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "x_00001_*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("of the first file there is %v, %v", names, err)
	}
	kept, err := os.ReadFile(names[0])
	if err != nil || !bytes.Equal(kept, all[:early]) {
		t.Errorf("it has %d bytes of %d, %v", len(kept), early, err)
	}
}

// The counts at the end of a full file stay in it: for them no older file goes.
func TestCountsBeginNoFile(t *testing.T) {
	const size, block = 1 << 16, 32 // bytes of a file, and of a frame's block without the frame
	var stream bytes.Buffer
	w, side := beginning(t, &stream)
	for stream.Len() < size { // up to the last byte
		left := size - stream.Len()
		if left > 2000 {
			left = 1000
		}
		if err := w.Frame(side, time.Unix(1, 0), make([]byte, left-block), ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Counts(side, time.Unix(2, 0), capture.Counts{Lost: 9}); err != nil {
		t.Fatal(err)
	}
	want := stream.Bytes()
	dir := t.TempDir()
	sum, err := Copy(bytes.NewReader(want), Options{Path: filepath.Join(dir, "x.pcapng"), Size: size, Keep: 1})
	if err != nil || sum.Lost != 9 {
		t.Errorf("%+v, %v", sum, err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "x_*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("there is %v, %v", names, err)
	}
	if kept, err := os.ReadFile(names[0]); err != nil || !bytes.Equal(kept, want) {
		t.Errorf("it has %d bytes of %d, %v", len(kept), len(want), err)
	}
}

// beginning begins a capture of one interface.
func beginning(t *testing.T, stream *bytes.Buffer) (w *capture.Writer, side int) {
	t.Helper()
	w, err := capture.NewWriter(stream)
	if err != nil {
		t.Fatal(err)
	}
	if side, err = w.Interface("wire", ""); err != nil {
		t.Fatal(err)
	}
	return w, side
}

// A capture goes on where somebody else has taken an old file of a ring away.
func TestOldFileIsGone(t *testing.T) {
	const frames = 300
	var stream bytes.Buffer
	w, side := beginning(t, &stream)
	for i := range frames {
		if err := w.Frame(side, time.Unix(int64(i), 0), make([]byte, 1000), ""); err != nil {
			t.Fatal(err)
		}
	}
	files := filepath.Join(t.TempDir(), "*.pcapng")
	there := func() []string {
		all, err := filepath.Glob(files)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	in := &first{&stream, func() {
		if all := there(); len(all) != 1 || os.Remove(all[0]) != nil {
			t.Fatalf("the first file is not alone: %v", all)
		}
	}}
	sum, err := Copy(in, Options{Path: filepath.Join(filepath.Dir(files), "x.pcapng"), Size: 1 << 16, Keep: 2})
	if err != nil || sum.Frames != frames {
		t.Errorf("%d frames, %v", sum.Frames, err)
	}
	if all := there(); len(all) != 2 {
		t.Errorf("of the ring there is %v", all)
	}
}
