"""What can be done to a packet that scapy sealed, and what must come of it by
docs/contract.md.
"""

from vectors import FAILED, NOT_TRIED, flip, ipsec_at, truncated


def resized(p, n):
    """The packet with n as its length, in the UDP header too where there is one."""
    p = claimed(p, n)
    at = ipsec_at(p)
    if p[at - 8:at - 6] == b"\x11\x94":  # from 4500
        p = p[:at - 4] + (n - at + 8).to_bytes(2, "big") + p[at - 2:]
    return p


def claimed(p, n):
    """The packet with n as its IP length."""
    if p[0] >> 4 == 4:
        return p[:2] + n.to_bytes(2, "big") + p[4:]
    return p[:4] + (n - 40).to_bytes(2, "big") + p[6:]


def cut(n):
    """The packet ends n bytes behind the beginning of its IPsec header."""
    return lambda p: resized(p, ipsec_at(p) + n)[:ipsec_at(p) + n]


def less(n):
    """The packet ends n bytes earlier; they stay behind it."""
    return lambda p: resized(p, len(p) - n)


def at_ip(v4, v6, do=lambda b: b ^ 0x10):
    """Something else in a byte of the IP header."""
    def damage(p):
        i = v4 if p[0] >> 4 == 4 else v6
        return p[:i] + bytes([do(p[i])]) + p[i + 1:]
    return damage


def fragment(later):
    """A fragment, the first one or a later one."""
    def damage(p):
        if p[0] >> 4 == 4:
            return p[:6] + (b"\0\x10" if later else b"\x20\0") + p[8:]
        head = p[6:7] + b"\0" + (b"\0\x81" if later else b"\0\1") + b"\0\0\0\7"
        return resized(p[:6] + b"\x2c" + p[7:40] + head + p[40:], len(p) + 8)
    return damage


class Kind:
    """A way to damage a packet, and what comes of it: the reason, and how the first
    header is told of: its state, or nothing at all; its number, where that is
    another one now."""

    def __init__(self, title, damage, reason, state=None, number=lambda n: n):
        self.title, self.damage, self.reason, self.state, self.number = title, damage, reason, state, number


def other(n):
    return n ^ 0x10  # as flip does to the last byte


def headers_of(udp):
    """What is done in front of IPsec."""
    unknown = "udp-no-sa" if udp else "address-mismatch"
    return [
        Kind("truncated", truncated, "ip-length", FAILED),
        Kind("IP length beyond the frame", lambda p: claimed(p, len(p) + 4), "ip-length", FAILED),
        Kind("another destination", at_ip(19, 39), unknown),
        Kind("another source", at_ip(15, 23), unknown),
        Kind("first fragment", fragment(False), "fragment", NOT_TRIED),
    ]


def esp_kinds(s):
    """What is done to ESP."""
    return [
        Kind("ICV", flip(-1), "esp-icv", FAILED),
        Kind("ciphertext", flip(8 + s.iv), "esp-icv", FAILED),
        *([Kind("IV", flip(8), "esp-icv", FAILED)] if s.iv else []),
        Kind("sequence number", flip(7), "esp-icv", FAILED, other),
        Kind("SPI", flip(0), "udp-no-sa" if s.encap else "no-sa"),
        Kind("two bytes less", less(2), "esp-length", FAILED),
        Kind("a block less", less(s.block), "esp-icv", FAILED),
        Kind("nothing between IV and ICV", cut(8 + s.iv + s.icv), "esp-length", FAILED),
        *([] if s.encap else [Kind("no sequence number", cut(4), "esp-length", FAILED, lambda n: 0)]),
        Kind("half an SPI", cut(3), "udp-too-short" if s.encap else "spi-outside"),
    ]


def ah_kinds(s):
    """What is done to AH."""
    return [
        Kind("ICV", flip(12), "ah-icv", FAILED),
        Kind("payload", flip(-1), "ah-icv", FAILED),
        Kind("sequence number", flip(11), "ah-icv", FAILED, other),
        Kind("reserved bits", flip(2), "ah-icv", FAILED),
        Kind("next header", flip(0), "ah-icv", FAILED),
        Kind("SPI", flip(4), "no-sa"),
        Kind("AH length", flip(1), "ah-length", FAILED),
        Kind("four bytes less", less(4), "ah-icv", FAILED),
        Kind("half an ICV", cut(16), "ah-length", FAILED),
        Kind("no sequence number", cut(8), "ah-length", FAILED, lambda n: 0),
        Kind("half an SPI", cut(6), "spi-outside"),
    ]


def udp_kinds():
    """What is done to UDP in front of ESP."""
    def put(offset, value):
        return lambda p: p[:ipsec_at(p) + offset] + value + p[ipsec_at(p) + offset + len(value):]

    def bare(p):
        at = ipsec_at(p)
        i = 9 if p[0] >> 4 == 4 else 6
        p = p[:i] + b"\x32" + p[i + 1:at - 8] + p[at:]
        return claimed(p, len(p))

    return [
        Kind("UDP length 8", put(-4, b"\0\x08"), "udp-too-short"),  # as scapy has it over IPv4
        Kind("UDP length 0", put(-4, b"\0\0"), "spi-outside"),
        Kind("UDP length beyond the packet", lambda p: claimed(resized(p, len(p) + 4), len(p)), "udp-length", FAILED),
        Kind("another port", put(-8, b"\x11\x95\x11\x95"), "no-ipsec"),
        Kind("not ESP but IKE", put(0, bytes(4)), "ike"),
        Kind("keep-alive", lambda p: put(0, b"\xff")(cut(1)(p)), "keep-alive"),
        Kind("ESP without its UDP", bare, "encap-mismatch"),
    ]
