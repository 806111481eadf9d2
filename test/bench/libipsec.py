"""strongSwan's ESP in user space: charon with kernel-libipsec."""

import os
import re

import frames
import load
from forwarders import VETH, Forwarder, sh

# Each charon wants an address of its own inside; the frames are for another one.
SITES = [{"interface": "port0", "address": frames.OUTER[1], "network": "203.0.113.0/24", "inside": "203.0.113.200"},
         {"interface": "peer0", "address": frames.OUTER[0], "network": "198.51.100.0/24", "inside": "198.51.100.200"}]
CHILD = "sidebyside"
CHARON = """charon {{
  load = random nonce openssl aes sha1 sha2 hmac gcm curve25519 kdf kernel-libipsec kernel-netlink socket-default vici
  filelog {{
    log {{
      path = {log}
      flush_line = yes
      default = 1
      chd = 4
    }}
  }}
  plugins {{
    vici {{
      socket = unix://{control}
    }}
  }}
}}
"""
CONNECTION = """connections {{
  sidebyside {{
    version = 2
    mobike = no
    proposals = aes128-sha256-curve25519
    local_addrs = {site[address]}
    remote_addrs = {peer[address]}
    local {{
      auth = psk
      id = {site[address]}
    }}
    remote {{
      auth = psk
      id = {peer[address]}
    }}
    children {{
      sidebyside {{
        esp_proposals = aes128gcm16
        local_ts = {site[network]}
        remote_ts = {peer[network]}
      }}
    }}
  }}
}}
secrets {{
  ike {{
    secret = "of nobody"
  }}
}}
"""


class Libipsec(Forwarder):
    """strongSwan's charon in a namespace of its own. A second one, beside the script, agrees with it on keys."""

    name, source, sink = "libipsec", "peer0", "ipsec0"
    room = 64  # its socket has the kernel's default buffer
    loads = ("stream",)  # so few frames come out too soon for a drain to be timed
    again, stock = False, 100_000

    def up(self):
        self.charon("responder", *SITES, "--net", "mount -t sysfs sysfs /sys\n" + VETH)
        pid = self.pid
        self.charon("initiator", *reversed(SITES), "--mount", "ip link set peer0 up")
        self.pid = pid
        self.swanctl("initiator", "--initiate", "--child", CHILD)
        sas = sh(f"{self.work}/tapsec keys --to xfrm {self.dir.name}/responder.log")
        spi, key = re.search(f"dst {re.escape(SITES[0]['address'])} .*spi (\\S+) .*rfc4106\\S+ (\\S+)", sas).groups()
        self.tunnel = frames.ESPTunnel([int(spi, 16)], bytes.fromhex(key[2:]), encap=True)

    def charon(self, name, site, peer, namespace, setup):
        control, log = (os.path.join(self.dir.name, f"{name}.{end}") for end in ("vici", "log"))
        settings = self.file(f"{name}.strongswan", CHARON.format(log=log, control=control))
        connections = self.file(f"{name}.swanctl", CONNECTION.format(site=site, peer=peer))
        command = f"""mount -t tmpfs tmpfs /run
{setup}
ip addr replace {site["address"]}/24 dev {site["interface"]}
ip addr replace {site["inside"]}/32 dev lo
exec /usr/lib/ipsec/charon"""
        self.start("unshare", "--mount", namespace, "sh", "-ec", command, ready=lambda _: os.path.exists(control),
                   STRONGSWAN_CONF=settings)
        self.swanctl(name, "--load-all", "--file", connections)

    def down(self):
        super().down()
        sh("ip link del peer0 || :")  # it goes with the responder's namespace, but that takes its time

    def swanctl(self, name, *arguments):
        sh(f"swanctl {' '.join(arguments)} --uri unix://{self.dir.name}/{name}.vici")

    def counter(self, size):
        return load.MergedSink(self.pid, self.sink, size)


class LibipsecBoth(Libipsec):
    name, cores = "libipsec, both cores", {0, 1}


ALL = [Libipsec, LibipsecBoth]
