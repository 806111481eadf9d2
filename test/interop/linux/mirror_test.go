package linux

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/keys"
	"tapsec/status"
	"tapsec/test/interop"
	"tapsec/test/program"
)

// TestMirror has tapsec follow a kernel's SAs under traffic (contract, Lifecycle): those
// that `ip xfrm` adds and deletes, and those of charons that rekey. Once tapsec says
// that an SA is added no frame of it is unprocessed, and once it says that it is deleted
// none is verified.
func TestMirror(t *testing.T) {
	interop.Require(t, "linux.uml", "ip", "tcpdump", "swanctl", "/usr/lib/ipsec/charon")
	rig.Require(t)
	out := t.TempDir()
	uml := boot(t, "mirror.py", out, "TAPSEC="+program.Path)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(out, "tapsec.log"))
			t.Logf("tapsec said:\n%s", program.Tail(string(log), 60))
		}
	})
	const rounds, rekeys, few, steps = 12, 6, 40, 12 + 2 + 6 + 4 + 2
	for i := range steps { // each has its time
		uml.Await(": done", i+1)
	}
	uml.Await("all followed", 1)
	uml.Join()

	log := read(t, out, "tapsec.log")
	added, deleted := moments(t, log, "sa-added"), moments(t, log, "sa-deleted")
	lives := livesOf(t, filepath.Join(out, "frames.pcap"))
	verified, before, after, early := 0, 0, 0, 0
	for spi, frames := range lives {
		l := life{added: added[spi], deleted: deleted[spi]}
		l.check(t, spi, frames)
		verified += l.verified
		before += l.before
		if spi > 0xffff { // charon's
			early += l.before
		}
		after += l.after
	}
	if len(lives) < rounds+rekeys || verified < few*(rounds+rekeys) || before < few || after < few {
		t.Errorf("%d SAs, %d frames verified, %d before and %d after", len(lives), verified, before, after)
	}
	t.Logf("%d SAs: %d frames verified, %d not yet, %d of them charon's, %d no more", len(lives), verified, before, early, after)
	for _, spi := range strings.Fields(read(t, out, "charon")) {
		if list := read(t, out, "list"); !strings.Contains(list, spi) || !strings.Contains(list, `"mirror"`) {
			t.Errorf("the kernel has %s, tapsec's list:\n%s", spi, list)
		}
	}
	for _, when := range []string{"running", "childless", "another", "ended"} {
		if alive, has := aliveIn(t, filepath.Join(out, when+".log")), read(t, out, when+".spis"); alive != has {
			t.Errorf("%s: the kernel has %q, of charon's log %q have not ended", when, has, alive)
		}
	}
	for _, bad := range []string{"level=ERROR", "is left to it", "were lost", "AUTH_FAILED"} {
		if strings.Contains(log, bad) {
			t.Errorf("the log says %q", bad)
		}
	}
}

// aliveIn are the SPIs of those SAs of charon's log that have not ended.
func aliveIn(t *testing.T, log string) string {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	sas, err := keys.Read(log, text)
	if err != nil {
		t.Fatal(err)
	}
	alive := []string{}
	for _, s := range sas.All {
		if !slices.Contains(sas.Ended, s.Name) {
			alive = append(alive, fmt.Sprintf("%08x", s.SPI))
		}
	}
	slices.Sort(alive)
	return strings.Join(alive, " ")
}

// moments are when tapsec said something of an SA, by its SPI. The log cuts times to
// milliseconds.
func moments(t *testing.T, log, what string) map[uint32]time.Time {
	t.Helper()
	all := map[uint32]time.Time{}
	for _, m := range regexp.MustCompile(`(?m)^time=(\S+) level=INFO msg=`+what+` sas=esp-([0-9a-f]{8})$`).FindAllStringSubmatch(log, -1) {
		at, err := time.Parse(time.RFC3339, m[1])
		spi, err2 := strconv.ParseUint(m[2], 16, 32)
		if err != nil || err2 != nil || !all[uint32(spi)].IsZero() {
			t.Fatalf("%s: %v %v", m[0], err, err2)
		}
		all[uint32(spi)] = at.Add(time.Millisecond)
	}
	return all
}

// judged is a frame of an SA: when it came, and whether it was verified.
type judged struct {
	at       time.Time
	verified bool
}

// livesOf are the ESP frames of a capture, by SPI, in order.
func livesOf(t *testing.T, pcap string) map[uint32][]judged {
	t.Helper()
	const ethernet, ipv4, protocolAt, esp = 14, 20, 9, 50
	lives := map[uint32][]judged{}
	for _, frame := range interop.Frames(t, pcap) {
		if len(frame) < ethernet+ipv4+8 || frame[12] != 8 || frame[13] != 0 || frame[ethernet+protocolAt] != esp {
			continue
		}
		body, trailer, err := status.Split(frame)
		if err != nil {
			t.Fatalf("%x: %v", frame, err)
		}
		spi := binary.BigEndian.Uint32(body[ethernet+ipv4:])
		lives[spi] = append(lives[spi], judged{trailer.Time(), trailer.Word.Verified(1)})
	}
	return lives
}

// life is an SA's, and how its frames fared.
type life struct {
	added, deleted          time.Time
	before, verified, after int
}

// check holds the frames against the times: some are left alone, then all are verified,
// and then all are left alone again.
func (l *life) check(t *testing.T, spi uint32, frames []judged) {
	t.Helper()
	if l.added.IsZero() {
		t.Errorf("SPI %08x was never added", spi)
		return
	}
	for _, f := range frames {
		switch {
		case f.verified && l.after > 0:
			t.Fatalf("SPI %08x: a frame is verified behind one that is not any more", spi)
		case f.verified && !l.deleted.IsZero() && f.at.After(l.deleted):
			t.Fatalf("SPI %08x: a frame is verified %s after its SA was deleted", spi, f.at.Sub(l.deleted))
		case f.verified:
			l.verified++
		case l.verified > 0 && l.deleted.IsZero():
			t.Fatalf("SPI %08x: a frame is not verified, and its SA is there", spi)
		case l.verified > 0:
			l.after++
		case f.at.After(l.added):
			t.Fatalf("SPI %08x: a frame is not verified %s after its SA was added", spi, f.at.Sub(l.added))
		default:
			l.before++
		}
	}
}
