"""Prints datagrams as scapy builds and fragments them: a JSON object a line, with
name, whole and fragments, all frames in hex."""
import json
import sys

from scapy.all import (
    Dot1Q, Ether, ICMP, IP, IPOption_RR, IPOption_Router_Alert, IPv6, IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, RouterAlert, UDP, Raw, fragment, fragment6, raw)

links = {
    "untagged": lambda: Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02"),
    "tagged": lambda: Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / Dot1Q(vlan=7, prio=5),
}
payload = bytes(i * 7 % 251 for i in range(4321))
ip4 = dict(src="192.0.2.1", dst="198.51.100.7", id=0x1234, tos=0xB9)
ip6 = dict(src="2001:db8::1", dst="2001:db8:7::2", tc=0xB9, fl=0x54321)


def put(name, whole, fragments):
    print(json.dumps(dict(name=name, whole=raw(whole).hex(), fragments=[raw(f).hex() for f in fragments])))


for link_name, link in links.items():
    for size in (8, 600, 1480):
        for name, options in (("plain", []), ("options", [IPOption_Router_Alert(), IPOption_RR(routers=["0.0.0.0"])])):
            for upper in (UDP(sport=1, dport=2), ICMP()):
                packet = IP(options=options, **ip4) / upper / Raw(payload)
                put("%s IPv4 %s by %d" % (link_name, name, size), link() / packet,
                    [link() / f for f in fragment(packet, size)])
    for size in (500, 1280):
        for name, head in (
            ("plain", []),
            ("hop-by-hop", [IPv6ExtHdrHopByHop(options=[RouterAlert()])]),
            ("three headers", [IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 20)]), IPv6ExtHdrDestOpt(),
                               IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=0)]),
        ):
            def packet(between):
                p = IPv6(**ip6)
                for h in head + between:
                    p /= h
                return p / UDP(sport=1, dport=2) / Raw(payload)
            cut = fragment6(packet([IPv6ExtHdrFragment(id=0xDEADBEEF)]), size)
            put("%s IPv6 %s by %d" % (link_name, name, size), link() / packet([]), [link() / f for f in cut])
sys.stdout.flush()
