#!/usr/bin/python3
"""Stack to stack: what one TCP flow costs in all processes together, tapsec beside wireguard-go and libipsec.

    test/bench/system.py prepare            builds tapsec and wireguard-go here
    sudo test/bench/system.py run           measures all in turn, prints a table; --json an object `system`
    sudo test/bench/system.py run --only tapsec --only libipsec

Two Linux stacks in network namespaces of their own, and iperf3 between them. Counted is the processor's
time of the programs, by the kernel's scheduler, and of iperf3's both ends, by a frame of the flow, which is a
segment of the inner MSS; whoever merges them on the wire counts as the others. It rises with what else the
machine does: trust ratios of one run. tapsec (AES-128-GCM, a TAP) is measured with everything merged, with
nothing, with the tunnel in UDP, and with one tunnel in place of a tunnel and transport mode, either way;
wireguard-go with its own offloads (ChaCha20-Poly1305, a veth between two); strongSwan's charon with
kernel-libipsec (one tunnel of AES-128-GCM in UDP, a veth).
It wants root, Go, and python3-cryptography, iproute2, iperf3, strongswan-charon, strongswan-swanctl,
libcharon-extra-plugins.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import libipsec

BUILD = """
go build -C "$repository" -o "$PWD/tapsec" .
GOBIN=$PWD go install golang.zx2c4.com/wireguard@v0.0.0-20260522210424-ecfc5a8d5446
"""
TUNNEL = """
sas:
  - {name: there, spi: 0x7001, src: 192.0.2.1, dst: 192.0.2.2, protocol: esp, mode: tunnel, suite: aes128gcm16,
     encryption_key: 0x000102030405060708090a0b0c0d0e0fa1a2a3a4, esn: true}
  - {name: back, spi: 0x7002, src: 192.0.2.2, dst: 192.0.2.1, protocol: esp, mode: tunnel, suite: aes128gcm16,
     encryption_key: 0x101112131415161718191a1b1c1d1e1fb1b2b3b4, esn: true}
"""
SAMPLE = "../../configs/rig.yaml"  # what the rig has without a file of its own


def sh(*command, **how):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}")
    return done.stdout


def processor(pid):
    """Seconds that a process has had, all its threads together."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            total += int(f.read().split()[0])
    return total / 1e9


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bound():
    """Has the kernel end a child with this script."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def until(name, process, ready, seconds=60):
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{name} does not start")
        time.sleep(0.02)


def ended(processes):
    for p in processes:
        p.terminate()
    for p in processes:
        try:
            p.wait(30)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()


class Rig:
    """Two hosts by tapsec, which stand until down."""

    def __init__(self, name, tapsec, *flags):
        self.name, self.tapsec, self.flags = name, tapsec, flags
        self.rig, self.address = f"bench{abs(hash(name)) % 10**6}", "10.77.0.2"

    def up(self):
        sh(self.tapsec, "rig", "up", self.rig, *self.flags)
        with open(f"{os.environ['XDG_RUNTIME_DIR']}/tapsec/{self.rig}/state.json") as f:
            self.programs = {p["name"]: p["process"]["pid"] for p in json.load(f)["programs"]}

    def down(self):
        sh(self.tapsec, "rig", "down", self.rig)

    def within(self, host):
        return [self.tapsec, "rig", "exec", "--rig", self.rig, host, "--"]


class WireGuard:
    """Two of wireguard-go, each in a namespace with one end of a veth."""

    name, address = "wireguard-go", "10.78.0.2"

    def __init__(self, program):
        self.program, self.processes = program, []

    def up(self):
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
        keys = [os.urandom(32) for _ in "ab"]
        public = [X25519PrivateKey.from_private_bytes(k).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex() for k in keys]
        for host in "ab":
            sh("ip", "netns", "add", f"wgbench-{host}")
        sh("ip", "link", "add", "wgv0", "netns", "wgbench-a", "type", "veth", "peer", "name", "wgv0", "netns", "wgbench-b")
        for i, host in enumerate("ab"):
            tun, control = f"wgbench{host}", f"/run/wireguard/wgbench{host}.sock"
            p = subprocess.Popen([*self.within(host), self.program, "-f", tun], env=os.environ | {"LOG_LEVEL": "error"}, stderr=subprocess.DEVNULL,
                                 preexec_fn=bound)
            self.processes.append(p)
            until(self.name, p, lambda: os.path.exists(control))
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(control)
                s.sendall((f"set=1\nprivate_key={keys[i].hex()}\nlisten_port=5182\n"
                           f"public_key={public[1 - i]}\nendpoint=10.79.0.{2 - i}:5182\nallowed_ip=10.78.0.0/24\n\n").encode())
                if b"errno=0" not in s.recv(4096):
                    raise SystemExit("wireguard-go does not take its configuration")
            for device, address in ("wgv0", f"10.79.0.{i + 1}/24"), (tun, f"10.78.0.{i + 1}/24"):
                sh(*self.within(host), "ip", "address", "add", address, "dev", device)
                sh(*self.within(host), "ip", "link", "set", device, "up")
        self.programs = {"run": self.processes[1].pid, "send": self.processes[0].pid}

    def down(self):
        ended(self.processes)
        for host in "ab":
            subprocess.run(["ip", "netns", "delete", f"wgbench-{host}"], stderr=subprocess.DEVNULL)

    def within(self, host):
        return ["ip", "netns", "exec", f"wgbench-{host}"]


class Libipsec:
    """Two of strongSwan's charon with kernel-libipsec, each in a namespace with one end of a veth."""

    name, address = "libipsec", "10.82.2.1"

    def __init__(self, directory):
        self.directory, self.processes = directory, []

    def up(self):
        sites = [{"address": f"10.81.0.{n}", "network": f"10.82.{n}.0/24", "inside": f"10.82.{n}.1"} for n in (1, 2)]
        for host in "ab":
            sh("ip", "netns", "add", f"lsbench-{host}")
        sh("ip", "link", "add", "lsv0", "netns", "lsbench-a", "type", "veth", "peer", "name", "lsv0", "netns", "lsbench-b")
        for host, site, peer in ("a", *sites), ("b", *reversed(sites)):
            for device, address in ("lsv0", f"{site['address']}/24"), ("lo", f"{site['inside']}/32"):
                sh(*self.within(host), "ip", "address", "add", address, "dev", device)
                sh(*self.within(host), "ip", "link", "set", device, "up")
            self.charon(host, site, peer)
        self.swanctl("a", "--initiate", "--child", libipsec.CHILD)
        self.programs = {"run": self.processes[1].pid, "send": self.processes[0].pid}

    def charon(self, host, site, peer):
        control, settings, connections = (f"{self.directory}/{host}.{end}" for end in ("vici", "strongswan", "swanctl"))
        with open(settings, "w") as f:
            f.write(libipsec.CHARON.format(log=f"{self.directory}/{host}.log", control=control))
        with open(connections, "w") as f:
            f.write(libipsec.CONNECTION.format(site=site, peer=peer))
        p = subprocess.Popen([*self.within(host), "unshare", "--mount", "sh", "-ec", "mount -t tmpfs tmpfs /run; exec /usr/lib/ipsec/charon"],
                             env=os.environ | {"STRONGSWAN_CONF": settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=bound)
        self.processes.append(p)
        until("charon", p, lambda: os.path.exists(control))
        self.swanctl(host, "--load-all", "--file", connections)

    def swanctl(self, host, *arguments):
        sh("swanctl", *arguments, "--uri", f"unix://{self.directory}/{host}.vici")

    def down(self):
        ended(self.processes)
        for host in "ab":
            subprocess.run(["ip", "netns", "delete", f"lsbench-{host}"], stderr=subprocess.DEVNULL)

    def within(self, host):
        return ["ip", "netns", "exec", f"lsbench-{host}"]


def measure(system, seconds):
    """One flow from a to b: nanoseconds a frame by process, Mbit/s, retransmissions."""
    earlier = children()
    server = subprocess.Popen([*system.within("b"), "iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, text=True, preexec_fn=bound)
    for line in server.stdout:
        if "listening" in line:
            break
    before = {name: processor(pid) for name, pid in system.programs.items()}
    client = sh(*system.within("a"), "iperf3", "-J", "-c", system.address, "-t", str(seconds))
    server.stdout.read()
    server.wait()
    used = {name: processor(pid) - before[name] for name, pid in system.programs.items()}
    used["iperf3"] = children() - earlier
    said = json.loads(client)
    end = said["end"]
    frames = end["sum_sent"]["bytes"] / said["start"]["tcp_mss_default"]
    result = {f"{name}_ns": round(s * 1e9 / frames) for name, s in used.items()}
    return result | {"cpu_ns": sum(result.values()), "frames_per_s": round(frames / end["sum_sent"]["seconds"]),
                     "mbit_per_s": round(end["sum_received"]["bits_per_second"] / 1e6), "retransmits": end["sum_sent"]["retransmits"]}


def quartiles(rounds, key):
    values = [r[key] for r in rounds]
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return round(middle), round(low), round(high)


def run(o):
    os.environ["XDG_RUNTIME_DIR"] = directory = tempfile.mkdtemp(prefix="system-")
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), SAMPLE)) as f:
        both = f.read()
    for name, text in {"tunnel": TUNNEL, "tunnel-udp": TUNNEL.replace("mode: tunnel,", "mode: tunnel, encap: {port: 4500},"),
                       "udp": both.replace("mode: tunnel\n", "mode: tunnel\n    encap: {port: 4500}\n")}.items():
        with open(f"{directory}/{name}.yaml", "w") as f:
            f.write(text)
    tapsec = f"{o.work}/tapsec"
    systems = [Rig("tapsec", tapsec), Rig("tapsec, --unmerged all", tapsec, "--unmerged", "all"),
               Rig("tapsec, in UDP", tapsec, "-c", f"{directory}/udp.yaml"),
               Rig("tapsec, one tunnel", tapsec, "-c", f"{directory}/tunnel.yaml"),
               Rig("tapsec, one tunnel in UDP", tapsec, "-c", f"{directory}/tunnel-udp.yaml"), WireGuard(f"{o.work}/wireguard")]
    systems += [Libipsec(directory)] + [Rig(f"tapsec, {path}", path) for path in o.also]
    systems = [s for s in systems if not o.only or s.name in o.only]
    results = {s.name: [] for s in systems}
    with contextlib.ExitStack() as stack:  # whatever fails, the others go down
        stack.callback(sh, "rm", "-r", directory)
        for s in systems:
            stack.callback(s.down)
            s.up()
        load = os.getloadavg()[0]
        for number in range(o.rounds):
            for s in random.sample(systems, len(systems)):
                r = measure(s, o.seconds)
                results[s.name].append(r)
                print(number + 1, s.name, r, file=sys.stderr)
    report(o, results, (load, os.getloadavg()[0]))


def report(o, results, load):
    against = {name: quartiles(results[name], "cpu_ns")[0] for name in (WireGuard.name, Libipsec.name) if name in results}
    table = {}
    for name, rounds in results.items():
        table[name] = {key: quartiles(rounds, key)[0] for key in rounds[0]}
        table[name]["cpu_ns_quartiles"] = quartiles(rounds, "cpu_ns")[1:]
        for peer, ns in against.items():
            table[name][f"over_{peer}"] = round(table[name]["cpu_ns"] / ns, 2)
    if o.json:
        print(json.dumps({"system": {"load": load, "rounds": o.rounds, "results": table}}, indent=2))
        return
    print(f"{o.rounds} rounds of {o.seconds} s, load {load[0]:.1f} to {load[1]:.1f}\n")
    print("| ns a frame | receiver | sender | iperf3 | total (quartiles) |", *(f" over {peer} |" for peer in against),
          " Mbit/s | retransmits |", sep="")
    print("|---" * (7 + len(against)) + "|")
    for name, t in table.items():
        low, high = t["cpu_ns_quartiles"]
        print(f"| {name} | {t['run_ns']} | {t['send_ns']} | {t['iperf3_ns']} | {t['cpu_ns']} ({low}-{high}) |",
              *(f" {t[f'over_{peer}']:.2f} |" for peer in against), f" {t['mbit_per_s']} | {t['retransmits']} |", sep="")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["prepare", "run"])
    p.add_argument("--work", default=os.getcwd(), help="directory of the programs (default: here)")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--seconds", type=int, default=5, help="of each flow")
    p.add_argument("--also", action="append", default=[], metavar="TAPSEC", help="another build to measure beside")
    p.add_argument("--only", action="append", help="only this one, by its whole name; may be given again")
    p.add_argument("--json", action="store_true")
    o = p.parse_args()
    if o.what == "prepare":
        sh("sh", "-ec", BUILD, cwd=o.work, env=os.environ | {"repository": os.path.join(here, "../..")})
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    run(o)


if __name__ == "__main__":
    main()
