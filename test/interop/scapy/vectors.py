#!/usr/bin/python3
"""Writes packet vectors made by scapy 2.5.0 into a directory:

    /usr/bin/python3 vectors.py ../../../internal/lab/conformance/vectors/scapy

The output is the same bytes each time: keys, salts, IVs and payloads come from
the vectors' names by SHA-256, and nothing reads a clock or a random number.

AH's GMAC is not scapy's: what it covers is put together by scapy, the tag is made
here (see GMAC).

Left out, because scapy 2.5.0 lacks it or has it wrong:
  - GCM with ICVs of 8 and 12 bytes, ESP's GMAC, AES-XCBC: absent
  - ESN with a separate integrity algorithm in ESP: the high half is not signed
  - ESP in UDP over IPv4: the UDP length stays 8 (one vector keeps it, as a
    malformed frame)
  - AH over ESP is signed in the wrong place while scapy recognises the ESP; it
    is made to take the ESP for plain bytes (see opaque)
  - a routing header is signed as it will arrive, but left as it is sent; the
    journey is made here (see arrive)
What a frame looks like when opened is what scapy was given to encrypt.
"""

import contextlib
import hashlib
import os
import sys
import warnings

warnings.filterwarnings("ignore")

from scapy.layers import ipsec  # noqa: E402
from scapy.layers.inet import (  # noqa: E402
    IP, UDP, IPOption, IPOption_NOP, IPOption_RR, IPOption_Router_Alert)
from scapy.layers.inet6 import (  # noqa: E402
    HBHOptUnknown, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting, RouterAlert)
from scapy.layers.ipsec import AH, ESP, SecurityAssociation  # noqa: E402
from scapy.packet import Raw, bind_layers, raw, split_layers  # noqa: E402
from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: E402

# Addresses for documentation, by IP version (RFC 5737, RFC 3849).
HOST = {4: ("198.51.100.1", "203.0.113.1"), 6: ("2001:db8:1::1", "2001:db8:2::1")}
GATE = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8:a::1", "2001:db8:b::1")}
CLASS = {4: IP, 6: IPv6}
MACS = bytes.fromhex("020000000002020000000001")
ETHER = {4: b"\x08\x00", 6: b"\x86\xdd"}
L3 = 14

INTEGRITY = {  # keyword: scapy's name, key length
    "md5": ("HMAC-MD5-96", 16),
    "sha1": ("HMAC-SHA1-96", 20),
    "sha256": ("SHA2-256-128", 32),
    "sha384": ("SHA2-384-192", 48),
    "sha512": ("SHA2-512-256", 64),
    "aescmac": ("AES-CMAC-96", 16),
}
GMACS = {"aes%dgmac" % (n * 8): ("AES-GMAC", n + 4) for n in (16, 24, 32)}  # AH's
AEADS = {  # keyword: scapy's name, key and salt length, IV length, ICV length
    "aes%dgcm16" % (n * 8): ("AES-GCM", n + 4, 8, 16) for n in (16, 24, 32)
} | {
    "aes%dccm%d" % (n * 8, icv): ("AES-CCM", n + 3, 8, icv) for n in (16, 24, 32) for icv in (8, 12, 16)
} | {"chacha20poly1305": ("CHACHA20-POLY1305", 36, 8, 16)}
CIPHERS = {  # as AEADS, without ICV
    "aes%d" % (n * 8): ("AES-CBC", n, 16, 0) for n in (16, 24, 32)
} | {
    "aes%dctr" % (n * 8): ("AES-CTR", n + 4, 8, 0) for n in (16, 24, 32)
} | {"3des": ("3DES", 24, 8, 0), "des": ("DES", 8, 8, 0), "null": ("NULL", 0, 0, 0)}
PAIRS = [c + "-" + i for c in CIPHERS for i in INTEGRITY]

# Modes and IP versions: mode, inner version, outer version.
LAYOUTS = {
    "transport 4": ("transport", 4, 4),
    "transport 6": ("transport", 6, 6),
    "tunnel 4in4": ("tunnel", 4, 4),
    "tunnel 6in6": ("tunnel", 6, 6),
    "tunnel 6in4": ("tunnel", 6, 4),
    "tunnel 4in6": ("tunnel", 4, 6),
}


def derive(name, n):
    """n bytes that depend on nothing but a name."""
    out = b""
    while len(out) < n:
        out += hashlib.sha256(b"%s %d" % (name.encode(), len(out))).digest()
    return out[:n]


def number(name):
    """A sequence number."""
    return int.from_bytes(derive(name + " number", 3), "big") + 1


@contextlib.contextmanager
def opaque():
    """While scapy takes ESP for plain bytes."""
    split_layers(IP, ESP, proto=50)
    split_layers(IPv6, ESP, nh=50)
    yield
    bind_layers(IP, ESP, proto=50)
    bind_layers(IPv6, ESP, nh=50)


class GMAC(ipsec.AuthAlgo):
    """AH's AES-GMAC (RFC 4543): the ICV field is an IV, here the number, and the
    tag. The tag counts as zero for itself, the IV as it is sent."""

    def __init__(self):
        super().__init__("AES-GMAC", mac=None, digestmod=None, icv_size=24)

    def sign(self, pkt, key, esn_en=False, esn=0):
        iv = pkt[AH].seq.to_bytes(8, "big")
        clone = ipsec.zero_mutable_fields(pkt.copy(), sending=True)
        clone[AH].icv = iv + bytes(16)
        covered = raw(clone) + (esn.to_bytes(4, "big") if esn_en else b"")
        pkt[AH].icv = iv + AESGCM(key[:-4]).encrypt(key[-4:] + iv, b"", covered)
        return pkt


ipsec.AUTH_ALGOS["AES-GMAC"] = GMAC()

encrypted = []  # what scapy was given to encrypt, latest last
given = ipsec._ESPPlain.data_for_encryption


def recording(self):
    encrypted.append(given(self))
    return encrypted[-1]


ipsec._ESPPlain.data_for_encryption = recording


class SA:
    """One SA: scapy's, and the fields that the vector file has."""

    def __init__(self, name, protocol, suite, mode, version, high=None, encap=False, bundle=None, apart=True, spi=None, ends=None):
        ends = ends or (GATE if mode == "tunnel" else HOST)[version]
        self.name, self.protocol, self.mode, self.high = name, protocol, mode, high
        self.spi = spi or 0x1000 + int.from_bytes(derive(name + " spi", 2), "big")
        self.fields = {
            "protocol": protocol, "mode": mode, "spi": "0x%08x" % self.spi,
            "src": '"%s"' % ends[0], "dst": '"%s"' % ends[1], "suite": suite,
        }
        args = {}
        if mode == "tunnel" and apart:
            args["tunnel_header"] = header(name, version, ends)
        if encap:
            self.fields["encap"] = "{port: 4500}"
            args["nat_t_header"] = UDP(sport=4500, dport=4500)
        if high is not None:
            self.fields |= {"esn": "true", "seq_high": high}
            args |= {"esn_en": True, "esn": high}
        if bundle:
            self.fields["bundle"], bundle.fields["name"] = "below", "below"
        self.key(suite, args)
        self.scapy = SecurityAssociation(ESP if protocol == "esp" else AH, spi=self.spi, **args)

    def key(self, suite, args):
        words = suite.split("-")
        self.iv = 0
        if self.protocol == "esp":
            cipher, n, self.iv, icv = (AEADS | CIPHERS)[words.pop(0)]
            key = derive(self.name + " encryption", n)
            args |= {"crypt_algo": cipher, "crypt_key": key}
            if cipher == "AES-CCM":
                args["crypt_icv_size"] = icv
            if n:
                self.fields["encryption_key"] = "0x" + key.hex()
        if words:
            name, n = (INTEGRITY | GMACS)[words[0]]
            key = derive(self.name + " integrity", n)
            args |= {"auth_algo": name, "auth_key": key}
            self.fields["integrity_key"] = "0x" + key.hex()

    def line(self):
        return "{%s}" % ", ".join("%s: %s" % f for f in self.fields.items())

    def seal(self, packet, seq):
        """The sealed packet."""
        if self.protocol == "ah":
            with opaque():
                return bytes(self.scapy.encrypt(packet, seq_num=seq))
        return bytes(self.scapy.encrypt(packet, seq_num=seq, iv=derive(self.name + " iv", self.iv)))


def header(name, version, ends):
    """An IP header."""
    if version == 4:
        return IP(src=ends[0], dst=ends[1], ttl=64, id=int.from_bytes(derive(name + " id", 2), "big"))
    return IPv6(src=ends[0], dst=ends[1], hlim=64, fl=int.from_bytes(derive(name + " flow", 2), "big"), tc=8)


def datagram(name, version, between=None):
    """A datagram between the two hosts, with what is to stand before UDP."""
    h = header(name, version, HOST[version])
    n = 1 + derive(name + " length", 1)[0] % 90
    u = UDP(sport=40000, dport=40001) / Raw(derive(name + " payload", n))
    return h / between / u if between is not None else h / u


def parsed(packet):
    return CLASS[packet[0] >> 4](packet)


def framed(packet):
    return MACS + ETHER[packet[0] >> 4] + packet


def ipsec_at(packet):
    """Offset of the first AH or ESP header of a packet, behind UDP too."""
    if packet[0] >> 4 == 4:
        at, proto = (packet[0] & 15) * 4, packet[9]
    else:
        at, proto = 40, packet[6]
        while proto in (0, 43, 60):
            at, proto = at + 8 + packet[at + 1] * 8, packet[at]
    return at + 8 if proto == 17 else at


# The status of a wrong ICV.
AUTH_FAILED = {("transport", "ah"): 2, ("transport", "esp"): 3, ("tunnel", "ah"): 4, ("tunnel", "esp"): 5}
ONE, BOTH, SYNTAX = 2, 6, 0x60002

VERIFIED, FAILED, FAILED_AFTER, NOT_TRIED = "icv-valid", "failed", "failed-after-icv", "not-processed"


class Vector:
    """A frame under one or two SAs, the innermost first. Damage is done to the
    whole packet, or to what the first SA sealed."""

    def __init__(self, name, packet, *sas, damage=None, first=False):
        self.name, self.sas = name, sas
        self.plain, self.records = [], []
        self.word, self.reason = ONE, "verified"
        self.wire, sealed = bytes(packet), []
        for sa in sas:
            seq, mark = number(name + sa.name), len(encrypted)
            self.wire = sa.seal(parsed(self.wire), seq)
            sealed.append((sa, seq, self.wire, encrypted[mark:]))
            if damage and sa is sas[0 if first else -1]:
                self.wire = damage(self.wire)
        start = L3
        for args in reversed(sealed):
            start = self.account(*args, start)

    def account(self, sa, seq, packet, plain, start):
        """Writes down how a header is delivered; start is where its packet lies,
        and the result is where the packet beneath lies, as it was before."""
        at, shift = ipsec_at(packet), 0
        number = seq + ((sa.high or 0) << 32)
        head = "%s %s 0x%08x %d" % (sa.mode, sa.protocol, sa.spi, number)
        if sa.protocol == "ah":
            shift = (packet[at + 1] + 2) * 4
            rest, pad, next_header = len(packet) - at - shift, 0, packet[at]
            offset = start + at + shift
        else:
            offset, p = start + at + 8 + sa.iv, plain[0]
            pad, next_header = p[-2], p[-1]
            rest = len(p) - 2 - pad
            self.plain.append("%d %s" % (offset, p.hex()))
        self.records.append((head, VERIFIED, "payload %d+%d pad %d next %d" % (offset, rest, pad, next_header)))
        return offset if sa.scapy.tunnel_header else start + shift

    def expect(self, word, reason, *states):
        """Another outcome than good: the states of the records that are written."""
        self.word, self.reason = word, reason
        self.records = [(head, state, where if state == VERIFIED else "")
                        for (head, _, where), state in zip(self.records, states)]
        self.plain = self.plain[:sum(state == VERIFIED and " esp " in head for head, state, _ in self.records)]
        return self

    def wrong(self, sa, *states, flags=ONE):
        """The ICV of one SA is wrong."""
        return self.expect(AUTH_FAILED[sa.mode, sa.protocol] << 16 | flags, sa.protocol + "-icv", *states)

    def text(self):
        lines = ["name: " + self.name]
        lines += ["sa: " + sa.line() for sa in self.sas]
        lines += ["frame: " + framed(self.wire).hex()]
        lines += ["word: %08x" % self.word, "reason: " + self.reason]
        lines += ["record: " + " ".join(filter(None, r)) for r in self.records]
        lines += ["plain: " + p for p in self.plain]
        return "\n".join(lines) + "\n"


# Damage, done to the wire.

def flip(at):
    """Flips a bit at an offset from the IPsec header, or from the packet's end."""
    def damage(p):
        i = len(p) + at if at < 0 else ipsec_at(p) + at
        return p[:i] + bytes([p[i] ^ 0x10]) + p[i + 1:]
    return damage


def truncated(p):
    """The frame ends before its IP length."""
    return p[:-5]


def shortened(p):
    """The packet is two bytes shorter, and its IP length says so."""
    n = len(p) - 2
    if p[0] >> 4 == 4:
        return p[:2] + n.to_bytes(2, "big") + p[4:n]
    return p[:4] + (n - 40).to_bytes(2, "big") + p[6:n]


# The files.

def single(protocol, suites, layouts, suffix="", **sa):
    """Each suite in each layout, undamaged."""
    for suite in suites:
        for layout in layouts:
            name = " ".join(filter(None, (protocol, suite, layout, suffix)))
            mode, inner, outer = LAYOUTS[layout]
            yield Vector(name, datagram(name, inner), SA(name, protocol, suite, mode, outer, **sa))


def esn(protocol, suites):
    """64-bit numbers, and one that is sealed under another high half."""
    for i, suite in enumerate(suites):
        for layout in ("transport 4", "tunnel 6in6", "tunnel 4in6"):
            yield from single(protocol, [suite], [layout], "esn", high=7 + i)
        name = "%s %s esn, another high half" % (protocol, suite)
        sa = SA(name, protocol, suite, "transport", 4, high=7 + i)
        sa.scapy.esn += 1
        yield Vector(name, datagram(name, 4), sa).wrong(sa, FAILED)


SHORT = (("truncated", truncated, "ip-length"), ("shortened", shortened, "esp-length"))


def damaged_esp():
    """Each suite, damaged in several ways; layouts and lengths by turns."""
    for i, suite in enumerate(list(AEADS) + PAIRS):
        layout = list(LAYOUTS)[i % len(LAYOUTS)]
        mode, inner, outer = LAYOUTS[layout]
        for way, at in ("icv", -1), ("ciphertext", 27), ("first byte behind the header", 8):
            name = "esp %s %s, %s flipped" % (suite, layout, way)
            sa = SA(name, "esp", suite, mode, outer)
            yield Vector(name, datagram(name, inner), sa, damage=flip(at)).wrong(sa, FAILED)
        way, damage, reason = SHORT[i % len(SHORT)]
        name = "esp %s %s, %s" % (suite, layout, way)
        yield Vector(name, datagram(name, inner), SA(name, "esp", suite, mode, outer), damage=damage).expect(SYNTAX, reason, FAILED)


def damaged_ah():
    for suite in INTEGRITY:
        for layout, (mode, inner, outer) in LAYOUTS.items():
            for way, at in ("icv", 12), ("payload", -1):
                name = "ah %s %s, %s flipped" % (suite, layout, way)
                sa = SA(name, "ah", suite, mode, outer)
                yield Vector(name, datagram(name, inner), sa, damage=flip(at)).wrong(sa, FAILED)
            name = "ah %s %s, truncated" % (suite, layout)
            yield Vector(name, datagram(name, inner), SA(name, "ah", suite, mode, outer), damage=truncated).expect(SYNTAX, "ip-length", FAILED)


def damaged_gmac():
    for i, suite in enumerate(GMACS):
        layout = list(LAYOUTS)[2 * i]
        mode, inner, outer = LAYOUTS[layout]
        for way, at in ("iv", 12), ("icv", 20), ("payload", -1):
            name = "ah %s %s, %s flipped" % (suite, layout, way)
            sa = SA(name, "ah", suite, mode, outer)
            yield Vector(name, datagram(name, inner), sa, damage=flip(at)).wrong(sa, FAILED)


@contextlib.contextmanager
def padded(change):
    """While what scapy pads is changed before it is sealed."""
    pad = ipsec.CryptAlgo.pad

    def changed(self, esp):
        change(pad(self, esp))
        return esp

    ipsec.CryptAlgo.pad = changed
    yield
    ipsec.CryptAlgo.pad = pad


def zeros(esp):
    esp.padding = bytes(esp.padlen)


def too_long(esp):
    esp.padlen = 255


def padding():
    """What the sender may not do: another pad than 1, 2, 3 ..., a pad longer than
    the payload. The ICV is good."""
    ways = {"pad of zeros": (zeros, 0x10002, "pad-bytes"), "pad length 255": (too_long, SYNTAX, "pad-length")}
    for suite in ("aes128gcm16", "aes256ccm8", "chacha20poly1305", "aes192ctr-sha1", "aes256-sha256", "3des-md5", "null-aescmac"):
        for layout, (mode, inner, outer) in LAYOUTS.items():
            for way, (change, word, reason) in ways.items():
                name = "esp %s %s, %s" % (suite, layout, way)
                packet = header(name, inner, HOST[inner]) / UDP(sport=40000, dport=40001) / Raw(b"odd")
                with padded(change):
                    v = Vector(name, packet, SA(name, "esp", suite, mode, outer))
                yield v.expect(word, reason, FAILED_AFTER)


def udp_length():
    """ESP in UDP over IPv4 as scapy has it: by its UDP length there is no ESP."""
    name = "esp aes128gcm16 transport 4, UDP length 8"
    yield Vector(name, datagram(name, 4), SA(name, "esp", "aes128gcm16", "transport", 4, encap=True)).expect(0, "udp-too-short")


def nested():
    """A transport portion inside a tunnel, whole and damaged."""
    suites = {"esp": list(AEADS) + PAIRS, "ah": list(INTEGRITY)}
    turn = 0
    for outer in ("esp", "ah"):
        for inner in ("esp", "ah"):
            for layout in ("tunnel 4in4", "tunnel 6in6", "tunnel 6in4", "tunnel 4in6"):
                for way in ("", ", transport damaged", ", tunnel damaged"):
                    turn += 5
                    _, low, high = LAYOUTS[layout]
                    a, b = suites[outer][turn % len(suites[outer])], suites[inner][turn % len(suites[inner])]
                    name = "%s %s around %s %s %s%s" % (outer, a, inner, b, layout, way)
                    host, gate = SA(name + " transport", inner, b, "transport", low), SA(name + " tunnel", outer, a, "tunnel", high)
                    v = Vector(name, datagram(name, low), host, gate, damage=flip(-1) if way else None, first="transport" in way)
                    v.word = BOTH
                    if "transport" in way:
                        v.wrong(host, VERIFIED, FAILED, flags=BOTH)
                    elif "tunnel" in way:
                        v.wrong(gate, FAILED)
                    yield v


def bundles():
    """AH over ESP, one portion: bundled in both modes, and not bundled."""
    turn = 0
    esps = list(AEADS) + PAIRS
    for layout, (mode, low, high) in LAYOUTS.items():
        for way in ("", ", AH damaged", ", ESP damaged"):
            for bundled in (True, False)[:2 if mode == "transport" else 1]:
                turn += 7
                e, a = esps[turn % len(esps)], list(INTEGRITY)[turn % len(INTEGRITY)]
                name = "ah %s over esp %s %s%s%s" % (a, e, layout, "" if bundled else ", not bundled", way)
                below = SA(name + " esp", "esp", e, mode, high)
                above = SA(name + " ah", "ah", a, mode, high, bundle=below if bundled else None, apart=False)
                v = Vector(name, datagram(name, low), below, above, damage=flip(-1) if way else None, first="ESP" in way)
                if "AH" in way:
                    v.wrong(above, FAILED, NOT_TRIED)
                elif "ESP" in way:
                    v.wrong(below, VERIFIED, FAILED)
                yield v


def beneath():
    """Transport ESP over AH: after a transport portion the NIC is finished."""
    for version in (4, 6):
        name = "esp over ah transport %d" % version
        v = Vector(name, datagram(name, version), SA(name + " ah", "ah", "sha256", "transport", version),
                   SA(name + " esp", "esp", "aes128gcm16", "transport", version))
        yield v.expect(ONE, "verified", VERIFIED)


def mutable4(p):
    """What a journey may do to an IPv4 header: TOS, DF, TTL, recorded route."""
    b = bytearray(p)
    b[1], b[6], b[8], b[10:12] = 0xb8, 0x40, 7, b"\xab\xcd"
    if b[0] & 15 > 5 and b[20] == 7:
        b[22:27] = b"\x08" + bytes([192, 0, 2, 77])
    return bytes(b)


def mutable6(p):
    """What a journey may do to an IPv6 header: class, flow label, hop limit."""
    return b"\x6b\xab\xcd\xef" + p[4:7] + b"\x07" + p[8:]


def trailing(p):
    """Bytes behind the IP length, which are no part of the packet."""
    return p + derive("trailing bytes", 11)


def arrive(p):
    """The end of a source route over one router: final destination, no segment left."""
    at = 40
    while p[at + 2] != 0 or p[at + 3] != 1:
        at += 8 + p[at + 1] * 8
    router, final = p[24:40], p[at + 8:at + 24]
    return p[:24] + final + p[40:at + 3] + b"\0" + p[at + 4:at + 8] + router + p[at + 24:]


def headers():
    """Options and extension headers before the IPsec header, and the journey's changes."""
    options = {
        "router alert": [IPOption_Router_Alert()],
        "record route": [IPOption_RR(length=11, pointer=4, routers=["0.0.0.0", "0.0.0.0"]), IPOption_NOP()],
        "security, unknown": [IPOption(copy_flag=1, option=2, value=bytes(9)), IPOption(copy_flag=1, option=30, value=b"ab"), IPOption_NOP()],
    }
    hop = IPv6ExtHdrHopByHop(options=[RouterAlert(), HBHOptUnknown(otype=0x3e, optlen=4, optdata=b"abcd")])
    dest = IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1e, optlen=6, optdata=b"fixed!")])
    chains = {"hop-by-hop": hop, "destination options": dest, "hop-by-hop, destination options": hop / dest}
    suites = {"ah": ["sha1", "sha256", "aescmac"], "esp": ["aes256gcm16", "aes128-sha256"]}
    for protocol, names in suites.items():
        for suite in names:
            for journey in (None, mutable4):
                for what, opts in ({"no options": []} | options).items():
                    name = "%s %s transport 4, %s%s" % (protocol, suite, what, ", changed on the way" if journey else "")
                    packet = datagram(name, 4)
                    packet.options = opts
                    yield Vector(name, packet, SA(name, protocol, suite, "transport", 4), damage=journey)
            for journey in (None, mutable6):
                for what, chain in ({"no extension header": None} | chains).items():
                    name = "%s %s transport 6, %s%s" % (protocol, suite, what, ", changed on the way" if journey else "")
                    yield Vector(name, datagram(name, 6, chain and chain.copy()), SA(name, protocol, suite, "transport", 6), damage=journey)
            for layout in LAYOUTS:
                mode, low, high = LAYOUTS[layout]
                name = "%s %s %s, bytes behind the packet" % (protocol, suite, layout)
                yield Vector(name, datagram(name, low), SA(name, protocol, suite, mode, high), damage=trailing)
            name = "%s %s transport 6, source route at its end" % (protocol, suite)
            packet = datagram(name, 6, hop.copy() / IPv6ExtHdrRouting(addresses=[HOST[6][1]], segleft=1))
            packet.dst = "2001:db8:c::1"
            yield Vector(name, packet, SA(name, protocol, suite, "transport", 6), damage=arrive)


FILES = {
    "esp-aead": lambda: single("esp", AEADS, LAYOUTS),
    "esp-separate": lambda: single("esp", PAIRS, LAYOUTS),
    "esp-in-udp": lambda: (*single("esp", list(AEADS) + PAIRS[::2], ["transport 6"], "in UDP", encap=True),
                           *single("esp", list(AEADS) + PAIRS[1::2], ["tunnel 6in6", "tunnel 4in6"], "in UDP", encap=True),
                           *udp_length()),
    "ah": lambda: single("ah", INTEGRITY, LAYOUTS),
    "ah-gmac": lambda: (*single("ah", GMACS, LAYOUTS), *esn("ah", GMACS), *damaged_gmac()),
    "esn": lambda: (*esn("esp", AEADS), *esn("ah", INTEGRITY)),
    "damaged": lambda: (*damaged_esp(), *damaged_ah()),
    "nested": nested,
    "ah-over-esp": lambda: (*bundles(), *beneath()),
    "headers": headers,
    "padding": padding,
}


def main(directory):
    for file, vectors in FILES.items():
        with open(os.path.join(directory, file + ".txt"), "w") as out:
            out.write("source: scapy 2.5.0, by test/interop/scapy/vectors.py\n")
            for v in vectors():
                out.write("\n" + v.text())


if __name__ == "__main__":
    main(sys.argv[1])
