package linux

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/internal/shadow"
	"tapsec/test/interop"
	"tapsec/test/program"
)

// TestShadow has tapsec judge beside a kernel that does ESP itself. Of each SA the two
// count the same: taken, wrong ICV, seen before, too old; also of one that ends meanwhile
// and of one that begins. What comes where nobody copies makes them differ.
func TestShadow(t *testing.T) {
	interop.Require(t, "linux.uml", "ip")
	rig.Require(t)
	out := t.TempDir()
	uml := boot(t, "shadow.py", out, "TAPSEC="+program.Path)
	uml.Await("all shadowed", 1)
	uml.Join()

	one := reportOf(t, out, "one", "0")
	for _, want := range []struct {
		spi                          string
		took, badICV, replayed, late uint64
		ended                        bool
	}{
		{"0x00001001", 150, 12, 7, 3, false},
		{"0x00001002", 0, 20, 0, 0, false},
		{"0x00001003", 30, 0, 0, 0, true},
		{"0x00001004", 40, 0, 0, 0, false},
	} {
		i := slices.IndexFunc(one.SAs, func(r shadow.Row) bool { return r.SPI.String() == want.spi })
		if i < 0 {
			t.Errorf("%s is not among %+v", want.spi, one.SAs)
			continue
		}
		row := one.SAs[i]
		if row.Kernel != (shadow.Counts{Took: want.took, BadICV: want.badICV, Replayed: want.replayed, Late: want.late}) || row.Ended != want.ended || len(row.Differ) > 0 {
			t.Errorf("%+v, want %+v", row, want)
		}
		for name, n := range map[string]uint64{"took": want.took, "bad_icv": want.badICV, "replayed": want.replayed, "late": want.late} {
			if row.Tapsec[name] != (shadow.Range{From: n, To: n}) {
				t.Errorf("%s: tapsec says %s %s, want %d", want.spi, row.Tapsec[name], name, n)
			}
		}
		if row.Reasons["esp-icv"] != want.badICV {
			t.Errorf("%s: %v", want.spi, row.Reasons)
		}
	}
	if stat := fmt.Sprint(one.XfrmStat); one.Frames.Lost > 0 || !strings.Contains(stat, "XfrmInStateProtoError:32") || !strings.Contains(stat, "XfrmInStateSeqError:10") {
		t.Errorf("%+v %s", one.Frames, stat)
	}
	if other := reportOf(t, out, "other", "4"); other.Agrees || len(other.SAs) != 1 || !slices.Equal(other.SAs[0].Differ, []string{"bad_icv"}) || other.SAs[0].Kernel.BadICV != 5 {
		t.Errorf("%+v", other)
	}
}

func reportOf(t *testing.T, out, name, exit string) (r shadow.Report) {
	t.Helper()
	said := read(t, out, name+".exit")
	if code, _, _ := strings.Cut(said, "\n"); code != exit {
		t.Fatalf("%s: exit code %s", name, said)
	}
	if err := json.Unmarshal([]byte(read(t, out, name+".json")), &r); err != nil {
		t.Fatal(err)
	}
	return r
}
