#!/usr/bin/python3
"""Side by side: inbound IPsec by tapsec and by what users would pick, on one machine.

    test/bench/sidebyside.py prepare                builds tapsec, wireguard-go and DPDK's ipsec-secgw
    sudo test/bench/sidebyside.py run FILE          measures all in seven rounds, adds them to FILE, prints tables

Two loads. *Stream*: core 1 sends, a call for 32 frames, never more than the forwarder's queue holds, so that
none is lost; the sender's part of the kernel's work is on core 1, and where it never has to wait it is the
limit. *Drain*: the forwarder is stopped, its queue is filled, and it alone works until all have come out. It
has core 0 unless its name says otherwise. The rates are of frames that the sink's interface has counted, and a
frame of each size is looked at there first. Nobody listens behind the sink: the stack drops what is not its own.

Everything happens in network namespaces that end with the script. It wants root, two cores, Go, and on Debian 12
    apt-get install python3-cryptography iproute2 dpdk-doc libdpdk-dev librte-net-tap23 librte-net-af-packet23 \\
        librte-crypto-ipsec-mb23 pkg-config libnuma-dev strongswan-charon strongswan-swanctl libcharon-extra-plugins
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time

import load

SIZES = 64, 512, 1400  # bytes of the inner IPv4 packet
BUILD = """
go build -C "$repository" -o "$PWD/tapsec" .
GOBIN=$PWD go install golang.zx2c4.com/wireguard@v0.0.0-20260522210424-ecfc5a8d5446
rm -rf dpdk && mkdir dpdk
cp -r /usr/share/dpdk/examples/ipsec-secgw /usr/share/dpdk/examples/common dpdk
# The example wants checksums from the port that receives, which neither net_tap nor af_packet needs or has.
sed -i 's/\\.offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM,/.offloads = 0,/' dpdk/ipsec-secgw/ipsec-secgw.c
make -s -C dpdk/ipsec-secgw shared >dpdk/make.log 2>&1 || { cat dpdk/make.log; exit 1; }
cp dpdk/ipsec-secgw/build/ipsec-secgw-shared ipsec-secgw
"""


def stream(forwarder, sender, sink, seconds):
    """Keeps the queue filled. Frames still missing when nothing comes out any more were lost."""
    arrived, sent, waited, full = 0, 0, 0.0, forwarder.room - load.BURST
    first, begin = sink.packets(), time.monotonic()
    while (now := time.monotonic()) < begin + seconds and sender.left():
        if sent - arrived > full:
            arrived = sink.packets() - first
        if sent - arrived <= full:
            sent += sender.send(load.BURST)
            continue
        load.pause()
        waited += time.monotonic() - now
    took, during = time.monotonic() - begin, sink.packets() - first
    settle(forwarder, sink, first, sent)
    return {"rate": during / took, "lost": 1 - (sink.packets() - first) / sent, "waited": waited / took}


def drain(forwarder, sender, sink, seconds):
    """Fills the queue of a stopped forwarder, and takes the time from its going on to the last frame."""
    with load.Clock(forwarder.pid) as clock:
        return drains(forwarder, sender, sink, seconds, clock)


def drains(forwarder, sender, sink, seconds, clock):
    took, came, sent, cost, counted = 0.0, 0, 0, 0.0, 0
    while took < seconds and sender.left() > forwarder.room:
        os.kill(forwarder.pid, signal.SIGSTOP)
        os.waitpid(forwarder.pid, os.WUNTRACED)
        first, lap = sink.packets(), 0
        while lap < forwarder.room and (n := sender.send(forwarder.room - lap)):
            lap += n
        begin = time.monotonic()
        os.kill(forwarder.pid, signal.SIGCONT)
        looks = []
        took += settle(forwarder, sink, first, lap, clock, looks) - begin
        came, sent = came + sink.packets() - first, sent + lap
        if looks := [x for x in looks if 0 < x[0] < lap]:
            counted += looks[-1][0] - looks[0][0]
            cost += looks[-1][1] - looks[0][1]
    return {"rate": came / took, "lost": 1 - came / sent} | ({"cpu": cost / counted} if counted else {})


def settle(forwarder, sink, first, sent, clock=None, looks=None):
    """Waits until all that were sent are out, or none has come for 1 s. Returns when the last one came.

    A look is how many were out, and the time of a processor that the forwarder had used then: whatever
    else the machine does, and however late one looks, both are of the same moment.
    """
    last, when = -1, time.monotonic()
    while last < sent and time.monotonic() < when + 1:
        time.sleep(50e-6)  # core 1 is the forwarder's too where it has both
        before = clock and clock.used()
        now = sink.packets() - first
        if clock and (after := clock.used()) - before < 20e-6:
            looks.append((now, (before + after) / 2))
        if now != last:
            last, when = now, time.monotonic()
    if not last:
        raise SystemExit(f"{forwarder.name}: of {sent} frames none came out of {forwarder.sink}")
    return when


LOADS = {"stream": stream, "drain": drain}


def measure(forwarder, size, seconds):
    sink = forwarder.counter(size)
    for way in random.sample(forwarder.loads, len(forwarder.loads)):
        sender = forwarder.sender(size)
        forwarder.check(sender, size)
        LOADS[way](forwarder, sender, sink, seconds / 10)  # its memory is touched, its caches are warm
        yield {"variant": forwarder.name, "size": size, "load": way} | LOADS[way](forwarder, sender, sink, seconds)
    sink.close()


def play(args):
    import forwarders  # in the namespace
    import libipsec

    chosen = [f for f in forwarders.ALL + libipsec.ALL if not args.only or f.name in args.only]
    for number in range(args.rounds):
        for kind in random.sample(chosen, len(chosen)):
            with kind(args.work) as forwarder, open(args.file, "a") as out:
                for size in random.sample(SIZES, len(SIZES)):
                    for row in measure(forwarder, size, args.seconds):
                        print(json.dumps(row | {"round": f"{os.getpid()}.{number}"}), file=out, flush=True)
                        print("{variant:24} {size:4} B {load:6} {rate:7.0f} frames/s".format(**row), file=sys.stderr)


def tables(file, against):
    with open(file) as f:
        rows = [json.loads(line) for line in f]
    cells = {}  # (load, variant, size): rate by round
    for r in rows:
        cells.setdefault((r["load"], r["variant"], r["size"]), {})[r["round"]] = r["rate"]
    names = sorted({r["variant"] for r in rows},
                   key=lambda v: -statistics.median(cells["stream", v, SIZES[-1]].values()))

    def table(title, cell):
        print(f"\n| {title} |", *(f" {way} {s} B |" for way in LOADS for s in SIZES), sep="")
        print("|---" * (1 + len(LOADS) * len(SIZES)) + "|")
        for v in names:
            print(f"| {v} |", *(f" {cell(way, v, s)} |" for way in LOADS for s in SIZES), sep="")

    cost = {(v, s): {r["round"]: r["cpu"] for r in rows if (r["variant"], r["size"]) == (v, s) and "cpu" in r}
            for v in names for s in SIZES}

    def relative(variant, size):
        ours, theirs = cost[against, size], cost[variant, size]
        return spread([ours[k] / theirs[k] for k in ours.keys() & theirs.keys()], 2)

    def rate(way, variant, size):
        return spread([r / 1e3 for r in cells.get((way, variant, size), {}).values()], 0)

    def ratio(way, variant, size):
        """Of rates in the same round, since a shared machine is slower in one than in another."""
        ours, theirs = (cells.get((way, v, size), {}) for v in (against, variant))
        return spread([ours[k] / theirs[k] for k in ours.keys() & theirs.keys() if theirs[k]], 2)

    table("thousand frames/s: median (quartiles)", rate)
    table(f"{against}, over", ratio)
    print("\n| ns of a processor for a frame, drain |", *(f" {s} B | {against}, over |" for s in SIZES), sep="")
    print("|---" * (1 + 2 * len(SIZES)) + "|")
    for v in names:
        print(f"| {v} |", *(f" {spread([x * 1e9 for x in cost[v, s].values()], 0)} | {relative(v, s)} |" for s in SIZES), sep="")
    print("\n| stream of 1400 B | sender waited | most frames lost |\n|---|---|---|")
    for v in names:
        of = [r for r in rows if (r["variant"], r["load"], r["size"]) == (v, "stream", SIZES[-1])]
        print(f"| {v} | {statistics.median(r['waited'] for r in of):.0%} | {max(r['lost'] for r in of):.2%} |")


def spread(values, digits):
    """Median and quartiles: the machine's hiccups are outliers, not news."""
    if not values:
        return "-"
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def alone():
    """Starts this script anew in namespaces of its own, once."""
    if "TAPSEC_ALONE" not in os.environ:
        setup = ("mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; ip link set lo up\n"
                 "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6\nexec \"$@\"")
        os.environ["TAPSEC_ALONE"] = "yes"
        os.execvp("unshare", ["unshare", "--net", "--mount", "sh", "-ec", setup, "sh", sys.executable, *sys.argv])
    os.sched_setaffinity(0, {1})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="/var/tmp/tapsec-sidebyside", help="where the programs are built")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare")
    run = commands.add_parser("run")
    run.add_argument("file")
    run.add_argument("--rounds", type=int, default=7)
    run.add_argument("--seconds", type=float, default=0.4, help="of each load on each size")
    run.add_argument("--only", action="append", help="only this one, by its whole name; may be given again")
    run.add_argument("--against", default="tapsec, ring", help="whose rate the second table divides by the others'")
    args = parser.parse_args()
    if args.command == "prepare":
        os.makedirs(args.work, exist_ok=True)
        repository = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
        subprocess.run(["sh", "-ec", BUILD], cwd=args.work, env=os.environ | {"repository": repository}, check=True)
        return
    if args.rounds:
        alone()
        play(args)
    tables(args.file, args.against)


if __name__ == "__main__":
    main()
