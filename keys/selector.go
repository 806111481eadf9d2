package keys

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"tapsec/sa"
)

// selector takes a selector over. One that cannot be read is an error, since without it the SA
// would take more packets. What is left out of one that cannot be held is noted.
func (s *state) selector(words []string) (err error) {
	var sel sa.Selector
	for i := 1; i < len(words) && err == nil; i += 2 {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "src":
			sel.Src, err = prefix(value)
		case "dst":
			sel.Dst, err = prefix(value)
		case "proto":
			sel.Protocol, err = protocol(value)
		case "sport":
			err = ports(&sel.SrcPorts, value)
		case "dport":
			err = ports(&sel.DstPorts, value)
		case "type", "code", "key", "dev", "uid":
			s.lost = append(s.lost, "the selector's "+words[i])
		default:
			err = fmt.Errorf("%s is unknown there", sa.Quote(words[i]))
		}
	}
	if err != nil {
		return fmt.Errorf("sel: %w", err)
	}
	if sel != (sa.Selector{}) {
		s.Selector = &sel
	}
	return nil
}

// prefix reads a prefix, or an address as one of full length. The zero Prefix is for all
// addresses.
func prefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if a, e := netip.ParseAddr(text); e == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		return p, fmt.Errorf("expected an address or a prefix, found %s", sa.Quote(text))
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	if p.Bits() == 0 {
		return netip.Prefix{}, nil
	}
	return p.Masked(), nil
}

// ports reads a port; 0 is any.
func ports(p *sa.Ports, text string) error {
	if text == "0" {
		return nil
	}
	return p.UnmarshalText([]byte(text))
}

// protocols are the names that ip prints, by those of /etc/protocols.
var protocols = map[string]uint8{
	"ip": 0, "any": 0, "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "ipv4": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9, "pup": 12,
	"udp": 17, "hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37, "idpr-cmtp": 38,
	"ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47, "esp": 50, "ipv6-crypt": 50,
	"ah": 51, "ipv6-auth": 51, "skip": 57, "ipv6-icmp": 58, "icmpv6": 58, "icmp6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
	"rspf": 73, "vmtp": 81, "eigrp": 88, "ospf": 89, "ospfigp": 89, "ax.25": 93, "ipip": 94, "etherip": 97, "encap": 98,
	"pim": 103, "ipcomp": 108, "comp": 108, "vrrp": 112, "l2tp": 115, "isis": 124, "sctp": 132, "fc": 133, "mobility-header": 135,
	"udplite": 136, "mpls-in-ip": 137, "manet": 138, "hip": 139, "shim6": 140, "wesp": 141, "rohc": 142, "ethernet": 143,
}

func protocol(name string) (uint8, error) {
	if n, err := strconv.ParseUint(name, 10, 8); err == nil {
		return uint8(n), nil
	}
	if n, known := protocols[name]; known {
		return n, nil
	}
	return 0, fmt.Errorf("expected a protocol of /etc/protocols, found %s", sa.Quote(name))
}

// ofSAs are notes on SAs, a line for each thing that is to be said of some.
func ofSAs(verb string, names map[string][]string) []string {
	var notes []string
	for what, of := range names {
		notes = append(notes, fmt.Sprintf("%s%s: %s", what, verb, sa.Few(of, 3, ", ")))
	}
	slices.Sort(notes)
	return notes
}
