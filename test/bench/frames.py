"""The frames: one UDP flow's IPv4 packets, sealed as ESP in tunnel mode or for a WireGuard session."""

import hashlib
import hmac
import socket
import struct
import time

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

OUTER = "192.0.2.1", "192.0.2.2"
INNER = "198.51.100.1", "203.0.113.9"
PORT = bytes.fromhex("020000000002")  # MAC address of the interface that receives
PEER = bytes.fromhex("020000000001")
ELSEWHERE = bytes.fromhex("020000000099")  # nobody's, so that the stack behind the sink looks no further
UDP, ESP = 17, 50


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ipv4(protocol, src, dst, length):
    """A header for length bytes of payload."""
    addresses = socket.inet_aton(src) + socket.inet_aton(dst)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, protocol, 0) + addresses
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:]


def udp(src, dst, length):
    """A header for length bytes of payload, without a checksum."""
    return struct.pack(">HHHH", src, dst, 8 + length, 0)


def inner(size):
    """The packet that each frame of a size carries. Its checksum is right: wireguard-go merges only such ones."""
    header, payload = udp(1000, 9, size - 28), (b"tapsec side by side " * 70)[:size - 28]
    pseudo = ipv4(UDP, *INNER, 0)[12:] + struct.pack(">HH", UDP, size - 20)
    right = checksum(pseudo + header + payload)
    return ipv4(UDP, *INNER, size - 20) + header[:6] + struct.pack(">H", right) + payload


def ethernet(payload):
    return PORT + PEER + b"\x08\x00" + payload


class ESPTunnel:
    """AES-128-GCM with a 16 byte ICV (RFC 4303, 4106) for SAs that take turns; over UDP it is RFC 3948."""

    def __init__(self, spis, key, encap=False):
        self.spis, self.aead, self.salt, self.encap = spis, AESGCM(key[:16]), key[16:], encap

    def seal(self, size, numbers):
        """A frame for each number; SAs that take turns have each every so many numbers."""
        pad = -(size + 2) % 4
        plain = inner(size) + bytes(range(1, pad + 1)) + bytes([pad, 4])
        length = 8 + 8 + len(plain) + 16
        front = ipv4(ESP, *OUTER, length)
        if self.encap:
            front = ipv4(UDP, *OUTER, 8 + length) + udp(4500, 4500, length)
        front = ethernet(front)
        for n in numbers:
            head, iv = struct.pack(">II", self.spis[n % len(self.spis)], n), struct.pack(">Q", n)
            yield front + head + iv + self.aead.encrypt(self.salt + iv, plain, head)


class WireGuard:
    """The initiator of one WireGuard session (wireguard.com/protocol, Noise_IKpsk2 without a shared secret)."""

    UDP_PORT = 51820

    def __init__(self):
        self.own, self.peer, self.ephemeral = (X25519PrivateKey.generate() for _ in range(3))

    def configuration(self):
        """What the responder is told through its control socket."""
        private = self.peer.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return (f"set=1\nprivate_key={private.hex()}\nlisten_port={self.UDP_PORT}\n"
                f"public_key={public(self.own).hex()}\nallowed_ip={INNER[0]}/32\n\n")

    def initiation(self):
        peer = public(self.peer)
        self.chain = blake(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        self.hash = blake(self.chain + b"WireGuard v1 zx2c4 Jason@zx2c4.com")
        self.hash = blake(self.hash + peer)
        message = struct.pack("<II", 1, 1) + self.mix(public(self.ephemeral))
        self.chain, key = derive(self.chain, self.ephemeral.exchange(self.peer.public_key()), 2)
        message += self.encrypt(key, public(self.own))
        self.chain, key = derive(self.chain, self.own.exchange(self.peer.public_key()), 2)
        message += self.encrypt(key, struct.pack(">QI", 2**62 + 10 + int(time.time()), 0))
        message += hashlib.blake2s(message, key=blake(b"mac1----" + peer), digest_size=16).digest() + bytes(16)
        return self.frame(message)

    def answered(self, frame):
        """Whether a frame that came back is the response; then packets can be sealed."""
        message = frame[42:]
        if len(message) != 92 or message[:4] != b"\x02\0\0\0":
            return False
        self.index, theirs = message[4:8], X25519PublicKey.from_public_bytes(message[12:44])
        self.mix(message[12:44])
        for secret in (self.ephemeral, self.own):
            self.chain, = derive(self.chain, secret.exchange(theirs), 1)
        self.chain, middle, key = derive(self.chain, bytes(32), 3)
        ChaCha20Poly1305(key).decrypt(bytes(12), message[44:60], blake(self.hash + middle))
        self.aead = ChaCha20Poly1305(derive(self.chain, b"", 2)[0])
        return True

    def seal(self, size, numbers):
        plain = inner(size) + bytes(-size % 16)
        front = self.frame(bytes(16 + len(plain) + 16))[:42] + b"\x04\0\0\0" + self.index
        for n in numbers:
            number = struct.pack("<Q", n)
            yield front + number + self.aead.encrypt(bytes(4) + number, plain, None)

    def mix(self, key):
        self.hash, (self.chain,) = blake(self.hash + key), derive(self.chain, key, 1)
        return key

    def encrypt(self, key, plain):
        sealed = ChaCha20Poly1305(key).encrypt(bytes(12), plain, self.hash)
        self.hash = blake(self.hash + sealed)
        return sealed

    def frame(self, message):
        return ethernet(ipv4(UDP, *OUTER, 8 + len(message)) + udp(self.UDP_PORT, self.UDP_PORT, len(message)) + message)


def public(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def blake(data):
    return hashlib.blake2s(data).digest()


def derive(key, data, count):
    """HKDF with BLAKE2s (RFC 5869)."""
    secret, outputs, last = hmac.digest(key, data, "blake2s"), [], b""
    for i in range(count):
        last = hmac.digest(secret, last + bytes([i + 1]), "blake2s")
        outputs.append(last)
    return outputs
