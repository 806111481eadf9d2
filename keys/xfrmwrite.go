package keys

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"tapsec/sa"
)

// WriteXFRM prints the commands that make these SAs in Linux, keys included.
// What Linux cannot hold becomes a comment. Errors are the writer's.
func WriteXFRM(w io.Writer, sas []*sa.SA) error {
	return writeLines(w, sas, xfrmCommand)
}

// writeLines writes a line for each SA, or a comment that says why there is none.
func writeLines(w io.Writer, sas []*sa.SA, lineOf func(*sa.SA) (string, error)) error {
	for _, s := range sas {
		line, err := lineOf(s)
		if err != nil {
			line = fmt.Sprintf("# %s: %v", oneLine(s.Name), err)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func xfrmCommand(s *sa.SA) (string, error) {
	_, integrity := linux.of(s.Suite)
	if !s.Dst.IsValid() {
		return "", errors.New("a destination is needed")
	}
	if s.Mode == sa.Auto {
		return "", errors.New("its mode is not known (auto), and Linux needs one")
	}
	if s.Suite.Integrity != sa.NoIntegrity && integrity == "" {
		return "", fmt.Errorf("%s %s is unknown to Linux", s.Protocol, s.Suite.Name)
	}
	any := netip.IPv6Unspecified()
	if s.Dst.Is4() {
		any = netip.IPv4Unspecified()
	}
	src := s.Src
	if !src.IsValid() {
		src = any
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ip xfrm state add src %s dst %s proto %s spi 0x%08x", src, s.Dst, s.Protocol, s.SPI)
	if s.ReqID != 0 {
		fmt.Fprintf(&b, " reqid %d", s.ReqID)
	}
	fmt.Fprintf(&b, " mode %s", s.Mode)
	switch {
	case s.Direction == sa.Outbound: // Linux refuses one if it knows the direction
	case s.ESN && s.Window == 0: // Linux has no ESN without a window
		fmt.Fprintf(&b, " replay-window %d", sa.DefaultWindow)
	case s.Window > 0 && (s.ESN || !s.ReplayOff):
		fmt.Fprintf(&b, " replay-window %d", s.Window)
	}
	if s.Mode == sa.Tunnel {
		b.WriteString(" flag af-unspec")
	}
	if s.ESN {
		b.WriteString(" flag esn")
	}
	b.WriteString(xfrmNumbers(s))
	b.WriteString(xfrmAlgorithms(s))
	if s.Encap {
		src, dst := s.EncapPorts()
		fmt.Fprintf(&b, " encap espinudp %d %d %s", src, dst, any)
	}
	if s.Direction != sa.AnyDirection {
		fmt.Fprintf(&b, " dir %s", s.Direction)
	}
	b.WriteString(xfrmSelector(s.Selector))
	return b.String(), nil
}

func xfrmAlgorithms(s *sa.SA) string {
	var b strings.Builder
	cipher, integrity := linux.of(s.Suite)
	switch {
	case s.Protocol == sa.ESP && s.Suite.ICVLen > 0 && integrity == "":
		fmt.Fprintf(&b, " aead '%s' 0x%x %d", cipher, s.EncryptionKey.Bytes(), s.Suite.ICVLen*8)
	case s.Protocol == sa.ESP && s.EncryptionKey.Len() == 0:
		fmt.Fprintf(&b, " enc '%s' ''", cipher)
	case s.Protocol == sa.ESP:
		fmt.Fprintf(&b, " enc '%s' 0x%x", cipher, s.EncryptionKey.Bytes())
	}
	if integrity != "" {
		fmt.Fprintf(&b, " auth-trunc '%s' 0x%x %d", integrity, s.IntegrityKey.Bytes(), s.Suite.ICVLen*8)
	}
	return b.String()
}

// xfrmSelector prints a selector. Linux has no ranges of ports; such a range
// is left out, and the selector is wider.
func xfrmSelector(s *sa.Selector) string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString(" sel")
	for _, p := range []struct {
		word string
		netip.Prefix
	}{{"src", s.Src}, {"dst", s.Dst}} {
		if p.IsValid() {
			fmt.Fprintf(&b, " %s %s", p.word, p.Prefix)
		}
	}
	if s.Protocol != 0 {
		fmt.Fprintf(&b, " proto %d", s.Protocol)
	}
	for _, p := range []struct {
		word string
		sa.Ports
	}{{"sport", s.SrcPorts}, {"dport", s.DstPorts}} {
		if p.First != 0 && p.First == p.Last {
			fmt.Fprintf(&b, " %s %d", p.word, p.First)
		}
	}
	return b.String()
}

// oneLine keeps a name from ending its comment.
func oneLine(name string) string { return strings.Trim(strconv.Quote(name), `"`) }
