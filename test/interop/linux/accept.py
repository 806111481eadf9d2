#!/usr/bin/python3
"""Lets the kernel of user-mode Linux open what tapsec sealed. Runs as its init.

In the shared folder lies `batch`, commands for ip -batch: SAs, and policies that
take datagrams to port 9 by those SAs alone. A datagram in the clear to port 10
tells that a flow is over, and its number, which the guest says. At its end the
guest writes `received`, the datagrams to port 9 in hexadecimal behind the address
that they were for, and the kernel's counters: `states` and `errors`.
"""

import os
import select
import socket
import sys
import time

sys.dont_write_bytecode = True

import guest  # noqa: E402
from guest import ip  # noqa: E402

UDP_ENCAP, UDP_ENCAP_ESPINUDP = 100, 2  # linux/udp.h
SO_RCVBUFFORCE, IP_PKTINFO = 33, 8


def listen(family, port):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        s.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    s.bind(("", port))
    if port == 4500:
        s.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
    return s


def destination(family, ancillary):
    """The address of a packet info structure."""
    for _, _, data in ancillary:
        return socket.inet_ntop(family, data[:16] if family == socket.AF_INET6 else data[8:12])


def inside():
    ip("-batch", "-", batch=f"""link set vec0 arp off address {os.environ["MAC"]}
link set vec0 addrgenmode none up
link set lo up
addr add 10.9.0.1/32 dev vec0
addr add fd09::1/128 dev vec0 nodad
""")
    time.sleep(0.3)
    ip("-batch", "-", batch="""route add local 10.9.0.0/16 dev lo
route add local 10.7.0.0/16 dev lo
route replace default dev vec0
-6 route add local fd09::/16 dev lo
-6 route add local fd07::/16 dev lo
-6 route replace default dev vec0
""".replace("\n-6 route", "\nroute"))
    ip("-batch", "/run/out/batch")
    families = socket.AF_INET, socket.AF_INET6
    encapsulated = [listen(f, 4500) for f in families]  # the kernel takes what comes there
    data, marks = [listen(f, 9) for f in families], listen(socket.AF_INET, 10)
    received = []
    guest.say("ready")
    while True:
        select.select([*data, marks], [], [])
        mark = take(marks)
        for s in data:  # what came before the mark is here by now
            while datagram := take(s):
                received.append("%s %s\n" % datagram)
        if mark and mark[1] == b"end".hex():
            break
        if mark:
            guest.say("flow %d." % int(mark[1], 16))
    report(received)
    del encapsulated


def take(s):
    """The next datagram, with the address that it is for; None if there is none."""
    try:
        payload, ancillary, _, _ = s.recvmsg(4096, 256, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    return destination(s.family, ancillary), payload.hex()


def report(received):
    guest.write("/run/out/received", "".join(received))
    guest.write("/run/out/states", ip("-s", "xfrm", "state"))
    with open("/proc/net/xfrm_stat") as file:
        guest.write("/run/out/errors", file.read())
    guest.say("reported")


guest.run(inside)
