#!/usr/bin/python3
"""Has tapsec follow the SAs of user-mode Linux (run --mirror-xfrm), whose init this is.

    a: kernel's ESP --- wire0 | tapsec | host0 --- b: kernel's ESP, whose SAs are followed

Both ends are namespaces of the guest. Datagrams go from a to b all the time. First
`ip xfrm` gives b an SA after the other, and takes each away while a still sends by it;
then two charons negotiate, and rekey. In the shared folder come to be

    frames.pcap   what came to b, in place, with the verdict behind each frame
    tapsec.log    of which the test takes the times
    moments       "add SPI TIME" before, "delete SPI TIME" before the command
    charon         what b's charon had after the rekeys: SPIs
    list           what tapsec had then: sa list --json
    WHEN.log       the log of b's charon, with keys, and
    WHEN.spis      what its kernel had then, both directions
"""

import ctypes
import os
import re
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True

import guest  # noqa: E402
from guest import ip, say  # noqa: E402
from record import GCM, key  # noqa: E402

TAPSEC = os.environ.get("TAPSEC", "")
ENDS = {"a": ("wire0", "192.0.2.1", "10.0.1.1", "02:00:00:00:00:0a"), "b": ("host0", "192.0.2.2", "10.0.2.1", "02:00:00:00:00:0b")}
ROUNDS, REKEYS, FEW = 12, 6, 40
CHARON = "/usr/lib/ipsec/charon"


def until(what, met):
    for _ in range(2400):
        if met():
            return
        time.sleep(0.025)
    raise TimeoutError(what)


def text(path):
    with open(path) as file:
        return file.read()


class Sender(threading.Thread):
    """Sends datagrams from a to b, for as long as the guest lives."""

    def __init__(self):
        super().__init__(daemon=True)
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/run/netns/a") as there, open("/proc/self/ns/net") as here:
            libc.setns(there.fileno(), 0)
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            libc.setns(here.fileno(), 0)
        self.socket.bind((ENDS["a"][2], 9))
        self.sent = 0

    def run(self):
        while True:
            try:
                self.socket.sendto(b"tapsec" * 10, (ENDS["b"][2], 9))
                self.sent += 1
            except OSError:
                pass  # no SA for a moment
            time.sleep(0.001)

    def few(self):
        """Waits until some more are sent."""
        goal = self.sent + FEW
        until("datagrams", lambda: self.sent >= goal)


def ends():
    for name, (_, _, inner, _) in ENDS.items():
        ip("netns", "add", name)
        ip("-n", name, "addr", "add", inner + "/32", "dev", "lo")
        ip("-n", name, "link", "set", "lo", "up")


def link():
    for name, (device, outer, inner, mac) in ENDS.items():
        _, there, beyond, other = ENDS["b" if name == "a" else "a"]
        for words in (f"link set {device} address {mac} up", f"addr add {outer}/24 dev {device}", f"neigh add {there} lladdr {other} dev {device}",
                      f"route add {beyond} via {there} src {inner}"):
            ip("-n", name, *words.split())


def state(namespace, verb, spi, *words):
    ip("-n", namespace, "xfrm", "state", verb, "src", ENDS["a"][1], "dst", ENDS["b"][1], "proto", "esp", "spi", hex(spi), *words)


def by_hand(sender, log, moments):
    """An SA after the other, each of which a goes on sending by after b's is gone."""
    ip("-n", "a", *f"xfrm policy add src {ENDS['a'][2]} dst {ENDS['b'][2]} dir out tmpl src {ENDS['a'][1]} dst {ENDS['b'][1]} proto esp reqid 7 mode tunnel".split())
    sender.start()
    for i in range(ROUNDS):
        spi = 0x1000 + i
        words = f"reqid 7 mode tunnel aead rfc4106(gcm(aes)) {key(f'round {i}', 20)} 128".split()
        state("a", "add", spi, *words)  # b's follows later: frames of no SA come first
        if i:
            state("a", "delete", spi - 1)
        sender.few()
        state("b", "add", spi, *words)
        until("sa-added", lambda: f"msg=sa-added sas=esp-{spi:08x}" in text(log))
        sender.few()
        moments.write(f"delete {spi:08x} {time.time_ns()}\n")
        state("b", "delete", spi)
        until("sa-deleted", lambda: f"msg=sa-deleted sas=esp-{spi:08x}" in text(log))
        sender.few()
        say(f"round {i + 1}: done")
    state("a", "delete", 0x1000 + ROUNDS - 1)
    ip("-n", "a", "xfrm", "policy", "flush")


def charon(name):
    _, outer, inner, _ = ENDS[name]
    _, there, beyond, _ = ENDS["b" if name == "a" else "a"]
    home = f"/mnt/{name}"
    os.mkdir(home)
    guest.write(home + "/strongswan.conf", f"""charon {{
  load = random nonce openssl aes sha1 sha2 hmac gcm curve25519 kdf kernel-netlink socket-default vici
  delete_rekeyed_delay = 1
  retransmit_base = 1
  retransmit_tries = 30
  filelog {{
    log {{
      path = {home}/log
      flush_line = yes
      default = 1
      chd = 4
    }}
  }}
  plugins {{
    vici {{
      socket = unix://{home}/vici
    }}
  }}
}}
""")
    guest.write(home + "/swanctl.conf", f"""connections {{
  site {{
    version = 2
    mobike = no
    proposals = aes128-sha256-curve25519
    local_addrs = {outer}
    remote_addrs = {there}
    local {{
      auth = psk
      id = {name}
    }}
    remote {{
      auth = psk
    }}
    children {{
      site {{
        esp_proposals = aes128gcm16
        local_ts = {inner}/32
        remote_ts = {beyond}/32
      }}
    }}
  }}
}}
secrets {{
  ike {{
    secret = "of nobody"
  }}
}}
""")
    subprocess.Popen(["ip", "netns", "exec", name, "unshare", "--mount", "sh", "-c", "mount -t tmpfs run /run && exec " + CHARON],
                     env={**os.environ, "STRONGSWAN_CONF": home + "/strongswan.conf"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("charon's socket", lambda: os.path.exists(home + "/vici"))
    ctl(name, "--load-all", "--file", home + "/swanctl.conf")


def ctl(name, *words):
    done = subprocess.run(["swanctl", *words, "--uri", f"unix:///mnt/{name}/vici"], capture_output=True, text=True, timeout=60)
    if done.returncode:
        say(f"swanctl {words}: {done.stdout} {done.stderr}; {text(f'/mnt/{name}/log')[-2000:]}")
    return done.stdout


def spis():
    """Those that b's kernel receives by."""
    return set(re.findall(rf"dst {ENDS['b'][1]}\n\tproto esp spi 0x([0-9a-f]+)", ip("-n", "b", "xfrm", "state")))


def by_charon(sender, log):
    subprocess.run(["mount", "-t", "tmpfs", "mnt", "/mnt"])
    for name in ENDS:
        charon(name)
        say(f"charon of {name}: done")
    ctl("a", "--initiate", "--child", "site")
    before = text(log).count("msg=sa-added")
    for turn in range(REKEYS):
        old = spis()
        until("a child SA", lambda: spis())
        sender.few()
        ctl("ab"[turn % 2], "--rekey", "--child", "site")
        until("a rekey", lambda: len(spis() - old) > 0)
        until("the end of the old SA", lambda: not spis() & old)
        sender.few()
        say(f"rekey {turn + 1}: done")
    if text(log).count("msg=sa-added") <= before:
        say("failed: nothing was added")
    guest.write("/run/out/charon", " ".join(sorted(spis())))
    done = subprocess.run([TAPSEC, "sa", "list", "--json", "--control", "/run/control"], capture_output=True, text=True)
    guest.write("/run/out/list", done.stdout + done.stderr)
    keep("running")
    ctl("b", "--terminate", "--child", "site")
    until("the end of the child SA", lambda: not spis())
    keep("childless")
    ctl("a", "--initiate", "--child", "site")
    until("another child SA", spis)
    keep("another")
    ctl("a", "--terminate", "--ike", "site")
    until("the end of the IKE SA", lambda: not spis())
    keep("ended")


def keep(when):
    """Keeps the log of b's charon, and the SPIs that its kernel has then."""
    guest.write(f"/run/out/{when}.log", text("/mnt/b/log"))
    say(f"{when}: done")
    guest.write(f"/run/out/{when}.spis", " ".join(sorted(re.findall(r"proto esp spi 0x([0-9a-f]+)", ip("-n", "b", "xfrm", "state")))))


def main():
    subprocess.run(["modprobe", "-d", "/run/m", "-a", "tun"], stderr=subprocess.DEVNULL)
    ends()
    log = "/run/out/tapsec.log"
    with open(log, "w") as stderr:
        tapsec = subprocess.Popen([TAPSEC, "run", "--mirror-xfrm=b", "--wire", "wire0", "--wire-netns", "a", "--host", "host0", "--host-netns", "b",
                                   "--control", "/run/control"], stdout=stderr, stderr=stderr)
    until("tapsec", lambda: "msg=ready" in text(log))
    link()
    tcpdump = subprocess.Popen(["ip", "netns", "exec", "b", "tcpdump", "-i", "host0", "-Q", "in", "-U", "-B", "16384", "-w", "/run/out/frames.pcap"],
                               stderr=subprocess.PIPE, text=True)
    for line in tcpdump.stderr:
        if "listening" in line:
            break
    sender = Sender()
    with open("/run/out/moments", "w") as moments:
        by_hand(sender, log, moments)
    say("by hand: done")
    by_charon(sender, log)
    say("by charon: done")
    tcpdump.terminate()
    tcpdump.communicate()
    tapsec.terminate()
    tapsec.wait()
    say("all followed")


if __name__ == "__main__":
    guest.run(main)
