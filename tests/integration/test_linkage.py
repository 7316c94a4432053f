"""Invented persons with misspelt names, swapped dates and old addresses, found through the protocol by real daemons.

Everything has a seed, so the figures are the same everywhere; the last lines are the rows of BENCHMARKS.md.
"""

import csv
import pathlib
import re
import sys
import unittest

import harness
from harness import wait_until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "data"))
import persons  # noqa: E402

SITES = ["clinic", "mercy"]
PATIENTS, OVERLAP, ERRORS, SEED = 20000, 0.5, 0.1, 1
SINGLE = "[[given, family, birth_date]]"


def documented_keys():
    """The six kinds of key that docs/alignment.md recommends."""
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "alignment.md").read_text()
    keys = re.search(r"```yaml\nkeys:\n((?:  - \[.*\]\n)+)```", text).group(1)
    return "[" + ", ".join(line.strip(" -") for line in keys.strip().splitlines()) + "]"


class LinkageTest(harness.ConsortiumTest):
    def hospitals(self):
        tables = persons.make(SITES, PATIENTS, OVERLAP, ERRORS, SEED)
        made = self.folder / "persons"
        persons.write(made, tables)
        for name in SITES:
            site = self.consortium.site(name).join()
            (site.folder / "persons.csv").write_bytes((made / f"{name}.csv").read_bytes())
            site.configure(f"site: {name}\ncoordinator: localhost:{self.consortium.port}\nthreads: 1\n"
                           "datasets: {persons-v1: {table: persons.csv, split: {by: patient, patient: nr}}}\n"
                           "policy: {approve: [{dataset: persons-v1}]}\n").start()
        self.consortium.wait_connected(*SITES)
        for name in SITES:
            site = self.consortium.sites[name]
            wait_until(lambda: len(site.json("roster", "show")["members"]) == len(SITES), "the whole roster")
            site.command("roster", "approve", site.json("roster", "show")["roster"])
        return {name: {nr: person for nr, (person, _) in enumerate(rows, 1)} for name, rows in tables.items()}

    def found(self, job):
        """(patient at the clinic, patient at mercy) of each row of the cohort."""
        rows = []
        for name in SITES:
            with open(self.consortium.sites[name].folder / "personal" / job / "cohort.csv", newline="") as file:
                rows.append({row["row"]: int(row["patient"]) for row in csv.DictReader(file)})
        self.assertEqual(rows[0].keys(), rows[1].keys())
        return [(rows[0][row], rows[1][row]) for row in rows[0]]

    def measure(self, truth, name, keys):
        job = self.consortium.submit(f"""plan: {name}
federation: vertical
sites: {{invite: [{', '.join(SITES)}]}}
dataset: {{name: persons-v1, kind: identities}}
alignment: {{study: {name}, leader: clinic, cohort: all, patients: {PATIENTS}, keys: {keys}}}
""")
        done = self.consortium.wait_job(job)
        self.assertEqual("complete", done["state"], done["reason"])
        pairs = self.found(job)
        right = sum(truth["clinic"][one] == truth["mercy"][two] for one, two in pairs)
        recall, precision = right / (PATIENTS * OVERLAP), right / len(pairs)
        print(f"| {PATIENTS} × {PATIENTS}, {name} | recall {recall:.4f} | precision {precision:.4f} |", file=sys.stderr)
        return recall, precision

    def test_six_kinds_of_key_find_whom_one_kind_misses(self):
        truth = self.hospitals()

        single, exact = self.measure(truth, "one-key", SINGLE)
        recall, precision = self.measure(truth, "six-keys", documented_keys())

        self.assertGreaterEqual(exact, 0.998)
        self.assertGreaterEqual(recall, 0.97)
        self.assertGreaterEqual(precision, 0.998)
        self.assertLess(single, 0.80)


if __name__ == "__main__":
    unittest.main()
