"""The keys, signed texts and sealed frames of docs/protocol.md, "Between sites", once more: written from that page and from the
description of crypto_secretstream in libsodium's documentation, with nothing but Python's standard library.

Without arguments: recomputes everything in seal.json, compares, and opens every frame again. `--write` makes seal.json.
"""

import hashlib
import json
import pathlib
import struct
import sys

FILE = pathlib.Path(__file__).with_name("seal.json")
P = 2**255 - 19


# ---- RFC 7748 ----

def x25519(scalar, point):
    k = int.from_bytes(scalar, "little") & ~7 & (2**254 - 1) | 2**254
    u = int.from_bytes(point, "little") % 2**255
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in range(254, -1, -1):
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % P, c * b % P, a * a % P, b * b % P
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, (aa - bb) * (aa + 121665 * (aa - bb)) % P
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def public(secret):
    return x25519(secret, (9).to_bytes(32, "little"))


# ---- RFC 8439, and HChaCha20 of draft-irtf-cfrg-xchacha ----

def rotate(value, count):
    return (value << count | value >> 32 - count) & 0xFFFFFFFF


def rounds(state):
    x = list(state)
    for _ in range(10):
        for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                           (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            for one, two, three, count in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[one] = (x[one] + x[two]) & 0xFFFFFFFF
                x[three] = rotate(x[three] ^ x[one], count)
    return x


CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")


def chacha20(key, nonce, counter, size):
    stream = b""
    while len(stream) < size:
        state = CONSTANTS + struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce)
        stream += struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(rounds(state), state)))
        counter += 1
    return stream[:size]


def hchacha20(key, nonce):
    x = rounds(CONSTANTS + struct.unpack("<8I", key) + struct.unpack("<4I", nonce))
    return struct.pack("<8I", *x[:4], *x[12:])


def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at:at + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


# ---- crypto_secretstream_xchacha20poly1305 ----

class Stream:
    def __init__(self, key, header):
        self.key = hchacha20(key, header[:16])
        self.counter, self.nonce = 1, header[16:]

    def _mac(self, label, tag_block, cipher):
        nonce = struct.pack("<I", self.counter) + self.nonce
        message = label + bytes(-len(label) % 16) + tag_block + cipher + bytes(len(cipher) % 16)  # as libsodium pads
        message += struct.pack("<QQ", len(label), 64 + len(cipher))
        return poly1305(chacha20(self.key, nonce, 0, 32), message)

    def _step(self, mac):
        self.nonce = xor(self.nonce, mac[:8])
        self.counter += 1

    def seal(self, plain, label, is_last):
        nonce = struct.pack("<I", self.counter) + self.nonce
        tag_block = xor(bytes([3 if is_last else 0]) + bytes(63), chacha20(self.key, nonce, 1, 64))
        cipher = xor(plain, chacha20(self.key, nonce, 2, len(plain)))
        mac = self._mac(label, tag_block, cipher)
        self._step(mac)
        return tag_block[:1] + cipher + mac

    def open(self, frame, label, is_last):
        nonce = struct.pack("<I", self.counter) + self.nonce
        stream = chacha20(self.key, nonce, 1, 64)
        tag_block = frame[:1] + stream[1:]
        cipher, mac = frame[1:-16], frame[-16:]
        assert self._mac(label, tag_block, cipher) == mac, "the frame's tag"
        assert frame[0] ^ stream[0] == (3 if is_last else 0), "the frame's place"
        self._step(mac)
        return xor(cipher, chacha20(self.key, nonce, 2, len(cipher)))


# ---- docs/protocol.md ----

def session_hash(job, number, plan, roster):
    return hashlib.sha256(f"consilium-session-v1\n{job}\n{number}\n{plan.hex()}\n{roster.hex()}\n".encode()).digest()


def keys(secret, peer, session):
    """(from the holder of the lower key, from the other)"""
    low, high = sorted((public(secret), peer))
    both = hashlib.blake2b(b"consilium-keys-v1" + session + low + high, key=x25519(secret, peer), digest_size=64).digest()
    return both[:32], both[32:]


def handshake_text(session, sender, receiver, key, peer_key=b""):
    kind = "consilium-confirm-v1" if peer_key else "consilium-handshake-v1"
    return f"{kind}\n{sender}\n{receiver}\n".encode() + session + key + peer_key


def seed(session, contributions):
    return hashlib.blake2b(b"consilium-seed-v1" + session + b"".join(contributions), digest_size=32).digest()


def label(session, roster, phase, sender, receiver, number):
    return f"consilium-seal-v1\n{phase}\n{sender}\n{receiver}\n".encode() + session + roster + struct.pack("<Q", number)


# ---- the file ----

def some(word, size=32):
    return hashlib.shake_256(word.encode()).digest(size)


def inputs():
    session = session_hash("cohort", 1, some("plan"), some("roster"))
    return {
        "session": {"job": "cohort", "round": 1, "plan": some("plan").hex(), "roster": some("roster").hex(),
                    "contributions": [some(f"contribution {i}").hex() for i in range(3)]},
        "pairs": [{"secret": some(f"secret {i}").hex(), "peer_secret": some(f"peer {i}").hex(), "session": session.hex(),
                   "from": "clinic", "to": "mercy"} for i in range(3)],
        "streams": [{"key": some(f"key {i}").hex(), "header": some(f"header {i}", 24).hex(), "session": session.hex(),
                     "roster": some("roster").hex(), "phase": phase, "from": "clinic", "to": "mercy",
                     "frames": [some(f"plain {i} {size}", size).hex() for size in sizes]}
                    for i, (phase, sizes) in enumerate([("mask", [0]), ("hop1", [32]), ("compare", [64, 64, 7]), ("cohort", [15, 16, 17, 1000]),
                                                        ("agree", [100])])],
    }


def complete(given):
    session = given["session"]
    made = session_hash(session["job"], session["round"], bytes.fromhex(session["plan"]), bytes.fromhex(session["roster"]))
    pairs = []
    for pair in given["pairs"]:
        secret, peer_secret = bytes.fromhex(pair["secret"]), bytes.fromhex(pair["peer_secret"])
        key, peer = public(secret), public(peer_secret)
        assert keys(secret, peer, made) == keys(peer_secret, key, made)
        from_lower, from_higher = keys(secret, peer, made)
        send, receive = (from_lower, from_higher) if key < peer else (from_higher, from_lower)
        pairs.append({**pair, "key": key.hex(), "peer": peer.hex(), "send": send.hex(), "receive": receive.hex(),
                      "handshake": handshake_text(made, pair["from"], pair["to"], key).hex(),
                      "confirm": handshake_text(made, pair["from"], pair["to"], key, peer).hex()})
    streams = []
    for item in given["streams"]:
        key, header = bytes.fromhex(item["key"]), bytes.fromhex(item["header"])
        names = [bytes.fromhex(item["session"]), bytes.fromhex(item["roster"]), item["phase"], item["from"], item["to"]]
        writer, reader, sealed = Stream(key, header), Stream(key, header), []
        for number, plain in enumerate(item["frames"]):
            is_last = number == len(item["frames"]) - 1
            frame = writer.seal(bytes.fromhex(plain), label(*names, number), is_last)
            assert reader.open(frame, label(*names, number), is_last).hex() == plain
            sealed.append(frame.hex())
        streams.append({**item, "sealed": sealed})
    return {"session": {**session, "hash": made.hex(),
                        "seed": seed(made, [bytes.fromhex(item) for item in session["contributions"]]).hex()}, "pairs": pairs, "streams": streams}


def main():
    # RFC 7748 section 5.2 and RFC 8439 section 2.8.2 (the one-time key of section 2.6.2), so that this file is right by itself.
    assert x25519(bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
                  bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")).hex() == \
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert chacha20(bytes(range(0x80, 0xA0)), bytes(4) + bytes(range(8)), 0, 32).hex() == \
        "8ad5a08b905f81cc815040274ab29471a833b637e3fd0da508dbb8e2fdd1a646"
    if "--write" in sys.argv:
        FILE.write_text(json.dumps(complete(inputs()), indent=1) + "\n")
        return
    written = json.loads(FILE.read_text())
    made = complete(written)
    for part in made:
        assert made[part] == written[part], f"{FILE.name}: '{part}' is not what this script computes"
    print(f"{FILE.name}: {len(made['pairs'])} pairs and {len(made['streams'])} streams agree")


main()
