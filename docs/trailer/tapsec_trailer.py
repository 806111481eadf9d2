"""The status trailer of tapsec, version 1 (docs/trailer.md), for Python: split() needs
nothing, and with scapy there is a layer.

    >>> from tapsec_trailer import split
    >>> body, verdict = split(frame)
    >>> verdict.verified(1), verdict.reason_name
"""
import struct
from dataclasses import dataclass, field

# BEGIN NAMES
REASONS = {
    1: "not-ip",
    2: "bad-ip-header",
    3: "no-ipsec",
    4: "no-sa",
    5: "address-mismatch",
    6: "encap-mismatch",
    7: "sa-deleted",
    8: "spi-outside",
    9: "offload-inactive",
    10: "protocol-off",
    11: "fragment",
    12: "ipv4-options",
    13: "ipv6-extension-headers",
    14: "routing-header",
    15: "jumbogram",
    16: "no-ah-esp",
    18: "ike",
    19: "keep-alive",
    20: "udp-too-short",
    21: "udp-no-sa",
    22: "no-tunnel-transport",
    23: "inner-tunnel-sa",
    24: "encap-twice",
    25: "dummy",
    26: "inner-not-ip",
    27: "inner-length",
    28: "no-family",
    29: "not-tried",
    30: "too-long",
    32: "verified",
    33: "ah-icv",
    34: "esp-icv",
    35: "protocol-mismatch",
    36: "bundle-mismatch",
    37: "ip-length",
    38: "udp-length",
    39: "esp-length",
    40: "ah-length",
    41: "pad-length",
    42: "option-syntax",
    43: "pad-bytes",
}
STATUS = {
    0: "CRYPTO_SUCCESS",
    1: "CRYPTO_GENERIC_ERROR",
    2: "CRYPTO_TRANSPORT_AH_AUTH_FAILED",
    3: "CRYPTO_TRANSPORT_ESP_AUTH_FAILED",
    4: "CRYPTO_TUNNEL_AH_AUTH_FAILED",
    5: "CRYPTO_TUNNEL_ESP_AUTH_FAILED",
    6: "CRYPTO_INVALID_PACKET_SYNTAX",
    7: "CRYPTO_INVALID_PROTOCOL",
}
# END NAMES


class NoTrailer(ValueError):
    """The frame ends in no trailer of version 1."""


class BadTrailer(ValueError):
    """The trailer's CRC or one of its lengths is wrong."""


@dataclass
class Record:
    portion: int  # 1 tunnel, 2 transport, 0 not known
    protocol: int  # 50 ESP, 51 AH
    spi: int
    number: int  # sequence number, with ESN all 64 bits
    handle: int
    state: int  # 1 ICV valid, 2 failed at or before it, 3 failed behind it, 4 not processed
    status: int
    reason: int
    ip: int
    ipsec: int
    payload: int
    payload_len: int
    iv_len: int
    pad_len: int
    icv_len: int
    next_header: int
    delete_sa: bool


@dataclass
class Trailer:
    word: int
    reason: int
    form: int  # 0 in place, 1 decap
    removed: int
    omitted: int
    queue: int
    wire_len: int
    ordinal: int
    received: int  # nanoseconds since 1970, UTC
    records: list = field(default_factory=list)

    @property
    def status(self):
        """CryptoStatus. 0 alone says nothing: see verified."""
        return self.word >> 16

    @property
    def reason_name(self):
        return REASONS.get(self.reason, "reason-%d" % self.reason)

    def verified(self, portions):
        """Were that many portions, 1 or 2, checked, and are all good?"""
        want = {1: 2, 2: 6}[portions]
        return self.word & want == want and self.status == 0


def _table():
    table = []
    for c in range(256):
        for _ in range(8):
            c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
        table.append(c)
    return table


_CRC = _table()


def crc32c(data):
    """The Castagnoli CRC."""
    c = 0xFFFFFFFF
    for b in data:
        c = c >> 8 ^ _CRC[(c ^ b) & 0xFF]
    return c ^ 0xFFFFFFFF


def split(frame):
    """Takes the trailer off a delivered frame: (frame without it, Trailer)."""
    base = frame[-44:]
    if len(base) < 44 or base[40:] != b"TSEC" or base[34] != 1:
        raise NoTrailer("no trailer of version 1")
    (length,) = struct.unpack_from("<H", base, 32)
    if not 44 <= length <= len(frame):
        raise BadTrailer("a length of %d" % length)
    body, whole = frame[: len(frame) - length], frame[len(frame) - length :]
    if crc32c(whole[: length - 8]) != struct.unpack_from("<I", base, 36)[0]:
        raise BadTrailer("the CRC is wrong")
    word, reason, form, removed, count, omitted, queue, wire_len, ordinal, received = struct.unpack_from("<IHBBBBHIQq", base)
    t = Trailer(word, reason, form, removed, omitted, queue, wire_len, ordinal, received)
    at, end = 0, length - 44
    while at < end:
        if end - at < 2 or whole[at + 1] < 2 or whole[at + 1] > end - at:
            raise BadTrailer("a record does not fit")
        kind, size = whole[at], whole[at + 1]
        if kind == 1:
            if size != 40 or len(t.records) == 4:
                raise BadTrailer("a record of %d bytes" % size)
            r = struct.unpack_from("<BBIQIBBHHHHHBBBBB", whole, at + 2)
            t.records.append(Record(*r[:16], bool(r[16] & 1)))
        at += size
    if len(t.records) != count or form == 0 and wire_len > len(body):
        raise BadTrailer("the base contradicts what is there")
    return body, t


def dissect(frame):
    """The frame as scapy's Ether, and its Trailer."""
    from scapy.layers.l2 import Ether

    body, t = split(frame)
    return Ether(body[: t.wire_len] if t.form == 0 else body), t
