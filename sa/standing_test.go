package sa

import "testing"

// What stands is taken over as it is by Replace, also beside readers; a bundle does not stand where
// one half has changed.
func TestStanding(t *testing.T) {
	one := &SA{SPI: 0x100, Protocol: ESP, Dst: testAddrs[1]}
	ah, esp := &SA{SPI: 0x101, Protocol: AH, Dst: testAddrs[1]}, &SA{SPI: 0x102, Protocol: ESP, Dst: testAddrs[1]}
	table := NewTable[int](0)
	if err := table.AddAll([][]*Entry[int]{{{SA: one, Value: 1}}, {{SA: ah, Value: 2}, {SA: esp, Value: 3}}}); err != nil {
		t.Fatal(err)
	}
	single, both := table.Standing([]*SA{one}), table.Standing([]*SA{ah, esp})
	if len(single) != 1 || len(both) != 2 {
		t.Fatalf("%d of 1 and %d of 2 stand", len(single), len(both))
	}
	other := *esp
	for _, bundle := range [][]*SA{{&other}, {ah}, {ah, &other}, {one, esp}, {{SPI: 0x103}}} {
		if e := table.Standing(bundle); e != nil {
			t.Errorf("%v stands", e)
		}
	}
	stop := make(chan bool)
	go func() {
		for {
			select {
			case <-stop:
				close(stop)
				return
			default:
				m := table.Lookup(0x101, testAddrs[1], testAddrs[2], false)
				table.Use(m.AH)
				_ = m.AH.Partner
			}
		}
	}()
	for range 100 {
		if err := table.Replace([][]*Entry[int]{single, both}); err != nil {
			t.Fatal(err)
		}
	}
	stop <- true
	<-stop
	if e := table.Find(ah.ID()); e != both[0] || e.Partner != both[1] || table.Entry(e.Handle) != e || table.Bundles() != 2 {
		t.Errorf("%v, of %d bundles", e, table.Bundles())
	}
}
