#!/usr/bin/python3
"""Records frames that a real Linux kernel sealed, with the text of its SAs:

    ./record.py            # writes captures/ beside this file, in about 20 seconds

The kernel is a user-mode Linux (Debian: user-mode-linux, kmod, iproute2), which
this script starts with itself as init. In there each flow gets SAs and a policy
of its own, sends UDP datagrams of a few sizes to a port of its own, and what
leaves the interface is kept. Three files come of each capture:

    NAME.pcap    the frames
    NAME.xfrm    `ip xfrm state` afterwards; esn.before.xfrm is from before
    NAME.flows   what was asked for, a line for each flow:
                 PORT SRC DST SIZES SA, SA ...     the outermost SA first, each
                 MODE PROTOCOL SPI NUMBER          with its first sequence number

Byte i of the payload sent to port P is (P + i) mod 256. SPIs, numbers and
addresses are fixed; IVs and times are the kernel's, so a second recording
differs. The keys are made from names and protect nothing.

With LIVE in the environment of the guest the frames leave by its vector device,
and the guest says "keyed NAME" and waits for "go" before it sends those of a
capture. So that who is on the wire has the SAs then, `ip xfrm state` is from
before.
"""

import hashlib
import os
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True

import guest  # noqa: E402
from guest import ip  # noqa: E402

SIZES = 1, 14, 100, 1400
FEWER = dict.fromkeys(("esp-composed", "esn", "headers"), (1, 14, 100, 300))
FEWER |= {"fragments": (4000,), "atomic": (1, 14, 100)}
# Gateways, and the networks behind them (RFC 5737, RFC 3849).
GATES = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
HOSTS = {4: ("198.51.100.1", "203.0.113.1"), 6: ("2001:db8:1::1", "2001:db8:2::1")}

# ---- what there is to seal with: the words of ip-xfrm(8)

def key(name, size):
    return "0x" + hashlib.sha512(name.encode()).digest()[:size].hex()


AEADS = [
    *(f"aead rfc4106(gcm(aes)) {key('gcm', k + 4)} {icv}" for k in (16, 24, 32) for icv in (64, 96, 128)),
    *(f"aead rfc4309(ccm(aes)) {key('ccm', k + 3)} {icv}" for k in (16, 24, 32) for icv in (64, 96, 128)),
    *(f"aead rfc4543(gcm(aes)) {key('gmac', k + 4)} 128" for k in (16, 24, 32)),
    f"aead rfc7539esp(chacha20,poly1305) {key('chacha', 36)} 128",
]
CIPHERS = [
    *(f"enc cbc(aes) {key('cbc', k)}" for k in (16, 24, 32)),
    *(f"enc rfc3686(ctr(aes)) {key('ctr', k + 4)}" for k in (16, 24, 32)),
    f"enc cbc(des3_ede) {key('3des', 24)}",
    f"enc cbc(des) {key('des', 8)}",
    "enc ecb(cipher_null) ''",
]
AUTHS = [
    f"auth-trunc {name} {key(name, size)} {icv}" for name, size, icv in (
        ("hmac(md5)", 16, 96), ("hmac(sha1)", 20, 96), ("hmac(sha256)", 32, 96), ("hmac(sha256)", 32, 128),
        ("hmac(sha384)", 48, 192), ("hmac(sha512)", 64, 256), ("xcbc(aes)", 16, 96), ("cmac(aes)", 16, 96))
]
GCM, CHACHA = AEADS[2], AEADS[-1]
CBC_SHA1, CBC_SHA256, CTR_SHA512 = (CIPHERS[c] + " " + AUTHS[a] for c, a in ((0, 1), (2, 3), (4, 5)))
FEW = GCM, CBC_SHA1, CTR_SHA512, CHACHA
SHA1, SHA256 = AUTHS[1], AUTHS[3]


def esp(mode, suite, ends, extra=""):
    return "esp", mode, suite, ends, extra


def ah(mode, suite, ends, extra=""):
    return "ah", mode, suite, ends, extra


# ---- captures: for each a list of (addresses, SAs from the innermost out, socket options)

def captures():
    families = 4, 6
    pairs = [(o, i) for o in families for i in families]
    yield "esp-aead", [(GATES[v], [esp("transport", s, GATES[v])]) for v in families for s in AEADS]
    yield "esp-composed", [(GATES[v], [esp("transport", f"{c} {a}", GATES[v])])
                           for v in families for c in CIPHERS for a in AUTHS]
    yield "ah", [(GATES[v], [ah("transport", a, GATES[v])]) for v in families for a in AUTHS]
    yield "tunnel", [(HOSTS[i], [sa("tunnel", s, GATES[o])]) for o, i in pairs
                     for sa, s in [*((esp, s) for s in FEW), (ah, SHA1), (ah, SHA256)]]
    yield "nested", [(HOSTS[i], [inner, outer]) for o, i in pairs
                     for inner in (esp("transport", GCM, HOSTS[i]), ah("transport", SHA256, HOSTS[i]))
                     for outer in (esp("tunnel", CBC_SHA256, GATES[o]), ah("tunnel", SHA1, GATES[o]))
                     if (o, i) != (6, 4)]
    yield "ah-esp", ah_esp(families)
    yield "tunnel-in-tunnel", [(HOSTS[v], [esp("tunnel", CHACHA, HOSTS[v]), esp("tunnel", GCM, GATES[v])])
                               for v in families]
    yield "encap", encapsulated(families)
    yield "esn", with_esn(families)
    yield "tfc", [(HOSTS[i], [esp("tunnel", s, GATES[o], f"tfcpad {pad}")])
                  for o, i in pairs for s, pad in ((GCM, 256), (CBC_SHA1, 1500))]
    yield "headers", with_headers()
    yield "vlan", [(HOSTS[4], [esp("tunnel", GCM, GATES[4])]), (GATES[6], [ah("transport", SHA1, GATES[6])])]
    yield "fragments", [(GATES[v], [sa("transport", s, GATES[v])]) for v in families
                        for sa, s in ((esp, GCM), (ah, SHA1))]
    # Linux 6.1 gives all of these a fragment header, small packets too (and cuts
    # at 1280 bytes whatever the MTU); of the other nestings it does so to none.
    yield "atomic", [(HOSTS[4], [inner, esp("tunnel", CBC_SHA256, GATES[6])])
                     for inner in (esp("transport", GCM, HOSTS[4]), ah("transport", SHA256, HOSTS[4]))]


def ah_esp(families):
    """AH over ESP as Linux builds it: a transport-mode AH whatever ESP's mode."""
    for v in families:
        for s in (GCM, CBC_SHA1):
            for a in (SHA1, SHA256):
                yield GATES[v], [esp("transport", s, GATES[v]), ah("transport", a, GATES[v])]
                yield HOSTS[v], [esp("tunnel", s, GATES[v]), ah("transport", a, GATES[v])]
        yield HOSTS[v], [esp("transport", GCM, HOSTS[v]), ah("transport", SHA1, HOSTS[v]), esp("tunnel", CBC_SHA1, GATES[v])]
        yield HOSTS[v], [esp("transport", GCM, HOSTS[v]), ah("transport", SHA1, HOSTS[v]),
                         esp("tunnel", CBC_SHA1, GATES[v]), ah("transport", SHA256, GATES[v])]


def encapsulated(families):
    for v in families:
        any = {4: "0.0.0.0", 6: "::"}[v]
        for s in FEW:
            for port in 4500, 32768:
                extra = f"encap espinudp {port} 4500 {any}"
                yield GATES[v], [esp("transport", s, GATES[v], extra)]
                yield HOSTS[v], [esp("tunnel", s, GATES[v], extra)]
        yield HOSTS[v], [esp("transport", GCM, HOSTS[v], extra), esp("tunnel", CBC_SHA1, GATES[v])]
        yield HOSTS[v], [esp("transport", GCM, HOSTS[v]), esp("tunnel", CBC_SHA1, GATES[v], extra)]


def with_esn(families):
    """Numbers that pass 2^32, and numbers far beyond it."""
    first = "replay-window 64 flag esn replay-oseq 0xfffffffd replay-oseq-hi 0"
    later = "replay-window 64 flag esn replay-oseq 0xfffffffe replay-oseq-hi 0x12345"
    zero = "replay-window 64 flag esn"
    composed = [CIPHERS[c] + " " + a for c in (0, 3, 8) for a in AUTHS]
    for v in families:
        for s in AEADS[2::3] + AEADS[-3:] + composed:
            yield GATES[v], [esp("transport", s, GATES[v], first)]
        for a in AUTHS:
            yield GATES[v], [ah("transport", a, GATES[v], first)]
        for extra in first, later, zero:
            yield HOSTS[v], [esp("tunnel", GCM, GATES[v], extra)]
            yield HOSTS[v], [ah("tunnel", SHA1, GATES[v], extra)]
            yield HOSTS[v], [esp("transport", CBC_SHA1, HOSTS[v], extra), esp("tunnel", CHACHA, GATES[v], extra)]


def with_headers():
    """IPv4 options, IPv6 extension headers, and fields that AH leaves out."""
    option, v6 = (socket.IPPROTO_IP, socket.IP_OPTIONS), socket.IPPROTO_IPV6
    options = [
        [(*option, bytes([7, 11, 4] + 8 * [0] + [0]))],  # record route
        [(*option, bytes([68, 12, 5, 0] + 8 * [0]))],  # timestamps
        [(*option, bytes([148, 4, 0, 0]))],  # router alert
        [(*option, bytes([1, 130, 11] + 8 * [0x55] + [0]))],  # no operation, security
        [(*option, bytes([148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 1]))],  # router alert, record route
        [(*option, bytes([0x9e, 6, 1, 2, 3, 4, 1, 1]))],  # an unknown one
        [(socket.IPPROTO_IP, socket.IP_TOS, 0xb8), (socket.IPPROTO_IP, socket.IP_TTL, 7)],
    ]
    header = lambda *o: bytes([0, (2 + len(o)) // 8 - 1, *o])  # noqa: E731
    alert, changing, fixed, pad = (5, 2, 0, 0), (0x3e, 4, 1, 2, 3, 4), (0x1e, 4, 1, 2, 3, 4), (1, 0)
    extensions = [
        [(v6, socket.IPV6_HOPOPTS, header(*alert, *pad))],
        [(v6, socket.IPV6_HOPOPTS, header(*changing))],
        [(v6, socket.IPV6_DSTOPTS, header(*fixed))],
        [(v6, socket.IPV6_DSTOPTS, header(*changing, *fixed, *pad))],
        [(v6, socket.IPV6_HOPOPTS, header(*fixed, *changing, *pad)), (v6, socket.IPV6_DSTOPTS, header(*changing))],
        [(v6, socket.IPV6_TCLASS, 0xb8), (v6, socket.IPV6_UNICAST_HOPS, 7)],
    ]
    for v, lists in ((4, options), (6, extensions)):
        for given in lists:
            for suite in ah("transport", SHA256, GATES[v]), ah("transport", SHA1, GATES[v]), esp("transport", GCM, GATES[v]):
                yield GATES[v], [suite], given
            yield HOSTS[v], [ah("transport", SHA1, HOSTS[v]), esp("tunnel", CBC_SHA1, GATES[v])], given


# ---- inside the guest

def first_number(extra):
    words = extra.split()
    high, low = (int(words[words.index(w) + 1], 16) if w in words else 0 for w in ("replay-oseq-hi", "replay-oseq"))
    return (high << 32 | low) + 1


class Recording:
    """One capture while it is made."""

    def __init__(self, name, flows):
        self.path, self.sizes = "/run/out/" + name, FEWER.get(name, SIZES)
        self.states, self.policies, self.flows = [], [], []
        for number, (ends, sas, *options) in enumerate(flows):
            self.flow(1000 + number, ends, sas, options[0] if options else [])

    def flow(self, port, ends, sas, options):
        templates, told = "", []
        for layer, (proto, mode, suite, (src, dst), extra) in enumerate(sas):
            spi = f"0x{port:06x}{layer + 1:02x}"
            family = "flag af-unspec" if mode == "tunnel" and "flag" not in extra else ""
            if "flag esn" in extra and mode == "tunnel":
                extra = extra.replace("flag esn", "flag esn flag af-unspec")
            self.states.append(f"xfrm state add src {src} dst {dst} proto {proto} spi {spi} reqid {port} "
                               f"mode {mode} {extra} {family} {suite}")
            templates += f" tmpl src {src} dst {dst} proto {proto} reqid {port} mode {mode}"
            told.insert(0, f"{mode} {proto} {spi} {first_number(extra)}")
        src, dst = ends
        self.policies.append(f"xfrm policy add src {src} dst {dst} proto udp dport {port} dir out{templates}")
        self.flows.append((port, src, dst, told, options))

    def run(self, device):
        ip("-batch", "-", batch="\n".join(self.states + self.policies) + "\n")
        if LIVE:
            self.write(".xfrm", ip("xfrm", "state"))
            guest.say("keyed " + os.path.basename(self.path))
            guest.wait("go")
        elif self.path.endswith("esn"):
            self.write(".before.xfrm", ip("xfrm", "state"))
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind((device, 0))
        wire.setblocking(False)
        frames = [f for flow in self.flows for size in self.sizes for f in self.send(wire, flow, size)]
        if not LIVE:
            self.write(".xfrm", ip("xfrm", "state"))
        self.write(".flows", "".join(
            f"{p} {s} {d} {','.join(map(str, self.sizes))} {', '.join(sas)}\n" for p, s, d, sas, _ in self.flows))
        with open(self.path + ".pcap", "wb") as file:
            file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
            for at, frame in frames:
                file.write(struct.pack("<IIII", int(at), int(at % 1 * 1e6), len(frame), len(frame)) + frame)
        guest.say(f"sent {os.path.basename(self.path)}: {len(self.flows)} flows, {len(frames)} frames")
        ip("xfrm", "policy", "flush")
        ip("xfrm", "state", "flush")

    def send(self, wire, flow, size):
        """Sends one datagram; what leaves the interface is there when sendto returns."""
        port, src, dst, _, options = flow
        with socket.socket(socket.AF_INET6 if ":" in dst else socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((src, port))
            for option in options:
                s.setsockopt(*option)
            try:
                s.sendto(bytes((port + i) % 256 for i in range(size)), (dst, port))
            except OSError as e:
                guest.say(f"{self.path} {flow} {size} {e}")
        try:
            while True:
                frame, (_, _, kind, *_) = wire.recvfrom(65536)
                if kind == socket.PACKET_OUTGOING:  # a vector device hears itself
                    yield time.time(), frame
        except BlockingIOError:
            pass

    def write(self, end, text):
        with open(self.path + end, "w") as file:
            file.write(text)


LIVE = "LIVE" in os.environ
DEVICE = "vec0" if LIVE else "dummy0"


def inside():
    if not LIVE:
        ip("link", "add", DEVICE, "type", "dummy")
    else:  # no address is resolved, nothing is queued
        ip("link", "set", DEVICE, "arp", "off", "txqueuelen", "0")
    interface(DEVICE)
    for v in 4, 6:
        for address in GATES[v][0], HOSTS[v][0]:
            ip("addr", "add", f"{address}/{32 if v == 4 else 128}", "dev", DEVICE, *(["nodad"] if v == 6 else []))
    time.sleep(0.3)
    route(DEVICE)
    for name, flows in captures():
        if name == "vlan":
            interface("outer", f"link add link {DEVICE} name outer type vlan proto 802.1ad id 7")
            interface("inner", "link add link outer name inner type vlan id 42")
            time.sleep(0.3)
            route("inner")
        elif name == "fragments":
            ip("link", "set", DEVICE, "mtu", "1500")
            route(DEVICE)
        Recording(name, flows).run(DEVICE)
    guest.say("recorded")


def interface(name, command=""):
    ip("-batch", "-", batch=f"{command}\nlink set {name} addrgenmode none mtu 4000\nlink set {name} up\n")


def route(device):
    for family in "-4", "-6":
        ip(family, "route", "replace", "default", "dev", device)


if __name__ == "__main__":
    guest.main(__file__, "captures", inside)
