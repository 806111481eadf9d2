"""SAs that scapy applies together, and the frames that go through them: good ones,
and each kind of damage.
"""

import copy
import json

import vectors
from damage import Kind, ah_kinds, at_ip, claimed, esp_kinds, fragment, headers_of, resized, udp_kinds
from vectors import (
    AEADS, AUTH_FAILED, BOTH, FAILED, FAILED_AFTER, NOT_TRIED, ONE, SA, UDP, VERIFIED, Raw, Vector,
    derive, flip, framed, header, mutable4, mutable6, padded, parsed, raw, too_long, trailing, zeros)

ICV = {"md5": 12, "sha1": 12, "sha256": 16, "sha384": 24, "sha512": 32, "aescmac": 12}
BLOCK = {"aes128": 16, "aes192": 16, "aes256": 16, "3des": 8, "des": 8}  # others: 4


class Association(SA):
    """An SA with an SPI that no other one has. Under UDP over IPv4 the UDP length,
    which scapy leaves at 8, is put right."""

    count = 0

    def __init__(self, name, protocol, suite, *args, **more):
        if "spi" not in more:
            Association.count += 1
            more["spi"] = 0x10000 + Association.count
        super().__init__(name, protocol, suite, *args, **more)
        self.suite, self.encap = suite, more.get("encap", False)
        self.fields["name"] = '"%s"' % name
        if more.get("bundle"):
            self.fields["bundle"] = '"%s"' % more["bundle"].name
            more["bundle"].fields["name"] = '"%s"' % more["bundle"].name
        words = suite.split("-")
        self.icv = AEADS[words[0]][3] if words[0] in AEADS else ICV[words[-1]]
        self.block = BLOCK.get(words[0], 4)

    def seal(self, packet, seq):
        name, self.name = self.name, "%s %d" % (self.name, seq)  # another IV for each number
        sealed, self.name = super().seal(packet, seq), name
        return resized(sealed, len(sealed)) if self.encap else sealed


CODES = {"pad-bytes": 1, "protocol-mismatch": 7, "bundle-mismatch": 7}


class Frame(Vector):
    """A vector that can be varied. Without another outcome it is good."""

    def __init__(self, stack, title, packet, damage=None, first=False):
        self.stack, self.opened = stack, bytes(packet)
        super().__init__("%s, %s" % (stack.name, title), packet, *stack.sas, damage=damage, first=first)
        if len(stack.sas) == 2 and stack.sas[1].mode == "tunnel" and stack.sas[0].mode == "transport":
            self.word = BOTH

    def varied(self, title, wire):
        """The same with other bytes."""
        f = copy.copy(self)
        f.name, f.wire, f.opened = "%s, %s" % (self.name, title), wire, None
        return f

    def outcome(self, kind, s, verified=0, tried=ONE, left=0, behind=()):
        """What comes of damage to the SA s, in front of which others verified: tried
        and left are the flags of a frame whose portion was checked, or left alone."""
        states = [VERIFIED] * verified
        if kind.state:
            portion, state, _ = self.records[verified]
            words = portion.split()
            words[3] = str(kind.number(int(words[3])))
            self.records[verified] = (" ".join(words), state, "")
            states += [kind.state, *behind]
        word = left
        if kind.state in (FAILED, FAILED_AFTER):
            code = CODES.get(kind.reason, 6)
            if kind.reason.endswith("-icv"):
                code = AUTH_FAILED[words[0], s.protocol]
            word = tried | code << 16
        self.opened = None
        return self.expect(word, kind.reason, *states)

    def damaged(self, kind, s, *behind):
        """The frame, damaged outside: records of the portion's other SA go behind."""
        f = self.varied(kind.title, kind.damage(self.wire))
        f.records = list(self.records)
        return f.outcome(kind, s, behind=behind if kind.state else ())

    def line(self):
        delivered = bytearray(framed(self.wire))
        for p in self.plain:
            at, text = p.split()
            delivered[int(at):int(at) + len(text) // 2] = bytes.fromhex(text)
        return json.dumps({
            "group": self.stack.group, "said": self.stack.said, "name": self.name, "frame": framed(self.wire).hex(),
            "word": "%08x" % self.word, "reason": self.reason,
            "records": [" ".join(filter(None, r)) for r in self.records],
            "in_place": bytes(delivered).hex(), "decap": framed(self.opened).hex() if self.opened else "",
        })


class Stack:
    """SAs that are applied together, innermost first, and two hosts of their own."""

    count = 0

    def __init__(self, group, name, version):
        Stack.count += 1
        self.group, self.name, self.version = group, name, version
        self.sends = True  # so can tapsec's sender
        self.said = ""  # how scapy differs
        n = Stack.count
        self.ends = {4: ("198.18.0.1", "198.19.%d.%d" % (n >> 8, n & 255)), 6: ("2001:db8:1::1", "2001:db8:2::%x" % n)}
        self.sas = []

    def add(self, protocol, suite, mode, version, what="", **more):
        """Another SA, around those that there are."""
        name = " ".join(filter(None, (self.name, what)))
        ends = self.ends[version] if mode == "transport" else None
        s = Association(name, protocol, suite, mode, version, ends=more.pop("ends", ends), **more)
        if mode == "tunnel" and not more.get("bundle"):
            s.fields["selector"] = '{dst: "%s"}' % self.ends[self.version][1]
        self.sas.append(s)
        return self

    def packet(self, what, longer=0):
        """A datagram that needs padding under every cipher."""
        name = "%s, %s" % (self.name, what)
        n = (33 + longer + derive(name + " length", 1)[0] % 60) | 1
        return header(name, self.version, self.ends[self.version]) / UDP(sport=40000, dport=40001) / Raw(derive(name, n))

    def frame(self, title, **damage):
        return Frame(self, title, self.packet(title), **damage)


def resealed(stack):
    """A single ESP SA: what can be wrong behind a good ICV."""
    s, = stack.sas
    for title, change, reason in ("pad of zeros", zeros, "pad-bytes"), ("pad length 255", too_long, "pad-length"):
        with padded(change):
            f = stack.frame(title)
        yield f.outcome(Kind(title, None, reason, FAILED_AFTER), s)

    def announced(n):
        def change(esp):
            esp.nh = n
        return change

    with padded(announced(59)):
        f = stack.frame("dummy")
        f.opened = None
    if s.mode == "transport":
        yield f
        return
    yield f.expect(ONE, "dummy", VERIFIED)
    for title, n in ("a tunnel with UDP in it", 17), ("a tunnel with the other IP version", 41 if stack.version == 4 else 4):
        with padded(announced(n)):
            f = stack.frame(title)
        f.opened = None
        yield f.expect(ONE, "inner-not-ip", VERIFIED)
    title = "the packet in the tunnel is too long"
    packet = raw(stack.packet(title))
    f = Frame(stack, title, parsed(claimed(packet, len(packet) + 20)))
    f.opened = None
    yield f.expect(ONE, "inner-length", VERIFIED)


def elsewhere(stack, s, version):
    """A frame of the other protocol with the SPI of an SA."""
    protocol, suite = ("ah", "sha256") if s.protocol == "esp" else ("esp", "aes128gcm16")
    imposter = copy.copy(stack)
    imposter.sas, imposter.name = [], stack.name + " other"
    imposter.add(protocol, suite, s.mode, version, spi=s.spi)
    f = imposter.frame("other protocol")
    return f.outcome(Kind("", None, "protocol-mismatch", FAILED, lambda n: n + ((s.high or 0) << 32)), s)


def journey(p):
    return mutable4(p) if p[0] >> 4 == 4 else mutable6(p)


def single(stack, version):
    """One SA: good, changed on the way, damaged, replayed."""
    s, = stack.sas
    good = stack.frame("good")
    yield good
    yield stack.frame("good again")
    yield good.varied("bytes behind the packet", trailing(good.wire))
    yield good.varied("changed on the way", journey(good.wire))
    for kind in (esp_kinds if s.protocol == "esp" else ah_kinds)(s) + headers_of(s.encap) + (udp_kinds() if s.encap else []):
        yield good.damaged(kind, s)
    if not s.encap:
        yield good.damaged(Kind("later fragment", fragment(True), "fragment"), s)
        yield elsewhere(stack, s, version)
    if version == 4 and s.protocol == "ah":
        yield good.damaged(Kind("IP identification", at_ip(5, 5), "ah-icv", FAILED), s)
    if s.protocol == "esp":
        yield from resealed(stack)
    yield good.varied("replayed", good.wire)


def inside(stack):
    """A transport portion of one SA inside a tunnel of one SA: damaged outside,
    damaged inside (contract rows 11 to 16, 28 and 31)."""
    host, gate = stack.sas
    kinds = {"esp": esp_kinds, "ah": ah_kinds}
    good = stack.frame("good")
    yield good
    yield good.varied("bytes behind the packet", trailing(good.wire))
    for kind in kinds[gate.protocol](gate) + headers_of(gate.encap):
        yield good.damaged(kind, gate)
    for kind in kinds[host.protocol](host) + headers_of(host.encap) + (udp_kinds() if host.encap else []):
        f = stack.frame("inside: " + kind.title, damage=kind.damage, first=True)
        if kind.reason in ("ike", "keep-alive", "udp-too-short", "no-ipsec"):
            f.opened = None
            yield f.expect(ONE, "verified", VERIFIED)  # there is no IPsec inside (contract, Reasons)
        else:
            yield f.outcome(kind, host, verified=1, tried=BOTH, left=ONE)
    if host.protocol == "esp":
        for title, change, reason in ("pad of zeros", zeros, "pad-bytes"), ("pad length 255", too_long, "pad-length"):
            f = padded_inside(stack, title, change)
            yield f.outcome(Kind(title, None, reason, FAILED_AFTER), host, verified=1, tried=BOTH)


def padded_inside(stack, title, change):
    """A frame of which the first SA pads wrongly."""
    turns = iter((change,))
    with padded(lambda esp: next(turns, lambda esp: None)(esp)):
        return stack.frame(title)


def bundle(stack):
    """AH over ESP, one portion (contract rows 18 to 20 and 22)."""
    below, above = stack.sas
    good = stack.frame("good")
    yield good
    yield good.varied("bytes behind the packet", trailing(good.wire))
    bundled = "bundle" in above.fields
    for kind in ah_kinds(above) + headers_of(False):
        if kind.title == "next header" and bundled:
            kind = Kind("next header", kind.damage, "bundle-mismatch", FAILED)
        if kind.title in ("AH length", "half an ICV", "no sequence number", "next header"):
            yield lone(good).damaged(kind, above)
        else:
            yield good.damaged(kind, above, NOT_TRIED)
    for kind in esp_kinds(below)[:4 if below.iv else 3]:
        f = stack.frame("ESP: " + kind.title, damage=kind.damage, first=True)
        yield f.outcome(kind, below, verified=1)
    f = stack.frame("ESP: two bytes less", damage=lambda p: resized(p, len(p) - 2)[:-2], first=True)
    yield f.outcome(Kind("", None, "esp-length", FAILED), below, verified=1)
    for title, change, reason in ("pad of zeros", zeros, "pad-bytes"), ("pad length 255", too_long, "pad-length"):
        f = padded_inside(stack, title, change)
        yield f.outcome(Kind(title, None, reason, FAILED_AFTER), below, verified=1)
    f = stack.frame("ESP: SPI", damage=flip(0), first=True)
    if bundled:
        yield f.outcome(Kind("", None, "bundle-mismatch", FAILED), above)
        half = copy.copy(stack)
        half.sas = [below]
        f = half.frame("ESP without its AH")
        yield f.outcome(Kind("", None, "bundle-mismatch", FAILED), below)
    else:
        f.opened = None
        yield lone(f).expect(ONE, "verified", VERIFIED)
    yield good.varied("replayed", good.wire)


def lone(f):
    """The frame of an AH whose ESP cannot be found: its own SA's mode names the portion."""
    f = copy.copy(f)
    (head, *rest), *behind = f.records
    mode = f.sas[1].fields["mode"]
    f.records = [(" ".join([mode, *head.split()[1:]]), *rest), *behind]
    return f


def extended(stack):
    """64-bit numbers: another high half, over the wrap, and a replay from before it,
    which is taken for a number of this round (contract row 25)."""
    s, = stack.sas
    yield from single(stack, int(stack.layout[-1]))
    f = stack.frame("another high half")
    s.scapy.esn += 1
    g = stack.frame("another high half")
    s.scapy.esn -= 1
    yield f.varied("ahead", g.wire).outcome(Kind("", None, s.protocol + "-icv", FAILED), s)
    old = stack.frame("before the wrap")
    yield old
    for seq, high in (0x7fffff00, s.high), (0xffffff00, s.high), (5, s.high + 1):
        s.high, s.scapy.esn = high, high
        was, vectors.number = vectors.number, lambda name: seq
        yield stack.frame("wrap")
        vectors.number = was
    g = old.varied("replayed", old.wire)
    g.records = list(old.records)
    yield g.outcome(Kind("", None, s.protocol + "-icv", FAILED, lambda n: n + (1 << 32)), s)


def unsigned(stack):
    """scapy leaves the high half out of an ESP ICV with a separate algorithm."""
    for what in "one", "two":
        yield stack.frame(what).outcome(Kind("", None, "esp-icv", FAILED), stack.sas[0])
