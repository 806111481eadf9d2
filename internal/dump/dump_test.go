package dump

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

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

// A capture goes on where somebody else has taken an old file of a ring away.
func TestOldFileIsGone(t *testing.T) {
	const frames = 300
	var stream bytes.Buffer
	w, err := capture.NewWriter(&stream)
	if err != nil {
		t.Fatal(err)
	}
	side, err := w.Interface("wire", "")
	if err != nil {
		t.Fatal(err)
	}
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
