//go:build !js

package capture

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// carriers are the layers that a NIC does not look into, by the names that people have for them.
var carriers = map[gopacket.LayerType]string{
	layers.LayerTypePPPoE: "PPPoE", layers.LayerTypeMPLS: "MPLS", layers.LayerTypeLLC: "LLC", layers.LayerTypeGRE: "GRE",
	layers.LayerTypeERSPANII: "ERSPAN", layers.LayerTypeVXLAN: "VXLAN", layers.LayerTypeGeneve: "Geneve", layers.LayerTypeGTPv1U: "GTP-U",
}

// vxlanOfLinux is the port that Linux had for VXLAN before one was assigned (4789), and has kept as its
// default; flannel and Cilium use it.
const vxlanOfLinux = 8472

func init() { layers.RegisterUDPPortLayerType(vxlanOfLinux, layers.LayerTypeVXLAN) }

// Unwrap takes the first packet with AH, ESP or UDP of port 4500 out of what carries it past a
// NIC (carriers, IP in IP, a third VLAN tag), and returns it with an Ethernet header of zero
// addresses, in the same memory, and the carriers' names, outermost first. Without any it
// returns the frame and no name.
func Unwrap(frame []byte) (inner []byte, names string) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	all := p.Layers()
	ip, at := ofIPsec(all)
	if ip < 0 || at < etherLen || at >= len(frame) || &all[ip].LayerContents()[0] != &frame[at] {
		return frame, ""
	}
	if names = carrying(all[:ip]); names == "" {
		return frame, ""
	}
	etherType := uint16(etherIPv4)
	if all[ip].LayerType() == layers.LayerTypeIPv6 {
		etherType = etherIPv6
	}
	inner = frame[at-etherLen:]
	clear(inner[:etherLen-2])
	binary.BigEndian.PutUint16(inner[etherLen-2:], etherType)
	return inner, names
}

// ofIPsec is the layer of the IP header in front of the first IPsec, and where it lies; -1 if
// there is none.
func ofIPsec(all []gopacket.Layer) (ip, at int) {
	ip = -1
	end := 0
	for i, l := range all {
		switch l.LayerType() {
		case layers.LayerTypeIPv4, layers.LayerTypeIPv6:
			ip, at = i, end
		case layers.LayerTypeIPSecAH, layers.LayerTypeIPSecESP:
			return ip, at
		case layers.LayerTypeUDP:
			const natTraversal = 4500
			if u := l.(*layers.UDP); u.SrcPort == natTraversal || u.DstPort == natTraversal {
				return ip, at
			}
		}
		end += len(l.LayerContents())
	}
	return -1, 0
}

// carrying names the carriers among the layers in front of an IP header; empty if a NIC gets
// there.
func carrying(before []gopacket.Layer) string {
	var names []string
	tags, packets := 0, 0
	for _, l := range before {
		switch l.LayerType() {
		case layers.LayerTypeDot1Q:
			tags++
		case layers.LayerTypeIPv4, layers.LayerTypeIPv6:
			packets++
		}
		if name := carriers[l.LayerType()]; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	switch {
	case len(names) > 0:
		return strings.Join(names, ", ")
	case packets > 0:
		return "IP in IP"
	case tags > 2:
		return "VLAN tags"
	}
	return ""
}
