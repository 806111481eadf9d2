package mirror

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"tapsec/internal/audit"
	"tapsec/keys"
	"tapsec/sa"
)

// recording is a kernel whose messages were written down (test/interop/linux/netlink.py).
type recording struct {
	t      *testing.T
	lines  []string
	number uint32
}

func (r *recording) port() uint32 { return r.number }
func (r *recording) wake()        {}
func (r *recording) Close() error { return nil }

var errOver = errors.New("the recording is over")

// receive gives what the socket got. That nothing had come was no reason to wait no
// longer, where a mirror waits.
func (r *recording) receive(wait time.Duration) ([]byte, error) {
	for len(r.lines) > 0 {
		word, rest, _ := strings.Cut(r.lines[0], " ")
		if word == "ask" && wait == 0 {
			return nil, errNone
		}
		r.lines = r.lines[1:]
		switch word {
		case "got":
			datagram, err := hex.DecodeString(rest)
			return datagram, err
		case "lost":
			return nil, unix.ENOBUFS
		case "none":
			if wait == 0 {
				return nil, errNone
			}
		default:
			r.t.Fatalf("the mirror waits where the recorder says %q, %d lines before the end", word, len(r.lines))
		}
	}
	return nil, errOver
}

// ask is where the recorder asked, too.
func (r *recording) ask(request uint32) error {
	if len(r.lines) == 0 || r.lines[0] != fmt.Sprint("ask ", request) {
		r.t.Fatalf("the mirror asks for dump %d where the recorder does not, %d lines before the end", request, len(r.lines))
	}
	r.lines = r.lines[1:]
	return nil
}

func play(t *testing.T, name string) *recording {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".netlink"))
	if err != nil {
		t.Fatal(err)
	}
	r := &recording{t: t, lines: strings.Split(strings.TrimSpace(string(text)), "\n")}
	if _, err := fmt.Sscanf(r.lines[0], "port %d", &r.number); err != nil {
		t.Fatal(err)
	}
	r.lines = r.lines[1:]
	return r
}

// nic notes what it is given. It holds each identity once, and takes away only what it
// holds: the mirror has no business with anything else.
type nic struct {
	t       *testing.T
	holds   map[sa.ID]*sa.SA
	full    int // as many SAs; 0: no bound
	added   []string
	deleted []string
}

func (n *nic) Add(s *sa.SA) error {
	if n.holds[s.ID()] != nil {
		return nil
	}
	if n.full > 0 && len(n.holds) == n.full {
		return sa.ErrFull
	}
	n.holds[s.ID()] = s
	n.added = append(n.added, s.ID().String())
	return nil
}

func (n *nic) Delete(s *sa.SA) {
	if n.holds[s.ID()] == nil {
		n.t.Errorf("%s is deleted and is not there", s.ID())
	}
	delete(n.holds, s.ID())
	n.deleted = append(n.deleted, s.ID().String())
}

// follow has a mirror live through a recording.
func follow(t *testing.T, name string) (*Mirror, *nic, *bytes.Buffer) {
	t.Helper()
	n, log := &nic{t: t, holds: map[sa.ID]*sa.SA{}}, new(bytes.Buffer)
	m := newMirror(play(t, name), n, slog.New(slog.NewTextHandler(log, nil)))
	m.through(t)
	return m, n, log
}

// through plays to the end.
func (m *Mirror) through(t *testing.T) {
	t.Helper()
	for {
		if err := m.step(-1); errors.Is(err, errOver) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// Behind each recording the NIC holds what `ip xfrm state` printed then, as keys reads
// that text: overruns, news within a dump, updates, expiry, flush and migration lose and
// double nothing.
func TestRecorded(t *testing.T) {
	files, err := filepath.Glob("testdata/*.netlink")
	if err != nil || len(files) != 5 {
		t.Fatalf("%d recordings: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".netlink")
		t.Run(name, func(t *testing.T) {
			m, n, log := follow(t, name)
			text, err := os.ReadFile(filepath.Join("testdata", name+".xfrm"))
			if err != nil {
				t.Fatal(err)
			}
			want, err := keys.Read(name, text)
			if err != nil {
				t.Fatal(err)
			}
			if len(n.holds) != len(want.All) || len(want.All) == 0 {
				t.Errorf("%d SAs, want %d; %s", len(n.holds), len(want.All), log)
			}
			for _, s := range want.All {
				got := n.holds[s.ID()]
				if got == nil {
					t.Errorf("%s is missing", s)
				} else if err := alike(got, s); err != nil {
					t.Errorf("%s: %v", s, err)
				}
			}
			if m.dump != nil || m.stale {
				t.Error("the mirror does not know all at the end")
			}
			lost := strings.Count(fmt.Sprint(play(t, name).lines), "lost")
			if said := strings.Count(log.String(), "news of the kernel's SAs was lost"); said != lost || (lost == 0) != (name != "again" && name != "overrun") {
				t.Errorf("%d losses, of which %d were said", lost, said)
			}
		})
	}
}

// alike compares all that an SA has but its name.
func alike(a, b *sa.SA) error {
	one, other := *a, *b
	one.Name, other.Name = "", ""
	if !one.EncryptionKey.Equal(other.EncryptionKey) || !one.IntegrityKey.Equal(other.IntegrityKey) {
		return errors.New("the keys differ")
	}
	text := func(s sa.SA) string {
		return fmt.Sprintf("%v %v %v %v %v %+v", s.Selector, s.Bitmap, s.Seq, s.OSeq, s.Window, struct {
			ID   sa.ID
			Rest []any
		}{s.ID(), []any{s.Mode, s.Suite.Name, s.Direction, s.ESN, s.SeqHigh, s.Encap, s.EncapSrc, s.EncapDst, s.Offload, s.PadCheck, s.Lifetimes}})
	}
	if text(one) != text(other) {
		return fmt.Errorf("found %s, want %s", text(one), text(other))
	}
	return nil
}

// A kernel with several processors may queue what a dump says of SAs behind newer news
// of them. The news count.
func TestLateAnswer(t *testing.T) {
	r := play(t, "interleaved")
	var news, answers []string
	for _, line := range r.lines[1:slices.Index(r.lines, "ask 2")] {
		datagram, _ := hex.DecodeString(strings.TrimPrefix(line, "got "))
		switch {
		case len(datagram) == 0 || split(datagram)[0].kind == isUpdated: // of which the mirror would ask
		case split(datagram)[0].port == r.number:
			answers = append(answers, line)
		default:
			news = append(news, line)
		}
	}
	r.lines = slices.Concat([]string{"none", "ask 1"}, news, answers)
	n := &nic{t: t, holds: map[sa.ID]*sa.SA{}}
	m := newMirror(r, n, slog.New(slog.DiscardHandler))
	m.through(t)
	text, err := os.ReadFile("testdata/interleaved.xfrm")
	if err != nil {
		t.Fatal(err)
	}
	want, err := keys.Read("interleaved", text)
	if err != nil || len(want.All) != len(n.holds) || len(answers) < 3 || len(news) < 6 || m.stale {
		t.Errorf("%d SAs, want %d, of %d answers and %d news; %v", len(n.holds), len(want.All), len(answers), len(news), err)
	}
}

// A dump of which the kernel says that it is not whole takes nothing away, and is asked
// for again.
func TestPartial(t *testing.T) {
	m, n, _ := follow(t, "overrun")
	r := m.kernel.(*recording)
	before := len(n.holds)
	done := binary.NativeEndian.AppendUint32(nil, headerLen+4)
	done = binary.NativeEndian.AppendUint16(done, unix.NLMSG_DONE)
	done = binary.NativeEndian.AppendUint16(done, unix.NLM_F_MULTI|unix.NLM_F_DUMP_INTR)
	done = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(done, m.request+1), r.number)
	r.lines = []string{"none", fmt.Sprint("ask ", m.request+1), "got " + hex.EncodeToString(append(done, 0, 0, 0, 0)), "none", fmt.Sprint("ask ", m.request+2)}
	m.stale = true
	m.through(t)
	if len(n.holds) != before || m.dump == nil {
		t.Errorf("%d SAs are left of %d", len(n.holds), before)
	}
}

// What is not there any more was deleted when that was said, and what changed was
// deleted and added anew; all else was added once.
func TestDeeds(t *testing.T) {
	_, n, _ := follow(t, "changes")
	times := func(all []string, spi string) (times int) {
		for _, s := range all {
			if strings.Contains(s, " SPI 0x"+spi+" ") {
				times++
			}
		}
		return times
	}
	for _, one := range []struct {
		spi            string
		added, deleted int
		why            string
	}{
		{"00000101", 1, 1, "deleted"},
		{"00000102", 1, 0, "updated with another key, which the kernel does not take"},
		{"00000103", 1, 0, "updated with the same key"},
		{"00000200", 1, 0, "larval first, and updated"},
		{"00000201", 0, 0, "larval, and expired"},
		{"00000211", 1, 1, "expired"},
		{"00000210", 1, 0, "expired softly"},
		{"00000300", 1, 1, "flushed"},
		{"00000400", 2, 1, "migrated"},
	} {
		if a, d := times(n.added, one.spi), times(n.deleted, one.spi); a != one.added || d != one.deleted {
			t.Errorf("%s, %s: added %d times, deleted %d times, want %d and %d", one.spi, one.why, a, d, one.added, one.deleted)
		}
	}
}

// What cannot be held is said once, by what identifies it, and no key is in any line.
func TestLeft(t *testing.T) {
	m, n, log := follow(t, "algorithms")
	for which := range m.left { // flushed between, and added anew
		if got := strings.Count(log.String(), `"`+which.String()+`"`); got != 2 {
			t.Errorf("%s: %d lines", which, got)
		}
	}
	for _, s := range n.holds {
		for _, k := range []sa.Key{s.EncryptionKey, s.IntegrityKey} {
			if k.Len() > 0 && strings.Contains(log.String(), hex.EncodeToString(k.Bytes())) {
				t.Error("a key is in the log")
			}
		}
	}
	if !strings.Contains(log.String(), "mode 4 of linux/xfrm.h is not supported") {
		t.Errorf("BEET mode was not said:\n%s", log)
	}

	n = &nic{t: t, holds: map[sa.ID]*sa.SA{}, full: 10}
	log.Reset()
	m = newMirror(play(t, "overrun"), n, slog.New(slog.NewTextHandler(log, nil)))
	m.through(t)
	for which, said := range m.left {
		if got := strings.Count(log.String(), `"`+which.String()+`"`); got > 1 || said != sa.ErrFull.Error() {
			t.Errorf("%s: %d lines, %s", which, got, said)
		}
	}
	if len(n.holds) > n.full || len(m.left)+len(n.holds) < 60 {
		t.Errorf("%d SAs, and %d left", len(n.holds), len(m.left))
	}
}

// crowd is a kernel that has many SAs, of a kind that is left to it, in one datagram, and nothing more.
type crowd struct {
	recording
	all []byte
	end func()
}

func (c *crowd) receive(wait time.Duration) ([]byte, error) {
	if all := c.all; all != nil {
		c.all = nil
		return all, nil
	}
	if wait != time.Second {
		c.t.Errorf("with lines left out it waits %s", wait)
	}
	time.Sleep(wait)
	c.end()
	return nil, errNone
}

// However many SAs are left to the kernel, the log has a bounded number of lines, and how many it left out.
func TestManyLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 1000
		var one []byte
		for _, line := range play(t, "changes").lines {
			datagram, err := hex.DecodeString(strings.TrimPrefix(line, "got "))
			if err == nil && split(datagram)[0].kind == isThere {
				one = datagram
				break
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		c := &crowd{recording: recording{t: t}, end: cancel}
		for spi := range uint32(many) {
			next := bytes.Clone(one)
			binary.BigEndian.PutUint32(next[headerLen+nl.SizeofXfrmSelector+16:], 0x1000+spi)
			c.all = append(c.all, next...)
		}
		log := new(bytes.Buffer)
		m := newMirror(c, &nic{t: t, holds: map[sa.ID]*sa.SA{}, full: 1}, slog.New(slog.NewTextHandler(log, nil)))
		m.stale = false
		if err := m.Run(ctx); err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(log.String(), "is left to it")
		if left := fmt.Sprintf("suppressed=%d\n", many-1-lines); lines != audit.PerReason || !strings.HasSuffix(log.String(), left) {
			t.Errorf("%d lines, and then\n%s", lines, log.String()[max(0, log.Len()-200):])
		}
	})
}

// The kernel's SAs with one identity to us, which differ by their marks, are one: the
// second is left to it, and its end takes nothing away.
func TestMarks(t *testing.T) {
	m, n, _ := follow(t, "changes")
	gone := false
	for which := range m.left {
		if which.spi == 0x220 {
			m.gone(which)
			gone = true
		}
	}
	if !gone || !slices.ContainsFunc(slices.Collect(maps.Keys(n.holds)), func(id sa.ID) bool { return id.SPI == 0x220 }) {
		t.Error("the SA that is left went with the other one")
	}
}

// Whatever comes, nothing panics, and no datagram goes on for ever.
func FuzzSplit(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.netlink")
	for _, file := range files {
		for _, line := range play(&testing.T{}, strings.TrimSuffix(filepath.Base(file), ".netlink")).lines {
			if datagram, err := hex.DecodeString(strings.TrimPrefix(line, "got ")); err == nil {
				f.Add(datagram[:min(len(datagram), 2000)])
			}
		}
	}
	f.Fuzz(func(t *testing.T, datagram []byte) {
		n := &nic{t: t, holds: map[sa.ID]*sa.SA{}}
		m := newMirror(&recording{t: t}, n, slog.New(slog.DiscardHandler))
		m.dump, m.request = &dump{map[id]bool{}, map[id]bool{}}, 1
		for _, one := range split(datagram) {
			m.take(&one)
			if one.kind != unread && one.state.Protocol != 0 {
				_, _ = one.state.SA()
			}
		}
		if len(n.holds) != len(m.held) {
			t.Errorf("the NIC holds %d SAs, the mirror %d", len(n.holds), len(m.held))
		}
	})
}

// A kernel from 6.10 on says which way a state goes.
func TestDirection(t *testing.T) {
	for value, want := range map[byte]sa.Direction{1: sa.Inbound, 2: sa.Outbound, 3: sa.AnyDirection} {
		for _, line := range play(t, "changes").lines {
			datagram, err := hex.DecodeString(strings.TrimPrefix(line, "got "))
			if err != nil || split(datagram)[0].kind != isThere {
				continue
			}
			datagram = binary.NativeEndian.AppendUint16(datagram, 4+1)
			datagram = binary.NativeEndian.AppendUint16(datagram, nl.XFRMA_SA_DIR)
			datagram = append(datagram, value, 0, 0, 0)
			binary.NativeEndian.PutUint32(datagram, uint32(len(datagram)))
			m := split(datagram)[0]
			if s, err := m.state.SA(); err != nil || s.Direction != want {
				t.Errorf("%d is %v, want %s: %v", value, s, want, err)
			}
			break
		}
	}
}
