#!/usr/bin/python3
"""Records what the captures of an IPsec host show of its own frames. Runs as the
init of user-mode Linux; guest_test.go says how.

Two namespaces, a and b, are joined by a veth and have a pair of SAs and policies
for each flow. Each sends two datagrams to the other's port 9 by each flow, and what a
sent b by the last two flows is sent to it again. In the shared folder then lie:

    twins.pcap    what tcpdump saw on b's end
    twins.xfrm    `ip xfrm state` of a
    twins.flows   a line for each flow: NUMBER FAMILY PROTOCOL MODE WRONG

Flow N is between 10.0.N.1 and 10.0.N.2, or fd00:N::1 and fd00:N::2; a has 1. WRONG
is what is wrong at b: its key, its SA's selector, the SA that its policy asks for; or
replay, where nothing is. captures/twins holds one such recording.
"""

import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import guest  # noqa: E402
from guest import ip  # noqa: E402

FLOWS = [(f, p, m, "") for f in (4, 6) for p in ("esp", "ah", "encap") for m in ("transport", "tunnel")]
FLOWS += [(4, "esp", m, wrong) for wrong in ("key", "selector", "policy", "replay") for m in ("transport", "tunnel")]

# Holds the ports, and gives 4500 to the kernel.
LISTEN = """
import socket, time
held = []
for family in socket.AF_INET, socket.AF_INET6:
    for port in 9, 4500:
        s = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind(("", port))
        held.append(s)
        if port == 4500:
            s.setsockopt(socket.IPPROTO_UDP, 100, 2)  # UDP_ENCAP, linux/udp.h
print("ready", flush=True)
time.sleep(3600)
"""
SEND = """
import socket, sys, time
for pair in sys.argv[1:]:
    src, dst = pair.split(",")
    s = socket.socket(socket.AF_INET6 if ":" in src else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((src, 0))
    for i in range(2):
        s.sendto(b"datagram %d" % i, (dst, 9))
        time.sleep(0.01)
"""
AGAIN = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("va", 0x800))
for frame in sys.argv[1:]:
    s.send(bytes.fromhex(frame))
"""


def within(name, *words):
    done = subprocess.run(["ip", "netns", "exec", name, *words], capture_output=True, text=True)
    if done.stderr:
        guest.say(f"{words[:4]} {done.stderr}")
    return done.stdout


def address(n, host):
    return f"10.0.{n}.{host}" if FLOWS[n][0] == 4 else f"fd00:{n}::{host}"


def flow(n, here):
    """The commands for one end of a flow."""
    _, protocol, mode, wrong = FLOWS[n]
    at_b = here == "b"
    kind = "ah" if protocol == "ah" else "esp"
    for src, dst, way in (1, 2, "out"), (2, 1, "in"):
        key = "0x" + "%02x" % (0xff if at_b and wrong == "key" else n + 1)
        ends = f"src {address(n, src)} dst {address(n, dst)}"
        suite = f"auth-trunc hmac(sha256) {key + key[2:] * 31} 128" if kind == "ah" else f"aead rfc4106(gcm(aes)) {key + key[2:] * 19} 128"
        extra = " encap espinudp 4500 4500 0.0.0.0" if protocol == "encap" else ""
        if at_b and wrong == "selector":
            extra += " sel src 10.9.9.1 dst 10.9.9.2"
        asked = 99 if at_b and wrong == "policy" else n + 1
        if at_b:
            way = {"out": "in", "in": "out"}[way]
        yield f"xfrm state add {ends} proto {kind} spi {0x1000 + 2 * n + src - 1} reqid {n + 1} mode {mode} replay-window 64 {suite}{extra}"
        yield f"xfrm policy add {ends} proto udp dport 9 dir {way} tmpl {ends} proto {kind} reqid {asked} mode {mode}"


def host(name, number):
    lines = ["link set lo up", f"link set v{name} up"]
    for n, (family, *_) in enumerate(FLOWS):
        lines.append(f"addr add {address(n, number)}/{24 if family == 4 else 64} dev v{name}" + " nodad" * (family == 6))
        lines += flow(n, name)
    guest.write("/run/batch", "\n".join(lines) + "\n")
    within(name, "ip", "-batch", "/run/batch")


def sent_by(flows):
    """The frames that a sent by some flows, in hexadecimal."""
    with open("/run/out/twins.pcap", "rb") as file:
        text, at = file.read(), 24
    while at + 16 <= len(text):
        size = struct.unpack("<I", text[at + 8:at + 12])[0]
        frame = text[at + 16:at + 16 + size]
        at += 16 + size
        if frame[12:14] == b"\x08\x00" and frame[23] == 50 and frame[28] in flows and frame[29] == 1:
            yield frame.hex()


def main():
    for name in "ab":
        ip("netns", "add", name)
    ip("link", "add", "va", "netns", "a", "type", "veth", "peer", "name", "vb", "netns", "b")
    host("a", 1)
    host("b", 2)
    started = [subprocess.Popen(["ip", "netns", "exec", name, "/usr/bin/python3", "-c", LISTEN], stdout=subprocess.PIPE) for name in "ab"]
    started.append(subprocess.Popen(["ip", "netns", "exec", "b", "tcpdump", "-Z", "root", "-i", "vb", "-U", "--immediate-mode",
                                     "-w", "/run/out/twins.pcap"], stderr=subprocess.PIPE))
    for s in started:
        (s.stderr or s.stdout).readline()  # tcpdump says that it listens
    both = range(len(FLOWS))
    within("a", "/usr/bin/python3", "-c", SEND, *(f"{address(n, 1)},{address(n, 2)}" for n in both))
    within("b", "/usr/bin/python3", "-c", SEND, *(f"{address(n, 2)},{address(n, 1)}" for n in both))
    time.sleep(1)
    within("a", "/usr/bin/python3", "-c", AGAIN, *sent_by((len(FLOWS) - 2, len(FLOWS) - 1)))
    time.sleep(1)
    for s in started:
        s.terminate()
        s.wait()
    guest.write("/run/out/twins.xfrm", within("a", "ip", "xfrm", "state"))
    guest.write("/run/out/twins.flows", "".join(f"{n} {' '.join(map(str, f))}".rstrip() + "\n" for n, f in enumerate(FLOWS)))
    guest.say("recorded")


guest.MODULES.append("veth")
guest.run(main)
