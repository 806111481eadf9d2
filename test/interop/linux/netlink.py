#!/usr/bin/python3
"""Records what a real Linux kernel says of its SAs by netlink, for the tests of
internal/mirror:

    ./netlink.py            # writes internal/mirror/testdata, in about 20 seconds

The kernel is a user-mode Linux, as for record.py. Two files come of each recording:

    NAME.netlink   what a mirror's socket got, in order, a line each:
                   port N     its own port
                   ask N      it asked for all SAs, with that number
                   got HEX    a datagram
                   lost       the kernel had dropped news (ENOBUFS)
                   none       nothing had come
    NAME.xfrm      `ip xfrm state` afterwards

It asks as a mirror does: after a loss, when the queue was read to its end. Keys are
made from names and protect nothing.
"""

import errno
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True

import guest  # noqa: E402
from guest import ip, say  # noqa: E402
from record import AEADS, AUTHS, CBC_SHA256, CIPHERS, GCM, SHA1, SHA256, key  # noqa: E402

NETLINK_XFRM = 6
GETSA, MIGRATE = 0x12, 0x21
REQUEST, ACK, DUMP = 1, 4, 0x300
DONE, ERROR = 3, 2
GROUPS = 1 << 1 | 1 << 2 | 1 << 6  # expire, SA, migrate


class Recorder:
    def __init__(self, name, queue=1 << 20):
        self.name, self.lines = name, []
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, queue)
        self.socket.bind((0, GROUPS))
        self.socket.setblocking(False)
        self.line("port", self.socket.getsockname()[0])
        self.asked = 0

    def line(self, *words):
        self.lines.append(" ".join(map(str, words)))

    def ask(self):
        self.asked += 1
        self.line("ask", self.asked)
        self.socket.send(struct.pack("=IHHII", 16, GETSA, REQUEST | DUMP, self.asked, 0))

    def one(self):
        """Takes what comes next: a datagram, None where there is none, b"" after a loss."""
        try:
            datagram = self.socket.recv(1 << 18)
        except OSError as e:
            self.line("lost" if e.errno == errno.ENOBUFS else "none")
            return b"" if e.errno == errno.ENOBUFS else None
        self.line("got", datagram.hex())
        return datagram

    def drain(self):
        while self.one() is not None:
            pass

    def dump(self):
        """Asks, and reads to the end of the answer."""
        self.ask()
        while True:
            datagram = self.one()
            if datagram and struct.unpack_from("=H", datagram, 4)[0] == DONE:
                return

    def finish(self):
        self.drain()
        self.socket.close()
        guest.write(f"/run/out/{self.name}.netlink", "\n".join(self.lines) + "\n")
        guest.write(f"/run/out/{self.name}.xfrm", ip("xfrm", "state"))
        ip("xfrm", "state", "flush")


def state(spi, words, src="192.0.2.1", dst="192.0.2.2", proto="esp", mode="tunnel", verb="add"):
    return f"xfrm state {verb} src {src} dst {dst} proto {proto} spi 0x{spi:x} mode {mode} {words}"


def delete(spi, dst="192.0.2.2", proto="esp"):
    return f"xfrm state delete src 192.0.2.1 dst {dst} proto {proto} spi 0x{spi:x}"


def batch(*lines):
    ip("-batch", "-", batch="\n".join(lines) + "\n")


def algorithms():
    """A dump of an SA for each algorithm, then the same as news."""
    six = dict(src="2001:db8::1", dst="2001:db8::2")
    suites = [*AEADS, *(c + " " + SHA256 for c in CIPHERS), *("enc ecb(cipher_null) '' " + a for a in AUTHS)]
    all = [state(0x1000 + i, s, **(six if i % 2 else {}), mode="transport" if i % 3 else "tunnel") for i, s in enumerate(suites)]
    all += [state(0x2000 + i, a, proto="ah", mode="transport") for i, a in enumerate(AUTHS)]
    all += [
        state(0x3000, GCM + " replay-window 32"),
        state(0x3001, GCM + " replay-window 256 flag esn replay-seq 0x7 replay-seq-hi 0x2 replay-oseq 0x9"),
        state(0x3002, GCM + " replay-window 128"),
        state(0x3003, GCM + " encap espinudp 4500 4500 0.0.0.0"),
        state(0x3004, GCM + " encap espinudp 4500 31337 0.0.0.0"),
        state(0x3005, GCM + " sel src 198.51.100.0/24 dst 203.0.113.0/24"),
        state(0x3006, GCM + " sel src 198.51.100.7 dst 203.0.113.7 proto tcp dport 443", mode="transport"),
        state(0x3007, GCM + " sel src 2001:db8:1::/48 dst 2001:db8:2::/48 proto udp", **six),
        state(0x3008, GCM + " mark 0x7 mask 0xff"),
        state(0x3009, GCM, mode="beet"),
        state(0x300a, GCM, src="0.0.0.0"),
    ]
    batch(*all)
    r = Recorder("algorithms")
    r.dump()
    ip("xfrm", "state", "flush")
    r.drain()
    r.dump()
    batch(*all)
    r.finish()


def changes():
    """What becomes of SAs one by one."""
    r = Recorder("changes")
    r.dump()
    batch(*(state(0x100 + i, GCM) for i in range(1, 9)))
    r.drain()
    batch(delete(0x101), state(0x102, f"aead rfc4106(gcm(aes)) {key('another', 20)} 128", verb="update"), state(0x103, GCM, verb="update"))
    r.drain()
    r.dump()
    ip(*"xfrm state allocspi src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel min 0x200 max 0x200".split())
    r.drain()
    batch(state(0x200, CBC_SHA256, verb="update"))  # as IKE daemons do
    ip(*"xfrm state allocspi src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel min 0x201 max 0x201".split())
    batch(state(0x104, GCM, verb="update") + " limit time-hard 1", state(0x210, GCM + " limit time-soft 1"),
          state(0x211, GCM + " limit time-hard 1"), state(0x220, GCM + " mark 1 mask 0xff"), state(0x220, CBC_SHA256 + " mark 2 mask 0xff"))
    r.drain()
    time.sleep(2.5)
    r.drain()
    batch(*(state(0x300 + i, SHA1, proto="ah", mode="transport") for i in range(4)))
    r.drain()
    ip(*"xfrm state flush proto ah".split())
    r.drain()
    r.dump()
    batch(state(0x400, GCM + " reqid 4"), "xfrm policy add src 198.51.100.0/24 dst 203.0.113.0/24 dir out "
          "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 4 mode tunnel")
    r.drain()
    migrate()
    r.drain()
    r.dump()
    ip("xfrm", "policy", "flush")
    r.finish()


def migrate():
    """Moves the tunnel of that policy from 192.0.2.2 to 192.0.2.9, as Mobile IP does."""
    a = lambda text: socket.inet_aton(text).ljust(16, b"\0")
    selector = a("203.0.113.0") + a("198.51.100.0") + struct.pack("=4H H3B3x iI", 0, 0, 0, 0, socket.AF_INET, 24, 24, 0, 0, 0)
    policy = selector + struct.pack("=IB3x", 0, 1)
    one = a("192.0.2.2") + a("192.0.2.1") + a("192.0.2.9") + a("192.0.2.1") + struct.pack("=BBHIHH", 50, 1, 0, 4, socket.AF_INET, socket.AF_INET)
    body = policy + struct.pack("=HH", 4 + len(one), 17) + one
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as s:
        s.send(struct.pack("=IHHII", 16 + len(body), MIGRATE, REQUEST | ACK, 1, 0) + body)
        code = struct.unpack_from("=i", s.recv(1 << 16), 16)[0]
    say(f"migrate: {code}")


def interleaved():
    """A dump of several datagrams, while SAs come and go that it has told of, or not yet.
    The keys of a live SA stay after an update, whatever the kernel says of it."""
    batch(*(state(i, GCM) for i in range(0x1000, 0x1000 + 120)))
    r = Recorder("interleaved")
    r.ask()
    for turn in range(2):
        r.one()
        at = 0x1000 + 10 * turn
        batch(delete(at), delete(0x1077 - at % 0x100), state(0x2000 + turn, GCM), state(at + 1, CBC_SHA256, verb="update"),
              state(0x3000 + turn, GCM), delete(0x3000 + turn))
    r.drain()
    r.dump()
    r.finish()


def overrun():
    """More news than the socket has room for."""
    batch(*(state(0x1000 + i, GCM) for i in range(20)))
    r = Recorder("overrun", queue=1 << 14)
    r.dump()
    batch(*(state(0x2000 + i, GCM) for i in range(60)), *(delete(0x1000 + i) for i in range(10)), *(delete(0x2000 + i) for i in range(5)))
    r.drain()
    r.dump()
    batch(delete(0x100f), state(0x4000, GCM))
    r.finish()


def again():
    """News are lost while a dump is under way."""
    batch(*(state(0x1000 + i, GCM) for i in range(100)))
    r = Recorder("again", queue=1 << 15)
    r.ask()
    r.one()
    batch(*(state(0x2000 + i, GCM) for i in range(60)), *(delete(0x1000 + i) for i in range(30)))
    r.drain()
    r.dump()
    r.finish()


def main():
    for recording in algorithms, changes, interleaved, overrun, again:
        recording()
        say("has recorded " + recording.__name__)
    say("recorded")


if __name__ == "__main__":
    guest.main(__file__, "../../../internal/mirror/testdata", main)
