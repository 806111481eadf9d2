"""Frames that scapy 2.5.0 seals, whole and damaged, in every way that it knows:

    /usr/bin/python3 frames.py make DIRECTORY

writes sas.yaml, the SAs as a configuration; frames.jsonl, frames in the order of
sending with all that must become of them; and plain.jsonl, packets for the other
direction. What must become of a frame follows from docs/contract.md and from what
was done to it.

    /usr/bin/python3 frames.py open < LINES

opens with scapy what somebody else sealed of plain.jsonl: an object a line, with the
stack of SAs, and in hexadecimal the packet and what was sealed of it. It
answers with a line for each: "ok", or what is wrong.

As with vectors.py every run writes the same bytes.
"""

import json
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../internal/outbound/testdata"))

import judge  # noqa: E402
from stack import Stack, bundle, extended, inside, single, unsigned  # noqa: E402
from vectors import AEADS, GATE, INTEGRITY, LAYOUTS, raw  # noqa: E402

# The matrix: groups of suites, in each mode and pair of IP versions.

TRANSPORT, TUNNEL = ["transport 4", "transport 6"], ["tunnel 4in4", "tunnel 6in6", "tunnel 6in4", "tunnel 4in6"]
MODES = {"transport, IPv4 and IPv6": TRANSPORT, "tunnel, IPv4 and IPv6 in either": TUNNEL}
ESPS = {
    "aes{128,192,256}gcm16": [s for s in AEADS if "gcm" in s],
    "aes{128,192,256}ccm{8,12,16}": [s for s in AEADS if "ccm" in s],
    "chacha20poly1305": ["chacha20poly1305"],
} | {
    "%s-{sha256,sha384,sha512,sha1,md5,aescmac}" % title: [c + "-" + i for c in ciphers for i in INTEGRITY]
    for title, ciphers in {
        "aes{128,192,256}": ["aes128", "aes192", "aes256"], "aes{128,192,256}ctr": ["aes128ctr", "aes192ctr", "aes256ctr"],
        "{3des,des}": ["3des", "des"], "null": ["null"],
    }.items()
}
ALL_ESP = [s for suites in ESPS.values() for s in suites]
AHS = list(INTEGRITY)


def turns(n, suites, step):
    """n suites by turns."""
    return [suites[i * step % len(suites)] for i in range(n)]


def alone():
    for title, suites in ESPS.items():
        for modes, layouts in MODES.items():
            for suite in suites:
                for layout in layouts:
                    mode, low, high = LAYOUTS[layout]
                    stack = Stack("ESP %s, %s" % (title, modes), "esp %s %s" % (suite, layout), low)
                    yield stack.add("esp", suite, mode, high), lambda s, v=high: single(s, v)
    for modes, layouts in MODES.items():
        for suite in AHS:
            for layout in layouts:
                mode, low, high = LAYOUTS[layout]
                stack = Stack("AH {sha256,sha384,sha512,sha1,md5,aescmac}, %s" % modes, "ah %s %s" % (suite, layout), low)
                yield stack.add("ah", suite, mode, high), lambda s, v=high: single(s, v)


def in_udp():
    for modes, layouts in MODES.items():
        for i, suite in enumerate(ALL_ESP):
            layout = layouts[i % len(layouts)]
            mode, low, high = LAYOUTS[layout]
            stack = Stack("ESP in UDP, every suite, %s" % modes, "esp in udp %s %s" % (suite, layout), low)
            yield stack.add("esp", suite, mode, high, encap=True), lambda s, v=high: single(s, v)


def long_numbers():
    for protocol, suites in ("esp", list(AEADS)), ("ah", AHS):
        for modes, layouts in MODES.items():
            for i, suite in enumerate(suites):
                layout = layouts[i % len(layouts)]
                mode, low, high = LAYOUTS[layout]
                group = "ESN, %s, %s" % ("ESP aes…gcm16, aes…ccm…, chacha20poly1305" if protocol == "esp" else "AH", modes)
                stack = Stack(group, "esn %s %s %s" % (protocol, suite, layout), low)
                stack.layout = layout
                yield stack.add(protocol, suite, mode, high, high=7 + i), extended
    for suite in turns(12, [s for s in ALL_ESP if "-" in s], 5):
        stack = Stack("ESN, ESP with separate integrity, transport, IPv4", "esn esp %s" % suite, 4)
        stack.said = "leaves the high half out of the ICV"
        yield stack.add("esp", suite, "transport", 4, high=1), unsigned


def both_portions():
    suites = {"esp": ALL_ESP, "ah": AHS}
    for outer in "esp", "ah":
        for inner in "esp", "ah":
            group = "transport %s inside tunnel %s, IPv4 and IPv6 in either" % (inner.upper(), outer.upper())
            for i, (a, b) in enumerate(zip(turns(12, suites[outer], 7), turns(12, suites[inner], 11))):
                layout = TUNNEL[i % 4]
                _, low, high = LAYOUTS[layout]
                stack = Stack(group, "%s %s around %s %s %s" % (outer, a, inner, b, layout), low)
                stack.add(inner, b, "transport", low, "transport").add(outer, a, "tunnel", high, "tunnel")
                yield stack, inside
    for where in "outside", "inside":
        group = "transport ESP inside tunnel ESP, UDP %s, IPv4 and IPv6 in either" % where
        for i, (a, b) in enumerate(zip(turns(8, ALL_ESP, 7), turns(8, ALL_ESP, 11))):
            layout = TUNNEL[i % 4]
            _, low, high = LAYOUTS[layout]
            stack = Stack(group, "udp %s, %s around %s %s" % (where, a, b, layout), low)
            stack.add("esp", b, "transport", low, "transport", encap=where == "inside")
            stack.add("esp", a, "tunnel", high, "tunnel", encap=where == "outside")
            yield stack, inside


def pairs():
    for modes, layouts in MODES.items():
        for i, (a, e) in enumerate(zip(turns(12, AHS, 1), turns(12, ALL_ESP, 13))):
            layout = layouts[i % len(layouts)]
            mode, low, high = LAYOUTS[layout]
            stack = Stack("AH over ESP, bundled, %s" % modes, "ah %s over esp %s %s" % (a, e, layout), low)
            stack.add("esp", e, mode, high, "esp")
            yield stack.add("ah", a, mode, high, "ah", bundle=stack.sas[0], apart=False), bundle
    for i, (a, e) in enumerate(zip(turns(12, AHS, 1), turns(12, ALL_ESP, 17))):
        layout = list(LAYOUTS)[i % len(LAYOUTS)]
        mode, low, high = LAYOUTS[layout]
        stack = Stack("transport AH over ESP of either mode, not bundled", "ah %s, esp %s %s" % (a, e, layout), low)
        stack.sends = False
        stack.add("esp", e, mode, high, "esp")
        ends = GATE[high] if mode == "tunnel" else stack.ends[high]
        stack.add("ah", a, "transport", high, "ah", ends=ends)
        stack.sas[1].mode = mode  # the ESP SA's names the portion
        yield stack, bundle


def stacks():
    yield from alone()
    yield from in_udp()
    yield from long_numbers()
    yield from both_portions()
    yield from pairs()


def make(directory):
    def file(name):
        return open(os.path.join(directory, name), "w")

    with file("sas.yaml") as sas, file("frames.jsonl") as frames, file("plain.jsonl") as plain:
        sas.write('allow_legacy: true\nlocal: ["192.0.2.99"]\nsas:\n')
        for stack, frames_of in stacks():
            for s in stack.sas:
                sas.write("  - %s\n" % s.line())
            for f in frames_of(stack):
                frames.write(f.line() + "\n")
            group = stack.group
            for modes in MODES:
                group = group.replace(modes, "both modes, IPv4 and IPv6 in either")
            for what, longer in (("short", 0), ("long", 1000)) if stack.sends else ():
                packet = raw(stack.packet(what, longer)).hex()
                plain.write(json.dumps({"group": group, "said": stack.said, "stack": stack.name, "packet": packet}) + "\n")


def open_all(lines):
    sas = {stack.name: [(s.scapy, s.encap) for s in reversed(stack.sas)] for stack, _ in stacks()}
    for line in lines:
        case = json.loads(line)
        print(judge.verdict(bytes.fromhex(case["sealed"]), sas[case["stack"]], bytes.fromhex(case["packet"])))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        open_all(sys.stdin)
