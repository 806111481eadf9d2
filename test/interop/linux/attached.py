#!/usr/bin/python3
"""Has two stacks of user-mode Linux talk through tapsec, which is attached to a
veth, or to what was made of it. Runs as its init. Of the namespaces of the stacks
"far" has the veth's other end, "stack" tapsec's TAP.

The guest says "carried NAME" for each case, with what tapsec counted, or
"failed". Its kernel has what others lack: SCTP, bonds, GRE, Geneve, IPIP.
"""

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import guest  # noqa: E402
from guest import ip, say  # noqa: E402

SIZE = 1 << 18
FAR, STACK = ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2")
INNER = ("198.51.100.1", "2001:db8:1::1"), ("198.51.100.2", "2001:db8:1::2")

# name: what makes of "near" the interface to attach to, and its name; a tunnel
# between the two stacks, which begins with the words of ip-link(8); the protocol
CASES = {
    "tcp": (["link set near up"], "near", "", "tcp"),
    "sctp": (["link set near up"], "near", "", "sctp"),
    "bond": (["link add bond9 type bond mode active-backup", "link set near down", "link set near master bond9"], "bond9", "", "tcp"),
    "gre": (["link set near up"], "near", "type gretap key 7", "tcp"),
    "geneve": (["link set near up"], "near", "type geneve id 7", "tcp"),
    "ipip": (["link set near up"], "near", "type ipip", "tcp"),
    "macvlan": (["link set near up", "link add mv9 link near type macvlan mode bridge"], "mv9", "", "tcp"),
    "passthru": (["link set near up", "link add mv9 link near type macvlan mode passthru"], "mv9", "", "tcp"),
    "bridge": (["link add br9 type bridge", "link set near up", "link set near master br9"], "br9", "", "tcp"),
    "port": (["link add br9 type bridge", "link set br9 up", "link set near up", "link set near master br9"], "near", "", "tcp"),
    "vlan": (["link set near up", "link add vl9 link near type vlan id 9"], "vl9", "", "tcp"),
    "ufo": (["link set near up"], "near", "", "tcp"),
    "sctp-merged": (["link set near up"], "near", "", "tcp"),
}


class Within:
    """A function that runs in a process and a namespace of its own. To start Python for it
    would take a guest several times as long."""

    def __init__(self, namespace, does, *args):
        self.ready, ready = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(ready)
            return
        try:
            with open("/run/netns/" + namespace) as there:
                ctypes.CDLL(None).setns(there.fileno(), 0)
            does(*args, ready)
            os._exit(0)
        except BaseException as e:
            say("%s in %s: %r" % (does.__name__, namespace, e))
        os._exit(1)

    def listens(self):
        """Waits until it does, or has ended."""
        os.read(self.ready, 1)
        return self

    def well(self):
        """Waits for its end, and tells whether it was good."""
        os.close(self.ready)
        return os.waitpid(self.pid, 0)[1] == 0


def configure(namespace, *commands):
    ip("-n", namespace, "-batch", "-", batch="\n".join(commands) + "\n")


def address(namespace, name, pair):
    configure(namespace, f"addr add {pair[0]}/24 dev {name}", f"addr add {pair[1]}/64 dev {name} nodad", f"link set {name} up")


def tunnel(namespace, kind, local, remote, pair):
    words = f"link add tun9 {kind} remote {remote}"
    configure(namespace, words if "geneve" in kind else words + f" local {local}")
    address(namespace, "tun9", pair)


def case(name, prepare, attach, kind, protocol):
    for namespace in "far", "stack":
        ip("netns", "add", namespace)
    ip("-batch", "-", batch="\n".join(["link add near type veth peer name far0 netns far", *prepare, f"link set {attach} up"]) + "\n")
    device = "far0"
    if name == "vlan":
        configure("far", "link set far0 up", "link add far9 link far0 type vlan id 9")
        device = "far9"
    address("far", device, FAR)
    if protocol == "sctp":  # what is merged there nobody can cut
        subprocess.run("ip netns exec far ethtool -K far0 tx-sctp-segmentation off".split())
    send = subprocess.Popen([os.environ["TAPSEC"], "send", "-c", "/run/out/tapsec.yaml", "--out", attach, "--stack", "stack0",
                             "--stack-netns", "stack", "--control", "/run/socket"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in send.stderr:
        if "msg=ready" in line:
            break
    if name == "macvlan":  # which gets what is for its own address
        with open(f"/sys/class/net/{attach}/address") as mac:
            configure("stack", "link set stack0 address " + mac.read().strip())
    address("stack", "stack0", STACK)
    there = STACK
    if name == "sctp-merged":
        carry("sctp", STACK[0], 3)
    carried = []
    if name == "ufo":
        hears = Within("stack", hear).listens()
        carried = [Within("far", ufo).well(), hears.well()]
    if kind:
        tunnel("far", kind, FAR[0], STACK[0], INNER[0])
        tunnel("stack", kind, STACK[0], FAR[0], INNER[1])
        there = INNER[1]
    carried += [carry(protocol, a) for a in (there[:1] if "ipip" in kind else there)]
    moved = json.loads(subprocess.run(["curl", "-s", "--unix-socket", "/run/socket", "http://tapsec/moved"], capture_output=True).stdout)["to_host"]
    send.terminate()
    send.communicate()
    say(f"{'carried' if all(carried) else 'failed'} {name}: uncut={moved['uncut']} oversize={moved['oversize']} in={moved['in']}")
    for made in "near", "bond9", "br9":
        if os.path.exists("/sys/class/net/" + made):
            ip("link", "del", made)
    for namespace in "far", "stack":
        ip("netns", "del", namespace)


def carry(protocol, address, seconds=60):
    """Sends bytes from far to stack and back. Tells whether they came."""
    serves = Within("stack", talk, "serve", protocol, address, seconds).listens()
    asks = Within("far", talk, "ask", protocol, address, seconds)
    return all([asks.well(), serves.well()])


def hear(ready):
    """Wants the datagram of ufo whole."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(60)
        s.bind((STACK[0], 8))
        os.write(ready, b"\n")
        if s.recv(1 << 16) != bytes(4000):
            raise ValueError("another datagram")


def ufo(_):
    """Sends a datagram that is left to be cut into fragments, as from a virtual machine."""
    payload = bytes(4000)
    ip4 = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 1, 0, 64, 17, 0, *map(socket.inet_aton, (FAR[0], STACK[0])))
    datagram = struct.pack(">HHHH", 7, 8, 8 + len(payload), 0) + payload
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as s:
        s.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
        s.bind(("far0", 0))
        header = struct.pack("=BBHHHH", 1, 3, 42, 1400, 34, 6)  # to be summed; VIRTIO_NET_HDR_GSO_UDP
        s.send(header + b"\xff" * 6 + b"\x02\0\0\0\0\1\x08\0" + ip4 + datagram)


def connected(role, protocol, address, seconds, ready):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM, {"tcp": socket.IPPROTO_TCP, "sctp": socket.IPPROTO_SCTP}[protocol])
    s.settimeout(seconds)
    if role == "serve":
        s.bind((address, 9))
        s.listen()
        os.write(ready, b"\n")
        s, _ = s.accept()
        s.settimeout(seconds)
    else:
        s.connect((address, 9))
    return s


def talk(role, protocol, address, seconds, ready):
    data = bytes(i * 7 % 251 for i in range(1 << 10)) * (SIZE >> 10)
    with connected(role, protocol, address, seconds, ready) as s:
        if role == "ask":
            send(s, data)
        got = b""
        while len(got) < SIZE:
            more = s.recv(1 << 16)
            if not more:
                break
            got += more
        if role == "serve":
            send(s, data)
            s.recv(1)  # until the other end has read all
    if got != data:
        raise ValueError(f"{len(got)} of {SIZE} bytes")


def send(s, data):
    for at in range(0, len(data), 1 << 14):
        s.sendall(data[at:at + (1 << 14)])


def main():
    subprocess.run(["modprobe", "-d", "/run/m", "-a", "veth", "tun", "sctp", "bonding", "geneve", "ip_gre", "ipip", "libcrc32c",
                    "macvlan", "bridge"], stderr=subprocess.DEVNULL)
    for name, words in CASES.items():
        case(name, *words)
    say("all carried")


guest.run(main)
