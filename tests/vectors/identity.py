#!/usr/bin/env python3
"""The rules of docs/alignment.md for identities once more, written from that page with Python's own Unicode tables.

`identity.py check FILE`: recomputes every vector of the file. `identity.py write FILE`: writes the file anew. Standard
library only; tests/unit/align/test_identity.c replays the same file through the product.
"""

import datetime
import hashlib
import json
import re
import sys
import unicodedata

PARTS = {name: number for number, name in enumerate(
    ["given", "family", "given.phonetic", "family.phonetic", "given.initial", "names", "birth_date", "birth_year", "sex",
     "postcode", "national_id"], 1)}
FIELDS = ["given", "family", "birth_date", "sex", "postcode", "national_id"]
APOSTROPHES = "'`\u00b4\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201b\u2032\uff07"
SPELT_OUT = {"æ": "ae", "œ": "oe", "ø": "o", "ð": "d", "đ": "d", "þ": "th", "ħ": "h", "ı": "i", "ł": "l", "ŧ": "t"}
LONGEST = 127


class Unreadable(Exception):
    pass


def words(text, separator=" "):
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise Unreadable from None
    if len(text.encode()) > 1024:
        raise Unreadable
    text = "".join(c for c in text if c not in APOSTROPHES)
    for _ in range(2):
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    out = ""
    for c in text:
        category = unicodedata.category(c)
        if c in APOSTROPHES:
            continue
        if category[0] == "L" or category == "Nd":
            out += SPELT_OUT.get(c, c)
        elif not (category[0] == "M" or category == "Cf"):
            out += " "
    out = separator.join(out.split())
    if len(out.encode()) > LONGEST:
        raise Unreadable
    return out


def date(text, order):
    text = words(text)
    eight = re.fullmatch(r"(\d{8})([ t].*)?", text, re.A)
    three = re.fullmatch(r"(\d{1,9}) (\d{1,9}) (\d{1,9})([ t].*)?", text, re.A)
    if eight:
        d = eight.group(1)
        year, month, day = {"ymd": (d[:4], d[4:6], d[6:]), "dmy": (d[4:], d[2:4], d[:2]), "mdy": (d[4:], d[:2], d[2:4])}[order]
    elif three and len(three.group(1)) == 4 and len(three.group(2)) <= 2 and len(three.group(3)) <= 2:
        year, month, day = three.group(1, 2, 3)
    elif three and order != "ymd" and len(three.group(3)) == 4 and len(three.group(1)) <= 2 and len(three.group(2)) <= 2:
        year, month, day = three.group(3, 2, 1) if order == "dmy" else three.group(3, 1, 2)
    else:
        raise Unreadable
    try:
        value = datetime.date(int(year), int(month), int(day))
    except ValueError:
        raise Unreadable from None
    if not 1850 <= value.year <= 2200:
        raise Unreadable
    return value.isoformat()


SEXES = {"f": "f female w weiblich femme feminin woman frau 2", "m": "m male mannlich maennlich homme masculin man mann herr 1",
         "x": "x d divers diverse other nonbinary", "": "u unknown unbekannt 0 9"}


def sex(text):
    word = words(text, "")
    for value, names in SEXES.items():
        if word in names.split():
            return value
    raise Unreadable


def normalize(fields, order):
    canonical, unreadable = {}, []
    for name in FIELDS:
        text = fields.get(name, "")
        canonical[name] = ""
        if not text.strip(" \t"):
            continue
        try:
            canonical[name] = (date(text, order) if name == "birth_date" else sex(text) if name == "sex" else
                               words(text, "" if name in ("postcode", "national_id") else " "))
        except Unreadable:
            unreadable.append(name)
    return canonical, unreadable


def letters(name):
    """None: a letter outside a … z."""
    rest = re.sub("[ 0-9]", "", name)
    return rest if re.fullmatch("[a-z]+", rest) else None


def soundex(word):
    codes = {c: str(n) for n, group in enumerate(["bfpv", "cgjkqsxz", "dt", "l", "mn", "r"], 1) for c in group}
    kept = word[0] + re.sub("[hw]", "", word[1:])
    out, before = word[0], codes.get(word[0])
    for c in kept[1:]:
        code = codes.get(c)
        if code and code != before:
            out += code
        before = code
    return (out + "000")[:4]


def cologne(word):
    out = []
    for i, c in enumerate(word):
        before, after = word[i - 1:i] if i else "", word[i + 1:i + 2]
        if c in "aeijouy":
            code = "0"
        elif c == "h":
            continue
        elif c == "b" or (c == "p" and after != "h"):
            code = "1"
        elif c in "dt":
            code = "8" if after and after in "csz" else "2"
        elif c in "fvwp":
            code = "3"
        elif c in "gkq":
            code = "4"
        elif c == "c":
            if i == 0:
                code = "4" if after and after in "ahkloqrux" else "8"
            else:
                code = "4" if after and after in "ahkoqux" and before not in "sz" else "8"
        elif c == "x":
            code = "8" if before and before in "ckq" else "48"
        else:
            code = {"l": "5", "m": "6", "n": "6", "r": "7", "s": "8", "z": "8"}[c]
        out += code
    out = [c for i, c in enumerate(out) if i == 0 or c != out[i - 1]]
    return "".join(c for i, c in enumerate(out) if c != "0" or i == 0)


def phonetic(kind, name):
    word = letters(name)
    return name if word is None else soundex(word) if kind == "soundex" else cologne(word)


def part(name, canonical, kind):
    field, _, form = name.partition(".")
    if name == "names":
        both = [canonical["given"], canonical["family"]]
        return " ".join(sorted(" ".join(both).split(), key=lambda w: w.encode())) if all(both) else ""
    if name == "birth_year":
        return canonical["birth_date"][:4]
    text = canonical[field]
    if not text or not form:
        return text
    return phonetic(kind, text) if form == "phonetic" else text[0]


def key(study, parts, canonical, kind):
    out = b"consilium-identity-v1\0" + len(study.encode()).to_bytes(2, "big") + study.encode()
    for name in sorted(parts, key=PARTS.get):
        text = part(name, canonical, kind).encode()
        if not text:
            return None
        out += bytes([PARTS[name]]) + len(text).to_bytes(2, "big") + text
    return hashlib.sha256(out).hexdigest()


# ---- vectors ----

PEOPLE = [
    ({"given": "Anne-Marie", "family": "O'Connor", "birth_date": "1980-02-29", "sex": "F", "postcode": "SW1A 1AA",
      "national_id": "943 476 5919"}, "ymd"),
    ({"given": "  JOSÉ  ", "family": "Muñoz y García", "birth_date": "29.2.1980", "sex": "male", "postcode": "08001"}, "dmy"),
    ({"given": "Jose\u0301", "family": "Mun\u0303oz  y\u00a0Garci\u0301a", "birth_date": "02/29/1980", "sex": "1"}, "mdy"),
    ({"given": "Jürgen", "family": "Groß", "birth_date": "19800229", "sex": "männlich", "postcode": "D-04109"}, "ymd"),
    ({"given": "Juergen", "family": "GROSS", "birth_date": "29021980", "sex": "w"}, "dmy"),
    ({"given": "Søren", "family": "Kjær-Þórðarson", "birth_date": "1955-01-01T00:00:00", "sex": "divers"}, "ymd"),
    ({"given": "Łukasz", "family": "Đặng", "birth_date": "1955-1-1 12:30", "sex": "unknown"}, "ymd"),
    ({"given": "O\u2019Brien", "family": "O\u00b4Brien\u02bc", "birth_date": "1979-02-29", "sex": "z"}, "ymd"),
    ({"given": "ＦＵＬＬ　Ｗｉｄｔｈ", "family": "ﬁancé ﬃ", "birth_date": "１９８０－０２－２９", "sex": "Ｍ"}, "ymd"),
    ({"given": "Ελένη", "family": "Παπαδόπουλος", "birth_date": "29/02/1980"}, "dmy"),
    ({"given": "Иван", "family": "Ёлкин", "birth_date": "1.1.80"}, "dmy"),
    ({"given": "محمد", "family": "علي", "birth_date": "2200-12-31"}, "ymd"),
    ({"given": "王小明", "family": "김", "birth_date": "1849-12-31"}, "ymd"),
    ({"given": "İstanbul Işık", "family": "ǅur", "birth_date": "1980-13-01"}, "ymd"),
    ({"given": "John  Paul\tII.", "family": "de la Cruz, Jr.", "birth_date": "12-31-1999", "postcode": "94110-1234"}, "mdy"),
    ({"given": "", "family": "   ", "birth_date": "", "sex": "9", "postcode": "--", "national_id": "?"}, "ymd"),
    ({"given": "x" * 127, "family": "y" * 128, "birth_date": "1980-02-30"}, "ymd"),
    ({"given": "\ufdfa", "family": "Ǆ\u200d\u00ad\ufeffa", "birth_date": "1980 02 29"}, "ymd"),
    ({"given": "ẞß", "family": "ŉo", "birth_date": "2000-02-29"}, "dmy"),
    ({"given": "1e5", "family": "O`Neill", "birth_date": "1900-02-29"}, "ymd"),
]
SPOKEN = ["robert", "rupert", "ashcraft", "tymczak", "pfister", "honeyman", "jackson", "washington", "lee", "gutierrez",
          "vandeusen", "muller ludenscheidt", "mueller", "wikipedia", "breschnew", "heinz classen", "xaver", "phil", "acx",
          "szcz", "charlotte", "h", "weh", "елена", "12", "ann 2", "aeiouy", "lloyd", "ptah", "cz", "tsch", "kx", "x"]
KEY_SETS = [
    ("heart-2026", "soundex", [["given", "family", "birth_date"], ["given.phonetic", "family.phonetic", "birth_date"],
                               ["given", "birth_date", "postcode"], ["names", "birth_year"],
                               ["given.initial", "family", "sex"], ["national_id"]]),
    ("Herz/ä", "cologne", [["family.phonetic", "birth_date", "sex"], ["given", "family"], ["sex", "postcode"]]),
]


def compute(vectors):
    for vector in vectors["normalize"]:
        vector["canonical"], vector["unreadable"] = normalize(vector["fields"], vector["dates"])
    for vector in vectors["phonetic"]:
        vector["out"] = phonetic(vector["code"], vector["name"])
    for vector in vectors["keys"]:
        vector["sha256"] = [key(vector["study"], parts, vector["canonical"], vector["phonetic"]) for parts in vector["keys"]]
    return vectors


def write(path):
    canonical = [normalize(fields, order)[0] for fields, order in PEOPLE]
    vectors = {
        "normalize": [{"fields": fields, "dates": order} for fields, order in PEOPLE],
        "phonetic": [{"code": code, "name": name} for code in ("soundex", "cologne") for name in SPOKEN],
        "keys": [{"study": study, "phonetic": kind, "keys": keys, "canonical": person}
                 for study, kind, keys in KEY_SETS for person in canonical],
    }
    with open(path, "w", encoding="utf-8") as file:
        file.write("{\n")
        file.write(",\n".join(
            f' "{name}": [\n' + ",\n".join("  " + json.dumps(v, ensure_ascii=True) for v in items) + "\n ]"
            for name, items in compute(vectors).items()))
        file.write("\n}\n")


def check(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    stored, computed = json.loads(text), compute(json.loads(text))
    wrong = [(name, a, b) for name in stored for a, b in zip(stored[name], computed[name]) if a != b]
    for name, a, b in wrong:
        print(f"{name}: the file has {a}, the rules give {b}")
    count = sum(len(items) for items in stored.values())
    print(f"{count - len(wrong)} vectors as the rules give them, {len(wrong)} not")
    return 1 if wrong or count == 0 else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("check", "write"):
        sys.exit(__doc__)
    sys.exit(write(sys.argv[2]) if sys.argv[1] == "write" else check(sys.argv[2]))
