package shadow

import (
	"log/slog"
	"net/netip"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/internal/mirror"
	"tapsec/internal/netns"
	"tapsec/sa"
	"tapsec/tap"
)

func TestMain(m *testing.M) { rig.Main(m) }

// A gateway's SAs are taken in a moment, since the kernel's first answer is waited for, each with a name of
// its own.
func TestManySAs(t *testing.T) {
	rig.Require(t)
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	profile, err1 := sa.ProfileByName("full")
	suite, err2 := sa.ParseSuite(sa.ESP, "aes128gcm16")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	s := newShadow("lo", profile, slog.New(slog.DiscardHandler))
	if err := ns.Do(func() (err error) { s.copies, err = tap.OpenCopy("lo"); return err }); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const many = 50000
	names := map[string]bool{}
	for n := range many {
		dst := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + n%2)}) // two share an SPI
		one := &sa.SA{Protocol: sa.ESP, SPI: uint32(0x1000 + n/2), Dst: dst, Mode: sa.Tunnel, Suite: suite, EncryptionKey: sa.NewKey(make([]byte, 20))}
		s.Counted(one, mirror.Usage{})
		if err := s.Add(one); err != nil {
			t.Fatal(err)
		}
		names[one.Name] = true
	}
	if len(names) != many || len(s.all) != many {
		t.Errorf("%d names and %d accounts of %d SAs", len(names), len(s.all), many)
	}
}
