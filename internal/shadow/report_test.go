package shadow

import (
	"net/netip"
	"strings"
	"testing"

	"tapsec/internal/mirror"
	"tapsec/sa"
	"tapsec/status"
)

func made(name string, u mirror.Usage) *account {
	return newAccount(&sa.SA{Name: name, SPI: 0xc0ffee01, Protocol: sa.ESP, Mode: sa.Tunnel, Dst: netip.MustParseAddr("192.0.2.2")}, u)
}

// A frame's fate is the kernel's: the window is asked before the ICV, a number that was
// not authentic moves nothing, and a window that is off takes everything.
func TestFate(t *testing.T) {
	type came struct {
		number uint64
		state  status.State
		reason status.Reason
		want   fate
	}
	valid := func(n uint64, f fate) came { return came{n, status.ICVValid, status.Verified, f} }
	bad := func(n uint64, f fate) came { return came{n, status.FailedBefore, status.ESPICV, f} }
	for name, frames := range map[string]struct {
		window uint32
		all    []came
	}{
		"32": {32, []came{valid(1, took), valid(1, replayed), bad(1, replayed), bad(9000, badICV), valid(40, took), valid(8, late), valid(9, took), bad(8, late),
			{41, status.FailedAfter, status.PadBytes, malformed}, {42, status.NotProcessed, status.Fragment, unjudged}, valid(41, took)}},
		"off": {0, []came{valid(9, took), valid(9, took), bad(9, badICV), valid(1, took)}},
	} {
		a := made(name, mirror.Usage{Window: frames.window})
		for i, f := range frames.all {
			if got := a.fate(&status.Record{Number: f.number, State: f.state, Reason: f.reason}); got != f.want {
				t.Errorf("window %s, frame %d: %s, want %s", name, i, fateNames[got], fateNames[f.want])
			}
		}
	}
}

// What may have come before or after the kernel counted makes a range; outside of it
// kernel and tapsec differ. Lost copies and frames left alone may have been anything.
func TestRow(t *testing.T) {
	for _, one := range []struct {
		name        string
		sure, maybe uint64 // taken by tapsec
		lost        uint64
		kernel      uint64
		differs     bool
	}{
		{"equal", 10, 0, 0, 10, false},
		{"one more", 10, 0, 0, 11, true},
		{"one less", 10, 0, 0, 9, true},
		{"within", 10, 2, 0, 11, false},
		{"above", 10, 2, 0, 13, true},
		{"lost", 10, 0, 3, 13, false},
		{"more than lost", 10, 0, 3, 14, true},
	} {
		a := made("x", mirror.Usage{Packets: 100, Window: 32})
		a.kernel.Packets += one.kernel
		a.sure[took], a.maybe[took] = one.sure, one.maybe
		if row := a.row(one.lost); (len(row.Differ) > 0) != one.differs {
			t.Errorf("%s: %v", one.name, row.Differ)
		}
	}
	small := made("small", mirror.Usage{Window: 8})
	small.kernel.Packets, small.kernel.Replayed, small.kernel.Late = 7, 2, 1
	small.sure[took] = 10
	if row := small.row(0); len(row.Differ) > 0 {
		t.Errorf("a window of 8: %v", row.Differ)
	}
}

// What is printed fits a terminal and says what the kernel dropped, and why.
func TestPrint(t *testing.T) {
	site := made("esp-c0ffee01", mirror.Usage{Window: 32})
	site.sure, site.kernel = [fates]uint64{took: 4990, badICV: 12, replayed: 7, malformed: 1, unjudged: 3}, mirror.Usage{Packets: 4990, BadICV: 12, Replayed: 7, Window: 32}
	site.reasons = map[status.Reason]uint64{status.ESPICV: 12, status.PadBytes: 1}
	other := made("esp-c0ffee02-2001:db8:1:2:3:4:5:6", mirror.Usage{})
	other.sure[took], other.maybe[took], other.kernel.Packets = 1234567, 3, 1234560
	r := Report{Interface: "eth0", Seconds: 12.04, Frames: Frames{Copied: 5100, Judged: 5010, Unknown: 2, Lost: 1}, SAs: []Row{site.row(1), other.row(1)},
		XfrmStat: map[string]uint64{"XfrmInStateProtoError": 13}}
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	const want = `12.0 s on eth0: 5100 frames copied, 5010 judged, 2 of SAs that the kernel has not
copies lost: 1; each may have been anything

SA                    took  bad ICV  replayed   late  malformed  left alone
esp-c0ffee01
  kernel              4990       12         7      0          -           -
  tapsec              4990       12         7      0          1           3
esp-c0ffee02-2001:db8:1:2:3:4:5:6
  kernel           1234560        0         0      0          -           -
  tapsec   1234567-1234570        0         0      0          0           0

the kernel dropped 19 frames of esp-c0ffee01; 12 have a wrong ICV, 7 came before
malformed frames of esp-c0ffee01, which the kernel counts for no SA: 1
  (pad-bytes 1)
esp-c0ffee02-2001:db8:1:2:3:4:5:6: kernel and tapsec differ in took
the kernel's XfrmInStateProtoError has risen by 13
`
	if b.String() != want {
		t.Errorf("it prints\n%s", b.String())
	}
}
