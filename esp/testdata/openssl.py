#!/usr/bin/env python3
"""Writes openssl.txt: ESP payloads sealed by OpenSSL, through python3-cryptography.

An implementation independent of Go's, for what no RFC has vectors of: CCM with
ESP's nonce and short tags, GCM with short tags, and ciphers with a MAC, where
the order of the authenticated fields (RFC 4303, section 2.2.1) matters.
Keys and texts come from a counted SHA-256, so the output is reproducible.
"""

import hashlib
import hmac

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.cmac import CMAC

LENGTHS = (0, 16, 48, 80, 208)
counter = 0


def some(n):
    """The next n reproducible bytes."""
    global counter
    out = b""
    while len(out) < n:
        counter += 1
        out += hashlib.sha256(b"tapsec %d" % counter).digest()
    return out[:n]


def emit(suite, **fields):
    print("\nsuite: " + suite)
    for name, value in fields.items():
        print("%s: %s" % (name, value.hex()))


def aead(name, key_len, salt_len, icv, seal):
    for i, n in enumerate(LENGTHS):
        n += i  # block boundaries and what lies beside them
        key, salt, iv = some(key_len), some(salt_len), some(8)
        aad, text = some(12 if i % 2 else 8), some(n)
        emit("%s-%d" % (name, icv), key=key, salt=salt, iv=iv, aad=aad, plaintext=text,
             sealed=seal(key, salt + iv, text, aad))


def composite(name, key_len, salt_len, iv_len, auth_len, icv, encrypt, mac):
    for i, n in enumerate(LENGTHS):
        key, salt, auth, iv = some(key_len), some(salt_len), some(auth_len), some(iv_len)
        aad, text = some(12 if i % 2 else 8), some(n)
        ct = encrypt(key, salt, iv, text)
        esn = aad[4:-4]
        tag = mac(auth, aad[:4] + aad[-4:] + iv + ct + esn)
        emit("%s-%d" % (name, icv), key=key, salt=salt, auth=auth, iv=iv, aad=aad,
             plaintext=text, sealed=ct + tag[:icv])


def run(algorithm, mode, text):
    e = Cipher(algorithm, mode).encryptor()
    return e.update(text) + e.finalize()


def cbc(key, _, iv, text):
    return run(algorithms.AES(key), modes.CBC(iv), text)


def des(key, _, iv, text):
    return run(TripleDES(key * 3 if len(key) == 8 else key), modes.CBC(iv), text)


def ctr(key, salt, iv, text):
    return run(algorithms.AES(key), modes.CTR(salt + iv + b"\0\0\0\1"), text)


def null(_key, _salt, _iv, text):
    return text


def cmac(key, text):
    m = CMAC(algorithms.AES(key))
    m.update(text)
    return m.finalize()


def hashed(name):
    return lambda key, text: hmac.new(key, text, name).digest()


print("# Made by testdata/openssl.py: OpenSSL through python3-cryptography.")
for size in (16, 24, 32):
    for icv in (8, 12, 16):
        aead("aes-ccm", size, 3, icv,
             lambda k, n, p, a: AESCCM(k, tag_length=icv).encrypt(n, p, a))
    for icv in (8, 12):
        aead("aes-gcm", size, 4, icv,
             lambda k, n, p, a: AESGCM(k).encrypt(n, p, a)[:icv - 16])
composite("aes-cbc+hmac-sha256", 16, 0, 16, 32, 16, cbc, hashed("sha256"))
composite("aes-cbc+hmac-sha512", 32, 0, 16, 64, 32, cbc, hashed("sha512"))
composite("3des-cbc+hmac-sha1", 24, 0, 8, 20, 12, des, hashed("sha1"))
composite("des-cbc+hmac-md5", 8, 0, 8, 16, 12, des, hashed("md5"))
composite("aes-ctr+hmac-sha384", 24, 4, 8, 48, 24, ctr, hashed("sha384"))
composite("null+cmac", 0, 0, 0, 16, 12, null, cmac)
