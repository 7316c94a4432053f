"""The published Fed-Heart-Disease study through the real daemons, to the last patient.

    study_heart.py [--seeds 42 43 44 45 46]

Four hospitals, mutual TLS, FedAvg, 15 rounds of 100 steps. The number of correctly classified patients of every cell (five test
sets a seed) must equal expected_cells.csv of the data folder. The preparation joins the published fold column to the four files;
everything else is the product's. Prints the table; exit code 1 when a cell differs, 77 when the data is absent.
"""

import argparse
import csv
import pathlib
import shutil
import sys
import tempfile
import time

import harness

sys.path.insert(0, str(harness.SOURCE / "tests" / "data"))
import heart_plan
import prepare_heart

CENTRES = ["cleveland", "hungarian", "switzerland", "va"]


def correct_patients(job):
    """Correct and total per test set: each hospital with its own standardization, all of them with the federated one."""
    cells = {}
    pooled = [0, 0]
    for entry in job["history"][-1]["evaluations"]:
        if entry["model"] != "global" or entry["split"] != "test" or entry["site"] is None:
            continue
        accuracy = entry["metrics"]["accuracy"]
        if entry["standardize"] == "site":
            cells[entry["site"]] = (round(accuracy["sum"]), round(accuracy["count"]))
        elif entry["standardize"] == "federated":
            pooled[0] += round(accuracy["sum"])
            pooled[1] += round(accuracy["count"])
    cells["pooled"] = tuple(pooled)
    return cells


def expected_cells(data, seed):
    with open(data / "heart_uci4" / "expected_cells.csv") as file:
        return {row["test"]: (int(row["correct"]), int(row["of"])) for row in csv.DictReader(file)
                if row["method"] == "FedAvg" and int(row["run_seed"]) == seed}


def start_hospitals(consortium, data):
    prepare_heart.prepare(data, consortium.folder / "tables")
    for name in CENTRES:
        site = consortium.site(name).join()
        table = consortium.folder / "tables" / f"{name}.csv"
        site.configure(heart_plan.site(name, str(table), f"localhost:{consortium.port}")).start()
    consortium.wait_connected(*CENTRES)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", nargs="*", type=int, default=[42, 43, 44, 45, 46])
    parser.add_argument("--data", type=pathlib.Path, default=harness.DATA, help="the folder that holds heart_uci4")
    arguments = parser.parse_args()
    if not (arguments.data / "heart_uci4").is_dir():
        print("not run: data absent (heart_uci4)")
        return 77

    folder = pathlib.Path(tempfile.mkdtemp(prefix="cs-heart-"))
    consortium = harness.Consortium(folder)
    wrong = 0
    try:
        consortium.start()
        start_hospitals(consortium, arguments.data)
        for seed in arguments.seeds:
            begun = time.monotonic()
            job = consortium.submit(heart_plan.plan(seed, arguments.data))
            done = consortium.wait_job(job, patience_s=900)
            if done["state"] != "complete":
                print(f"seed {seed}: job {done['state']}: {done['reason']}")
                return 1
            found, expected = correct_patients(done), expected_cells(arguments.data, seed)
            if set(found) != set(expected):
                print(f"seed {seed}: test sets {sorted(found)}, expected {sorted(expected)}")
                return 1
            for test in expected:
                same = found[test] == expected[test]
                wrong += not same
                print(f"FedAvg seed {seed} {test:12} {found[test][0]:4} of {found[test][1]:4}  expected {expected[test][0]:4}"
                      f" of {expected[test][1]:4}  {'equal' if same else 'DIFFERENT'}", flush=True)
            print(f"seed {seed}: {time.monotonic() - begun:.1f} s", flush=True)
    finally:
        consortium.stop()
        shutil.rmtree(folder, ignore_errors=True)
    total = 5 * len(arguments.seeds)
    print(f"{total - wrong} of {total} cells equal")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
