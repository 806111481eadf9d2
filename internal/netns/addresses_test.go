package netns_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/testkit"
)

func TestMain(m *testing.M) { rig.Main(m) }

// The addresses of an interface are followed through a change of its name, down
// and up, and losing them all; those of others are none of its own.
func TestFollow(t *testing.T) {
	rig.Require(t)
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var a *netns.Addresses
	if err := ns.Do(func() (err error) {
		for _, name := range []string{"one", "two"} {
			if err := netns.AddTAP(name, false); err != nil {
				return err
			}
		}
		a, err = netns.Follow("one")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	is := func(want ...string) {
		t.Helper()
		var got []string
		for deadline := time.After(time.Minute); ; {
			list, err := a.List()
			if err != nil {
				t.Fatal(err)
			}
			got = got[:0]
			for _, one := range list {
				got = append(got, one.String())
			}
			if slices.Equal(got, want) {
				return
			}
			select {
			case <-a.Changed():
			case <-deadline:
				t.Fatalf("the addresses are %v, want %v", got, want)
			}
		}
	}
	in := func(f func() error) {
		t.Helper()
		if err := ns.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	is()
	in(func() error { return netns.Address("one", netip.MustParsePrefix("192.0.2.1/24")) })
	in(func() error { return netns.Address("two", netip.MustParsePrefix("192.0.2.9/24")) })
	is("192.0.2.1")
	in(func() error { return rig.Rename("one", "three") })
	in(func() error { return netns.Address("three", netip.MustParsePrefix("fd00::1/64")) })
	is("192.0.2.1", "fd00::1")
	in(func() error { return rig.Flush("three") })
	is()
	in(func() error { return netns.Address("three", netip.MustParsePrefix("192.0.2.2/24")) })
	is("192.0.2.2")
}

// A view ends beside news of its interface, under the race detector too.
func TestWatchEndsBesideNews(t *testing.T) {
	rig.Require(t)
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		if err := netns.AddTAP("one", false); err != nil {
			return err
		}
		for range 20 {
			w, err := netns.NewWatch("one")
			if err != nil {
				return err
			}
			for mtu := range 5 {
				if err := netns.SetMTU("one", 1000+mtu); err != nil {
					return err
				}
			}
			w.Close()
			w.Look() // sees nothing any more
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// News that come after the kernel had to drop some are heard like those before.
func TestWatchAfterLoss(t *testing.T) {
	rig.Require(t)
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	in := func(do func() error) {
		t.Helper()
		if err := ns.Do(do); err != nil {
			t.Fatal(err)
		}
	}
	var w *netns.Watch
	in(func() (err error) {
		if _, err = rig.QuietVeths(1500, "one", "two"); err == nil {
			w, err = netns.NewWatch("one")
		}
		return err
	})
	defer w.Close()
	seen, listens := make(chan bool, 100), make(chan struct{})
	w.Follow(func(up bool) {
		<-listens // so that news pile up meanwhile
		seen <- up
	})
	is := func(want bool) {
		t.Helper()
		for {
			select {
			case up := <-seen:
				if up == want {
					return
				}
			case <-time.After(testkit.Patience):
				t.Fatalf("that it is up is %v was not heard", want)
			}
		}
	}
	in(func() error { return rig.Down("one") })
	in(func() error {
		for mtu := range 2000 { // far more news than a socket holds
			if err := netns.SetMTU("two", 1000+mtu); err != nil {
				return err
			}
		}
		return nil
	})
	close(listens)
	is(false)
	for range 3 {
		in(func() error { return netns.Up("one") })
		is(true)
		in(func() error { return rig.Down("one") })
		is(false)
	}
}
