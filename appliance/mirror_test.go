package appliance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/sa"
)

// What mirrors the kernel and what is the user's stay apart (contract, Lifecycle):
// neither takes the other's away, each identity is in force once, and the NIC has what
// the list has.
func TestMirrored(t *testing.T) {
	one := func(name string, spi uint32) *sa.SA { return makeSA(name, spi, sa.ESP, sa.Tunnel, "aes128gcm16") }
	file := []*sa.SA{one("mine", 1)}
	load := func() *configs.Config {
		c := configs.Default()
		c.SAs, c.SACapacity = slices.Clone(file), 6
		return c
	}
	b := newBench(t, load, false)
	kernel := mirrored{b.Appliance}
	is := func(want ...string) {
		t.Helper()
		var got []string
		for _, s := range b.life.List(0, 100).SAs {
			got = append(got, fmt.Sprintf("%s %d %s", s.Name, s.SPI, s.Origin))
			if !s.Offloaded {
				t.Errorf("the NIC does not hold %s", s.Name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || b.adapter.sad.Count() != len(want) {
			t.Errorf("in force are %q and %d in the NIC, want %q", got, b.adapter.sad.Count(), want)
		}
	}
	add := func(spi uint32, want string) {
		t.Helper()
		s := one("", spi)
		s.Offload = sa.Preferred // as package keys makes it
		if err := kernel.Add(s); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("add %d: %v, want %q", spi, err, want)
		}
	}
	reload := func() {
		t.Helper()
		if err := b.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	add(1, "there is mine")
	add(2, "")
	add(2, "") // again, after a comparison
	if _, err := b.life.Add([]*sa.SA{one("hand", 3)}); err != nil {
		t.Fatal(err)
	}
	add(3, "of the socket")
	if _, err := b.life.Add([]*sa.SA{one("two", 2)}); !errors.Is(err, sa.ErrExists) {
		t.Errorf("the mirror's was added by hand: %v", err)
	}
	is("esp-00000002 2 mirror", "hand 3 socket", "mine 1 file")
	for spi := range uint32(4) { // the kernel has none any more
		kernel.Delete(one("", spi))
	}
	is("hand 3 socket", "mine 1 file")

	add(2, "")
	add(4, "")
	reload()
	is("esp-00000002 2 mirror", "esp-00000004 4 mirror", "hand 3 socket", "mine 1 file")
	file = append(file, one("esp-00000004", 5), one("two", 2)) // a name of the mirror's, and an identity
	reload()
	is("esp-00000004 5 file", "hand 3 socket", "mine 1 file", "two 2 file")
	kernel.Delete(one("", 2))
	add(4, "") // as the comparison afterwards does
	is("esp-00000004 5 file", "esp-00000004-"+ourGate.String()+" 4 mirror", "hand 3 socket", "mine 1 file", "two 2 file")

	add(6, "")
	add(7, "the SA table is full")
	if err := b.life.Delete(control.Ref{Name: "mine"}, false); err != nil {
		t.Fatal(err)
	}
	add(7, "")
	if n, err := b.life.Flush(); n != 6 || err != nil {
		t.Errorf("%d SAs were flushed: %v", n, err)
	}
	kernel.Delete(one("", 7))
	is()

	add(8, "") // until the file needs its room
	file = nil
	var want []string
	for i := range uint32(6) {
		name := fmt.Sprint("mine", i)
		file, want = append(file, one(name, 0x100+i)), append(want, fmt.Sprintf("%s %d file", name, 0x100+i))
	}
	reload()
	add(8, "the SA table is full")
	is(want...)
}
