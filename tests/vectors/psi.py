#!/usr/bin/env python3
"""Private set intersection once more, written from client/align/README.md, RFC 7748 and RFC 9380 with Python's integers.

Without arguments: recomputes everything in psi.json and compares. `--write` makes psi.json. Standard library only;
tests/unit/align/psi_vectors.c replays the same file through the product.
"""

import hashlib
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("psi.json")
P = 2**255 - 19
J = 486662
CANARIES, DUMMIES = 32, 32


# ---- the curve ----

def x25519(scalar, point):
    k = int.from_bytes(scalar, "little") & ~7 & (2**254 - 1) | 2**254
    u = int.from_bytes(point, "little")
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


def expand_message_xmd(message, dst, size):
    dst += bytes([len(dst)])
    b0 = hashlib.sha512(bytes(128) + message + size.to_bytes(2, "big") + b"\0" + dst).digest()
    out = block = hashlib.sha512(b0 + b"\1" + dst).digest()
    number = 2
    while len(out) < size:
        block = hashlib.sha512(bytes(x ^ y for x, y in zip(b0, block)) + bytes([number]) + dst).digest()
        out, number = out + block, number + 1
    return out[:size]


def map_to_curve(element):
    """Elligator 2, RFC 9380 section 6.7.1, Z = 2: the u-coordinate."""
    x1 = -J * pow(1 + 2 * element * element, P - 2, P) % P
    is_square = pow(x1**3 + J * x1**2 + x1, (P - 1) // 2, P) in (0, 1)
    return (x1 if is_square else (-x1 - J) % P).to_bytes(32, "little")


def hash_to_curve(message, dst):
    return map_to_curve(int.from_bytes(expand_message_xmd(message, dst, 48), "big") % P)


def item_point(study, kind, key):
    return hash_to_curve(bytes([kind]) + key, b"consilium-align-1:" + study.encode())


# ---- secrets ----

def derive(secret, purpose, number):
    return hashlib.sha512(secret + purpose.encode().ljust(16, b"\0") + number.to_bytes(8, "little")).digest()


def derived_key(secret, purpose, number):
    return derive(secret, purpose, number // 2)[32 * (number % 2):][:32]


def shuffled(secret, purpose, items):
    items = list(items)
    for used, left in enumerate(range(len(items), 1, -1)):
        random = int.from_bytes(derive(secret, purpose, used // 8)[8 * (used % 8):][:8], "little")
        other = random * left >> 64
        items[left - 1], items[other] = items[other], items[left - 1]
    return items


def padded(records):
    size, step = 128, 8
    while size < records + CANARIES + DUMMIES:
        if size == 32 * step:
            step *= 2
        size += step
    return size


# ---- the steps ----

def listed_records(records, slots):
    """(record number, {kind: key}) of what goes into the list."""
    seen, kept = set(), []
    for number, keys in enumerate(records):
        present = {kind: key for kind, key in enumerate(keys[:slots]) if key is not None}
        identity = tuple(sorted(present.items()))
        if present and identity not in seen:
            seen.add(identity)
            kept.append((number, present))
    owners = {}
    for _, present in kept:
        for pair in present.items():
            owners[pair] = owners.get(pair, 0) + 1
    kept = [(number, {kind: key for kind, key in present.items() if owners[kind, key] == 1}) for number, present in kept]
    return [(number, present) for number, present in kept if present]


class Site:
    def __init__(self, session, number):
        own = session["sites"][number]
        self.session, self.number = session, number
        self.secret = bytes.fromhex(own["own_secret"])
        self.scalar = derive(self.secret, "scalar", 0)[:32]
        records = [[key and bytes.fromhex(key) for key in keys] for keys in own["records"]]
        self.listed = listed_records(records, session["slots"])
        self.items = shuffled(self.secret, "order", range(padded(len(self.listed))))

    def message(self, item, kind):
        slots, listed = self.session["slots"], len(self.listed)
        if item < listed and kind in self.listed[item][1]:
            return kind, self.listed[item][1][kind]
        if listed <= item < listed + CANARIES:
            return kind, derived_key(bytes.fromhex(self.session["shared_secret"]), "canary", (item - listed) * slots + kind)
        return 255, derived_key(self.secret, "fill", item * slots + kind)

    def own_list(self):
        return [x25519(self.scalar, item_point(self.session["study"], *self.message(item, kind)))
                for item in self.items for kind in range(self.session["slots"])]


def header(session, kind, owner, groups, passed):
    return (b"CSALIGN1" + bytes([kind, session["slots"], len(session["sites"]), owner]) + groups.to_bytes(4, "big") +
            passed.to_bytes(8, "little") + bytes(8))


def best(counts):
    """The one with the most, None for a tie or nobody."""
    most = max(counts.values(), default=0)
    winners = [who for who, hits in counts.items() if hits == most]
    return winners[0] if len(winners) == 1 else None


def run(session):
    """Fills in what the session's secrets and records give."""
    slots, leader, count = session["slots"], session["leader"], len(session["sites"])
    sites = [Site(session, number) for number in range(count)]
    tags = []
    for owner, site in enumerate(sites):
        points = site.own_list()
        groups, passed = len(site.items), 1 << owner
        session["sites"][owner]["list"] = hashlib.sha256(
            header(session, 1, owner, groups, passed) + b"".join(points)).hexdigest()
        route = [(owner + step) % count for step in range(1, count)]
        if owner != leader:
            route = [number for number in route if number != leader] + [leader]
        for number in route:
            points = [x25519(sites[number].scalar, point) for point in points]
            passed |= 1 << number
        tags.append([point[:12] for point in points])
        session["sites"][owner]["tags"] = hashlib.sha256(
            header(session, 2, owner, groups, passed) + b"".join(tags[owner])).hexdigest()

    own = sites[leader]
    place_of = {(index % slots, tag): index // slots for index, tag in enumerate(tags[leader])}
    partners = {}
    for number in range(count):
        if number == leader:
            continue
        ours, theirs = {}, {}
        for index, tag in enumerate(tags[number]):
            mine = place_of.get((index % slots, tag))
            if mine is not None:
                for table, key, partner in ((ours, mine, index // slots), (theirs, index // slots, mine)):
                    hits = table.setdefault(key, {})
                    hits[partner] = hits.get(partner, 0) + 1
        partners[number] = {mine: best(hits) for mine, hits in ours.items()
                            if best(hits) is not None and best(theirs[best(hits)]) == mine}
    patients = [place for place, item in enumerate(own.items) if item < len(own.listed)]
    needed = session["any"] or count - 1
    cohort = [place for place in patients if sum(place in found for found in partners.values()) >= needed]
    cohort = shuffled(own.secret, "rows", cohort)
    canaries = [own.items.index(len(own.listed) + number) for number in range(CANARIES)]
    for number, site in enumerate(sites):
        if number == leader:
            session["sites"][number]["table"] = [own.listed[own.items[place]][0] for place in cohort]
            continue
        found = partners[number]
        entries = [(row, found[place]) for row, place in enumerate(cohort) if place in found]
        entries += [(len(cohort) + row, found[place]) for row, place in enumerate(canaries)]
        session["sites"][number]["answer"] = hashlib.sha256(
            header(session, 3, number, len(cohort), 0) +
            b"".join(row.to_bytes(4, "big") + place.to_bytes(4, "big") for row, place in entries)).hexdigest()
        session["sites"][number]["table"] = [
            site.listed[site.items[found[place]]][0] if place in found else None for place in cohort]
    return session


# ---- the file ----

def sample(text):
    return hashlib.sha256(text.encode()).digest()


def questions():
    """Everything that psi.json asks, without the answers."""
    sites = []
    for number, name in enumerate(("bonn", "cork", "dora")):
        records = []
        for record in range(14):
            person = record + 3 * number
            keys = [sample(f"person {person} kind {kind}").hex() for kind in range(3)]
            if person % 4 == 1:
                keys[number % 3] = None                                      # a field that is missing here
            if person % 5 == 2:
                keys[2] = sample(f"household {person // 5}").hex()
            if person % 7 == 3:
                keys[(number + 1) % 3] = sample(f"misspelt at {name}: {person}").hex()
            records.append(keys)
        records += [records[4], [None, None, None], [None, None, records[0][2]]]   # twice; nothing; another's key
        sites.append({"name": name, "own_secret": sample(f"secret of {name}").hex(), "records": records})
    studies = ("heart", "a study of two diseases", "x" * 200, "étude")
    return {
        "hash": [{"study": study, "kind": number % 6, "key": sample(f"key {number}").hex()}
                 for number, study in enumerate(studies * 2)],
        "mask": [{"scalar": sample(f"scalar {number}").hex(),
                  "point": item_point("mask", 0, sample(f"mask {number}")).hex()} for number in range(8)],
        "session": {"study": "a study of two diseases", "slots": 3, "leader": 1, "any": 1,
                    "shared_secret": sample("shared").hex(), "sites": sites},
    }


def answer(file):
    for vector in file["hash"]:
        vector["point"] = item_point(vector["study"], vector["kind"], bytes.fromhex(vector["key"])).hex()
    for vector in file["mask"]:
        masked = x25519(bytes.fromhex(vector["scalar"]), bytes.fromhex(vector["point"]))
        vector["masked"], vector["tag"] = masked.hex(), masked[:12].hex()
    run(file["session"])
    return file


def check_rfcs():
    """One vector of each RFC, so that a mistake here cannot hide in our own file."""
    dst = b"QUUX-V01-CS02-with-curve25519_XMD:SHA-512_ELL2_NU_"
    assert hash_to_curve(b"abc", dst)[::-1].hex() == "7d56d1e08cb0ccb92baf069c18c49bb5a0dcd927eff8dcf75ca921ef7f3e6eeb"
    assert x25519(bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
                  bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")).hex() == \
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def differences(path, ours, found):
    if isinstance(ours, dict) and isinstance(found, dict) and ours.keys() == found.keys():
        return [line for key in ours for line in differences(f"{path}.{key}", ours[key], found[key])]
    if isinstance(ours, list) and isinstance(found, list) and len(ours) == len(found):
        return [line for i in range(len(ours)) for line in differences(f"{path}[{i}]", ours[i], found[i])]
    return [] if ours == found else [f"{path}: computed {ours}, the file has {found}"]


def main():
    check_rfcs()
    computed = answer(questions())
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(json.dumps(computed, indent=1, ensure_ascii=False) + "\n")
        return 0
    wrong = differences("psi", computed, json.loads(FILE.read_text()))
    print("\n".join(wrong) if wrong else f"{len(computed['hash'])} hashes, {len(computed['mask'])} masks, one session: equal")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
