"""The programs compared. Each is started for a round, and ends and is waited for behind its with.

They run in the network namespace of the script. Where a program wants an existing interface on the
wire's side, that is port0 of a veth pair with peer0.
"""

import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time

import frames
import load

KEY, SPI = bytes(range(16)) + b"\xa1\xa2\xa3\xa4", 0xC001
QUEUE = 2048  # frames that an interface or ring holds, where that can be chosen
VETH = f"""ip link add port0 address {frames.PORT.hex(":")} type veth \\
    peer name peer0 address {frames.PEER.hex(":")} netns {os.getpid()}
ip link set port0 up
"""
VETHS = VETH + """ip link set peer0 up
ip link add port1 up mtu 1600 type veth peer name peer1 mtu 1600
ip link set peer1 up
"""


def sh(script):
    done = subprocess.run(["sh", "-ec", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{script}\n{done.stdout}")
    return done.stdout


def until(what, condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Forwarder:
    """What all have: a process, an interface to send to, one where packets come out, and frames."""

    cores = {0}
    loads = ("stream", "drain")
    room = 1792  # frames that may wait in front of it: fewer than its queue holds
    stock = 4096  # frames made for each size
    again = True  # it takes a frame again, having no replay protection
    first = 1  # sequence number of the next frame

    def __init__(self, work):
        self.work, self.processes = work, []

    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory()
        try:
            self.up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.down()
        self.dir.cleanup()

    def down(self):
        for p in reversed(self.processes):  # each has ended before its interfaces and its namespace go
            p.send_signal(signal.SIGTERM)
            p.send_signal(signal.SIGCONT)
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()

    def file(self, name, text=""):
        path = os.path.join(self.dir.name, name)
        with open(path, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
            f.write(text)
        return path

    def start(self, *command, ready=lambda log: True, **env):
        """Starts the program and waits until its log says, or something else does, that it is ready."""
        log = self.file(f"log{len(self.processes)}")

        def child():
            os.sched_setaffinity(0, self.cores)
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

        with open(log, "wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | env, preexec_fn=child)
        self.processes.append(process)
        self.pid = process.pid

        def done():
            with open(log) as f:
                text = f.read()
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended: {text}")
            return ready(text)
        until(command[0], done)

    def sender(self, size):
        """Frames of a size, none that was sent before."""
        numbers = range(self.first, self.first + self.stock)
        self.first = numbers.stop
        return load.Sender(self.source, list(self.tunnel.seal(size, numbers)), self.again)

    def counter(self, size):
        return load.Sink(self.pid, self.sink)

    def check(self, sender, size):
        """Has one frame come through, and wants to find its plaintext at the sink."""
        with load.Namespace(self.pid):
            s = load.listener(self.sink)
        sender.send(1)
        with s:
            try:
                while frames.inner(size) not in s.recv(1 << 16):
                    pass
            except TimeoutError:
                raise SystemExit(f"{self.name}: no plaintext came out of {self.sink}") from None


class Ring(Forwarder):
    name, engine, spis = "tapsec, ring", "ring", [SPI]
    source, sink = "wire0", "host0"

    interfaces = ""  # of the configuration; TAPs by default

    def up(self):
        sas = "".join(f"""
  - spi: {spi:#x}
    src: {frames.OUTER[0]}
    dst: {frames.OUTER[1]}
    protocol: esp
    mode: tunnel
    suite: aes128gcm16
    encryption_key: 0x{KEY.hex()}""" for spi in self.spis)
        self.tunnel = frames.ESPTunnel(self.spis, KEY)
        self.start(f"{self.work}/tapsec", "run", "-c", self.file("tapsec.yaml", f"{self.interfaces}sas:{sas}\n"),
                   "--engine", self.engine, "--queues", str(len(self.spis)), ready=lambda log: "msg=ready" in log)
        if not self.interfaces:
            sh(f"ip link set wire0 txqueuelen {QUEUE}")


class TwoQueues(Ring):
    name, spis, cores = "tapsec, ring, 2 queues", [SPI, SPI + 1], {0, 1}


class Plain(Ring):
    name, engine = "tapsec, plain", "plain"


class Attached(Ring):
    name, source, sink = "tapsec, attached", "peer0", "peer1"
    interfaces = "wire: {name: port0, attach: true}\nhost: {name: port1, attach: true}\n"

    def up(self):
        sh(VETHS)
        super().up()

    def down(self):
        super().down()
        sh("ip link del port0; ip link del port1")


class AttachedDirect(Attached):
    name, engine = "tapsec, attached, direct", "direct"


class AttachedQueues(Attached):
    name, spis, cores = "tapsec, attached, 2 queues", [SPI, SPI + 1], {0, 1}


class AttachedDirectQueues(AttachedQueues):
    name, engine = "tapsec, attached, direct, 2 queues", "direct"


class AttachedPlain(Attached):
    name, engine = "tapsec, attached, plain", "plain"


class Secgw(Forwarder):
    """DPDK's ipsec-secgw on two ports, each one of EAL's virtual devices."""

    def secgw(self, *ports):
        self.tunnel = frames.ESPTunnel([SPI], KEY)
        host = f"{frames.INNER[1]}/32"
        config = self.file("ep.cfg", f"""sp ipv4 in esp protect {SPI} pri 1 dst {host} sport 0:65535 dport 0:65535
sa in {SPI} aead_algo aes-128-gcm aead_key {KEY.hex(":")} mode ipv4-tunnel src {frames.OUTER[0]} dst {frames.OUTER[1]}
rt ipv4 dst {host} port 1
neigh port 1 {frames.ELSEWHERE.hex(":")}
""")
        devices = [f"--vdev={p}" for p in (*ports, "crypto_aesni_gcm0")]
        self.start(f"{self.work}/ipsec-secgw", "-l", "0", "--no-huge", "-m", "1024", "--no-pci", *devices,
                   "--", "-p", "0x3", "-P", "-u", "0x1", "-l", "--config=(0,0,0),(1,0,0)", "-f", config,
                   ready=lambda log: "entering main loop on lcore 0" in log)


class NetTap(Secgw):
    name, source, sink = "DPDK, net_tap", "dtap0", "dtap1"

    def up(self):
        self.secgw("net_tap0,iface=dtap0", "net_tap1,iface=dtap1")
        sh(f"ip link set dtap0 txqueuelen {QUEUE}")


class AfPacket(Secgw):
    name, source, sink = "DPDK, af_packet", "peer0", "peer1"

    def up(self):
        sh(VETHS)
        self.secgw(f"net_af_packet0,iface=port0,framecnt={QUEUE}", f"net_af_packet1,iface=port1,framecnt={QUEUE}")

    def down(self):
        super().down()
        sh("ip link del port0; ip link del port1")


class WireGuard(Forwarder):
    name, source, sink = "wireguard-go", "peer0", "wg0"
    again, stock = False, 100_000

    def up(self):
        sh(VETH + f"ip link set peer0 up; ip addr add {frames.OUTER[1]}/24 dev port0; "
                  f"ip neigh add {frames.OUTER[0]} lladdr {frames.PEER.hex(':')} dev port0")
        control = "/run/wireguard/wg0.sock"
        self.start(f"{self.work}/wireguard", "-f", "wg0", ready=lambda log: os.path.exists(control), LOG_LEVEL="error")
        self.tunnel = frames.WireGuard()
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(control)
            s.sendall(self.tunnel.configuration().encode())
            if b"errno=0" not in s.recv(4096):
                raise SystemExit("wireguard-go does not take its configuration")
        sh("ip link set wg0 up")
        with load.listener(self.source) as s:
            load.Sender(self.source, [self.tunnel.initiation()], True).send(1)
            while not self.tunnel.answered(s.recv(1 << 16)):
                pass

    def counter(self, size):
        return load.MergedSink(self.pid, self.sink, size)

    def down(self):
        super().down()
        sh("ip link del port0")


class WireGuardBoth(WireGuard):
    name, cores = "wireguard-go, both cores", {0, 1}


ALL = [Ring, TwoQueues, Plain, Attached, AttachedDirect, AttachedQueues, AttachedDirectQueues, AttachedPlain, NetTap, AfPacket,
       WireGuard, WireGuardBoth]
