"""Sending frames in bursts, and counting those that came out."""

import ctypes
import errno
import os
import socket
import struct
import sys
import time

BURST = 32  # frames in a system call
libc = ctypes.CDLL(None, use_errno=True)


class IOVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):  # struct mmsghdr; the padding is in the last two
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.c_void_p),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_size_t), ("sent", ctypes.c_size_t)]


class Sender:
    """Frames in one block of memory, sent out of an interface one after the other."""

    def __init__(self, interface, frames, again):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.bind((interface, 0))
        self.socket.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
        self.count, self.next, self.again = len(frames), 0, again
        self.block = bytearray(b"".join(frames))
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.block))
        self.iovecs, self.messages = (IOVec * self.count)(), (Message * self.count)()
        vectors = ctypes.addressof(self.iovecs)
        for i, f in enumerate(frames):
            self.iovecs[i].base, self.iovecs[i].length = base, len(f)
            self.messages[i].iov, self.messages[i].iovlen = vectors + i * ctypes.sizeof(IOVec), 1
            base += len(f)

    def left(self):
        return self.count if self.again else self.count - self.next

    def send(self, most):
        """Sends at most so many frames, in one call. Returns how many the interface took."""
        if self.next == self.count and self.again:
            self.next = 0
        start = ctypes.addressof(self.messages) + self.next * ctypes.sizeof(Message)
        n = libc.sendmmsg(self.socket.fileno(), ctypes.c_void_p(start), min(most, self.count - self.next), 0)
        n = max(n, 0)  # no room for the first
        self.next += n
        return n


class Sink:
    """Counts what came into the kernel by an interface in a process's namespaces."""

    def __init__(self, pid, interface):
        folder = f"/proc/{pid}/root/sys/class/net/{interface}/statistics/"
        self.files = [os.open(folder + name, os.O_RDONLY) for name in ("rx_packets", "rx_bytes")]

    def close(self):
        for fd in self.files:
            os.close(fd)

    def packets(self):
        return int(os.pread(self.files[0], 24, 0))


class MergedSink(Sink):
    """Where UDP packets of one size may have been merged, which has them share their 28 bytes of headers."""

    def __init__(self, pid, interface, size):
        super().__init__(pid, interface)
        self.payload = size - 28

    def packets(self):
        packets, octets = (int(os.pread(fd, 24, 0)) for fd in self.files)
        return (octets - 28 * packets) // self.payload


class Clock:
    """Seconds of a processor that a process has used, to the moment (perf_event_open(2), task-clock).

    Its own clock (clock_getcpuclockid(3)) is for others what it was at the last tick or change of task: with
    250 ticks a second it stands still through most of a drain.
    """

    OPEN, SOFTWARE, TASK_CLOCK, INHERIT = 298, 1, 1, 2

    def __init__(self, pid):
        attributes = struct.pack("=IIQ24xQ16x", self.SOFTWARE, 64, self.TASK_CLOCK, self.INHERIT)
        self.files = []
        for thread in os.listdir(f"/proc/{pid}/task"):
            fd = libc.syscall(self.OPEN, attributes, int(thread), -1, -1, 0)
            if fd < 0 and ctypes.get_errno() != errno.ESRCH:  # it has ended
                raise OSError(ctypes.get_errno(), "perf_event_open, of x86-64")
            self.files += [fd] if fd >= 0 else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for fd in self.files:
            os.close(fd)

    def used(self):
        return sum(int.from_bytes(os.read(fd, 8), sys.byteorder) for fd in self.files) / 1e9


class Namespace:
    """Inside the with, this thread is in the network namespace of a process."""

    def __init__(self, pid):
        self.pid = pid

    def __enter__(self):
        self.here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        enter(os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY))

    def __exit__(self, *_):
        enter(self.here)


def enter(fd):
    if libc.setns(fd, 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)


def listener(interface):
    """A packet socket that hears what comes into the kernel by an interface."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
    s.setsockopt(263, 1, struct.pack("iHH8s", socket.if_nametoindex(interface), 1, 0, b""))  # promiscuous
    s.bind((interface, 3))
    s.settimeout(2)
    return s


def pause(seconds=20e-6):
    """Between two looks at a counter, which take its cache line away from who counts."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
