#!/usr/bin/python3
"""Has tapsec judge beside user-mode Linux (tapsec shadow), whose init this is.

    a: kernel's ESP, va0, va1 --- vb0, vb1, kernel's ESP: b, which tapsec shadows on vb0

Both ends are namespaces of the guest. What the shadow says, in JSON, comes to be in the
shared folder as NAME.json, with its exit code behind it:

    one     one SA: good frames, 7 seen before, 12 altered, 3 too old; another whose
            key b has wrong; a third that is given a successor under way
    other   frames of an SA come by vb1, too, where nobody copies them
"""

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import guest  # noqa: E402
from guest import ip, say  # noqa: E402
from record import CBC_SHA256, GCM, key  # noqa: E402

TAPSEC = os.environ.get("TAPSEC", "")
A, B = "192.0.2.1", "192.0.2.2"
MACS = {"va0": "02:00:00:00:00:0a", "vb0": "02:00:00:00:00:0b", "va1": "02:00:00:00:01:0a", "vb1": "02:00:00:00:01:0b"}
WRONG = f"aead rfc4106(gcm(aes)) {key('wrong', 20)} 128"


def inside(namespace, make):
    libc = ctypes.CDLL(None)
    with open("/run/netns/" + namespace) as there, open("/proc/self/ns/net") as here:
        libc.setns(there.fileno(), 0)
        try:
            return make()
        finally:
            libc.setns(here.fileno(), 0)


def ends():
    for name in "ab":
        ip("netns", "add", name)
    for i in "01":
        ip(*f"link add va{i} netns a type veth peer name vb{i} netns b".split())
        for name in "ab":
            ip("-n", name, *f"link set v{name}{i} address {MACS[f'v{name}{i}']} up".split())
    for name, outer, other in ("a", A, B), ("b", B, A):
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, *f"addr add {outer}/24 dev v{name}0".split())
        ip("-n", name, *f"neigh add {other} lladdr {MACS['vb0' if name == 'a' else 'va0']} dev v{name}0".split())


def state(namespace, verb, spi, words="", port=0):
    where = f"xfrm state {verb} src {A} dst {B} proto esp spi {spi:#x}"
    if verb == "add":
        where += f" reqid {port} mode transport replay-window 32 {words} sel src {A} dst {B} proto udp dport {port}"
    ip("-n", namespace, *where.split())


def policy(port):
    ip("-n", "a", *f"xfrm policy add src {A} dst {B} proto udp dport {port} dir out tmpl src {A} dst {B} proto esp reqid {port} mode transport".split())


class Wire:
    """Sends datagrams from a's kernel, and keeps what leaves va0, to send it again."""

    def __init__(self):
        self.udp = inside("a", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.raw = {name: inside("a", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))) for name in ("va0", "va1")}
        for name, s in self.raw.items():
            inside("a", lambda: s.bind((name, 3)))
        self.raw["va0"].settimeout(5)

    def send(self, port, n):
        """Sends datagrams, and gives the ESP frames that they left in."""
        frames = []
        for _ in range(n):
            self.udp.sendto(b"tapsec" * 10, (B, port))
            while True:
                frame, at = self.raw["va0"].recvfrom(4096)
                if at[2] == socket.PACKET_OUTGOING and frame[12:14] == b"\x08\0" and frame[23] == 50:
                    frames.append(frame)
                    break
        return frames

    def again(self, frame, sequence=None, by="va0"):
        if sequence is not None:
            frame = frame[:38] + struct.pack("!I", sequence) + frame[42:]
        if by == "va1":
            frame = bytes.fromhex(MACS["vb1"].replace(":", "")) + frame[6:]
        self.raw[by].send(frame)


class Shadow:
    def __init__(self):
        self.process = subprocess.Popen([TAPSEC, "shadow", "vb0", "--netns", "b", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "msg=ready" in line:
                break

    def end(self, name):
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate()
        guest.write(f"/run/out/{name}.json", out)
        guest.write(f"/run/out/{name}.exit", f"{self.process.returncode}\n{err}")


def one(wire):
    state("a", "add", 0x1001, GCM, 7001)
    state("b", "add", 0x1001, GCM, 7001)
    state("a", "add", 0x1002, GCM, 7002)
    state("b", "add", 0x1002, WRONG, 7002)
    state("a", "add", 0x1003, CBC_SHA256, 7003)
    state("b", "add", 0x1003, CBC_SHA256, 7003)
    old = wire.send(7001, 10)
    shadow = Shadow()
    sent = wire.send(7001, 100)
    wire.send(7002, 20)
    wire.send(7003, 30)
    for frame in sent[-7:]:
        wire.again(frame)
    for i in range(12):
        wire.again(sent[-1], 10000 + i)
    for frame in old[:3]:
        wire.again(frame)
    time.sleep(0.5)  # the old SA's frames are judged as such, whenever it ends
    state("b", "add", 0x1004, GCM, 7003)
    state("a", "add", 0x1004, GCM, 7003)
    state("a", "delete", 0x1003)
    time.sleep(0.5)
    wire.send(7003, 40)
    state("b", "delete", 0x1003)
    time.sleep(0.5)
    wire.send(7001, 50)
    shadow.end("one")


def other(wire):
    shadow = Shadow()
    frames = wire.send(7001, 20)
    for i, frame in enumerate(frames[:5]):
        wire.again(frame, 20000 + i, by="va1")
    time.sleep(0.5)
    shadow.end("other")


def main():
    subprocess.run(["modprobe", "-d", "/run/m", "-a", "veth"], stderr=subprocess.DEVNULL)
    ends()
    for port in 7001, 7002, 7003:
        policy(port)
    ip("-n", "b", *f"addr add {B}/32 dev vb1".split())
    wire = Wire()
    one(wire)
    say("one: done")
    other(wire)
    say("all shadowed")


if __name__ == "__main__":
    guest.run(main)
