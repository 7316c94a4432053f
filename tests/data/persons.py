#!/usr/bin/env python3
"""Invents persons for alignments: one table a site, with overlap and errors, and the truth beside them.

    persons.py --out DIR [--sites clinic,mercy] [--patients 20000] [--overlap 0.5] [--errors 0.1] [--seed 1]

Writes DIR/SITE.csv (nr, given, family, birth_date, sex, postcode) for each site and DIR/truth.csv (site, nr, person). Every site has
the `overlap` share of its patients in common with all others; the rest are its own. The first site's tables have no
errors; at all others each field is wrong with probability `errors`:

    names       a letter wrong, missing, doubled, or swapped with its neighbour (70 %); spelt as it sounds (10 %);
                another name altogether (10 %); given and family name swapped, both then (10 %)
    birth date  one digit wrong (50 %); day and month swapped (30 %); not there (10 %); a date close by (10 %)
    postcode    moved away (60 %); one digit wrong (30 %); not there (10 %)
    sex         not there (50 %); the other one (50 %)

Names follow the frequencies of the census in names_census_1990.txt, birth dates a flat age from 0 to 90, postcodes 2,000
areas of unequal size. The same arguments give the same bytes. Nobody in these tables exists. Standard library only.
"""

import argparse
import bisect
import csv
import datetime
import itertools
import pathlib
import random

FIRST_DAY = datetime.date(1936, 1, 1)
DAYS = 90 * 365
AREAS = 2000


def read_names():
    names, section = {}, None
    for line in (pathlib.Path(__file__).parent / "names_census_1990.txt").read_text().splitlines():
        if line.startswith("["):
            section = names.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            section += [(name, int(weight)) for name, weight in (item.split() for item in line.split(", "))]
    return {key: Weighted(items) for key, items in names.items()}


class Weighted:
    def __init__(self, items):
        self.values = [value for value, _ in items]
        self.sums = list(itertools.accumulate(weight for _, weight in items))

    def draw(self, dice):
        return self.values[bisect.bisect_right(self.sums, dice.random() * self.sums[-1])]


class People:
    def __init__(self, dice):
        self.dice = dice
        self.names = read_names()
        self.postcodes = Weighted([(f"{dice.randrange(100000):05}", 1 + int(200 * dice.random() ** 3)) for _ in range(AREAS)])

    def person(self):
        sex = self.dice.choice("fm")
        return {"given": self.names["female" if sex == "f" else "male"].draw(self.dice).capitalize(),
                "family": self.names["family"].draw(self.dice).capitalize(),
                "birth_date": (FIRST_DAY + datetime.timedelta(self.dice.randrange(DAYS))).isoformat(),
                "sex": sex, "postcode": self.postcodes.draw(self.dice)}

    def typo(self, name):
        at, letter = self.dice.randrange(len(name)), self.dice.choice("abcdefghijklmnopqrstuvwxyz")
        kind = self.dice.randrange(4)
        if kind == 0:
            return name[:at] + letter + name[at + 1:]
        if kind == 1 and len(name) > 1:
            return name[:at] + name[at + 1:]
        if kind == 2:
            return name[:at] + name[at] + name[at:]
        return name[:at] + name[at + 1:at + 2] + name[at] + name[at + 2:]

    def sounds(self, name):
        for a, b in (("ph", "f"), ("ck", "k"), ("ie", "y"), ("y", "ie"), ("ll", "l"), ("nn", "n"), ("c", "k"), ("s", "z"),
                     ("ee", "ea"), ("t", "tt"), ("n", "nn"), ("e", "ee")):
            if a in name.lower()[1:]:
                at = name.lower().index(a, 1)
                return name[:at] + b + name[at + len(a):]
        return name + "e"

    def digit(self, text):
        places = [i for i, c in enumerate(text) if c.isdigit()]
        at = self.dice.choice(places)
        return text[:at] + str((int(text[at]) + self.dice.randrange(1, 10)) % 10) + text[at + 1:]

    def wrong_name(self, row, field, source):
        kind = self.dice.random()
        if kind < 0.7:
            row[field] = self.typo(row[field])
        elif kind < 0.8:
            row[field] = self.sounds(row[field])
        elif kind < 0.9:
            row[field] = self.names[source].draw(self.dice).capitalize()
        else:
            row["given"], row["family"] = row["family"], row["given"]

    def wrong_date(self, row):
        kind = self.dice.random()
        year, month, day = row["birth_date"].split("-")
        if kind < 0.5:
            row["birth_date"] = self.digit(row["birth_date"])
        elif kind < 0.8:
            row["birth_date"] = f"{year}-{day}-{month}"
        elif kind < 0.9:
            row["birth_date"] = ""
        else:
            close = datetime.date.fromisoformat(row["birth_date"]) + datetime.timedelta(self.dice.choice([-2, -1, 1, 2]))
            row["birth_date"] = close.isoformat()

    def with_errors(self, person, errors):
        row = dict(person)
        if self.dice.random() < errors:
            self.wrong_name(row, "given", "female" if row["sex"] == "f" else "male")
        if self.dice.random() < errors:
            self.wrong_name(row, "family", "family")
        if self.dice.random() < errors:
            self.wrong_date(row)
        if self.dice.random() < errors:
            kind = self.dice.random()
            row["postcode"] = (self.postcodes.draw(self.dice) if kind < 0.6 else self.digit(row["postcode"]) if kind < 0.9
                               else "")
        if self.dice.random() < errors:
            row["sex"] = "" if self.dice.random() < 0.5 else "m" if row["sex"] == "f" else "f"
        return row


def make(sites, patients, overlap, errors, seed):
    """site -> rows with their person's number, in an order of the site's own."""
    dice = random.Random(seed)
    people = People(dice)
    common = [people.person() for _ in range(round(patients * overlap))]
    tables, own = {}, len(common)
    for index, site in enumerate(sites):
        rows = list(enumerate(common))
        while len(rows) < patients:
            rows.append((own, people.person()))
            own += 1
        rows = [(number, people.with_errors(person, errors if index else 0)) for number, person in rows]
        dice.shuffle(rows)
        tables[site] = rows
    return tables


def write(out, tables):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "truth.csv", "w", newline="") as file:
        truth = csv.writer(file)
        truth.writerow(["site", "nr", "person"])
        for site, rows in tables.items():
            with open(out / f"{site}.csv", "w", newline="") as table_file:
                table = csv.writer(table_file)
                table.writerow(["nr", "given", "family", "birth_date", "sex", "postcode"])
                for nr, (person, row) in enumerate(rows, 1):
                    table.writerow([nr, row["given"], row["family"], row["birth_date"], row["sex"], row["postcode"]])
                    truth.writerow([site, nr, person])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--sites", default="clinic,mercy")
    parser.add_argument("--patients", type=int, default=20000)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--errors", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    write(given.out, make(given.sites.split(","), given.patients, given.overlap, given.errors, given.seed))
