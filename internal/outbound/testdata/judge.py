"""Opens sealed packets with scapy's IPsec layer.

One JSON object per line on standard input: the sealed packet, the SAs
outermost first, and the packet that must come out. For each line one line on
standard output: "ok", or what was wrong. Written for scapy 2.5.0.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, ESP, SecurityAssociation
from scapy.packet import raw


def parse(packet):
    return (IP if packet[0] >> 4 == 4 else IPv6)(packet)


def association(sa):
    return SecurityAssociation(
        ESP if sa["proto"] == "esp" else AH,
        spi=sa["spi"],
        crypt_algo=sa["crypt"] or None,
        crypt_key=bytes.fromhex(sa["crypt_key"]) or None,
        crypt_icv_size=sa["icv"] or None,
        auth_algo=sa["auth"] or None,
        auth_key=bytes.fromhex(sa["auth_key"]) or None,
        tunnel_header=IP() if sa["tunnel"] else None,
        esn_en=sa["esn"],
        esn=sa["high"],
    )


def decapsulate(packet):
    """Takes UDP off: scapy 2.5.0 cannot open ESP beneath it in IPv6."""
    udp = packet[UDP]
    esp, under = raw(udp.payload), udp.underlayer
    if udp.sport != 4500 or udp.dport != 4500 or udp.len != 8 + len(esp):
        raise ValueError("UDP header %r" % udp)
    if packet.version == 6:
        given = udp.chksum
        del udp.chksum
        if parse(raw(packet))[UDP].chksum != given:
            raise ValueError("UDP checksum %#x" % given)
    elif udp.chksum != 0:
        raise ValueError("UDP checksum %#x, not 0" % udp.chksum)
    under.remove_payload()
    under.setfieldval("proto" if isinstance(under, IP) else "nh", 50)
    under.add_payload(ESP(esp))
    return packet


def opened(packet, sas):
    """What is left of a sealed packet; of each SA scapy's association, and whether it
    is encapsulated in UDP, outermost first."""
    for association, encap in sas:
        parsed = parse(packet)
        if parsed.version == 4:
            given = parsed.chksum
            del parsed.chksum
            if parse(raw(parsed)).chksum != given:
                raise ValueError("IPv4 checksum %#x" % given)
            parsed = parse(packet)
        if encap:
            parsed = decapsulate(parsed)
        packet = raw(association.decrypt(parsed))
    return packet


def verdict(sealed, sas, want):
    """"ok", or what is wrong."""
    try:
        packet = opened(sealed, sas)
        return "ok" if packet == want else "came out as " + packet.hex()
    except Exception as problem:
        return "%s: %s" % (type(problem).__name__, str(problem).replace("\n", " "))


def main():
    for line in sys.stdin:
        case = json.loads(line)
        sas = [(association(sa), sa["encap"]) for sa in case["sas"]]
        print(verdict(bytes.fromhex(case["sealed"]), sas, bytes.fromhex(case["want"])))


if __name__ == "__main__":
    main()
