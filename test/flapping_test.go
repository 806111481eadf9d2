package test

import (
	"errors"
	"net/netip"
	"regexp"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/program"
)

// TestFlapping: an interface that goes up and down all the time, and addresses that come and go, fill no log: what
// is left out is counted, and at last the log has how it is (contract, What is logged).
func TestFlapping(t *testing.T) {
	rig.Require(t)
	p := start(t, write(t, "sas:\n  - {name: flap, spi: 0xf001, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes128gcm16,\n"+
		"     encryption_key: 0x101112131415161718191a1b1c1d1e1fb1b2b3b4}\n"), "--wire", "fl0", "--transport", "fls0")
	move := func(to string) func() error {
		return func() error {
			return errors.Join(rig.Flush("fls0"), netns.Address("fls0", netip.MustParsePrefix(to)))
		}
	}
	for _, c := range []struct {
		what          string
		there, change func() error
		last          string // line
	}{
		{`msg=interface-\S+ interface=fl0`, func() error { return netns.Up("fl0") }, func() error { return rig.Down("fl0") },
			`msg=interface-up interface=fl0`},
		{`msg="local addresses"`, move("198.51.100.10/24"), move("198.51.100.11/24"),
			`msg="local addresses" are=\S*198\.51\.100\.10\D`},
	} {
		counted, lines := regexp.MustCompile(c.what+`.* suppressed=[1-9]`), regexp.MustCompile(c.what)
		program.Await(t, c.what+" is counted", func() bool {
			if err := errors.Join(c.change(), c.there()); err != nil {
				t.Fatal(err)
			}
			return counted.MatchString(p.logged())
		})
		program.Await(t, c.last+" at last", func() bool {
			at := lines.FindAllStringIndex(p.logged(), -1)
			return regexp.MustCompile(`^` + c.last).MatchString(p.logged()[at[len(at)-1][0]:])
		})
	}
}
