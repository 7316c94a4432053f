#!/usr/bin/env python3
"""Joins the published split to the four UCI heart-disease files, one more column at the end of each line: train, test, or
nothing for a row that the published study dropped. Changes nothing else: dropping rows, encoding and standardizing are the
product's work.

    prepare_heart.py [DATA] OUTPUT      DATA holds heart_uci4 (default: ../shared/data beside the repository)
"""
import csv
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data"
SITES = ("cleveland", "hungarian", "switzerland", "va")
NOT_USED = {10, 11, 12}  # slope, ca, thal: the study has no use for them, so a gap there drops no row


def read_folds(folder):
    """The fold of each centre's surviving rows, in file order."""
    folds = {site: [] for site in SITES}
    with open(folder / "flamby_split.csv", newline="") as file:
        for row in csv.DictReader(file):
            rows = folds[SITES[int(row["center"])]]
            if int(row["row"]) != len(rows):
                sys.exit(f"flamby_split.csv: row {row['row']} of centre {row['center']} is out of order")
            rows.append(row["fold"])
    return folds


def join(source, folds, target):
    """Row k that survives gets the k-th fold."""
    survivors = iter(folds)
    with open(source, newline="") as lines, open(target, "w", newline="") as out:
        for line in lines:
            line = line.rstrip("\r\n")
            if not line:
                continue
            survives = all(cell != "?" for i, cell in enumerate(line.split(",")) if i not in NOT_USED)
            out.write(f"{line},{next(survivors) if survives else ''}\n")
    if next(survivors, None) is not None:
        sys.exit(f"{source}: fewer rows survive than flamby_split.csv has")


def prepare(data, output):
    folder = pathlib.Path(data) / "heart_uci4"
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    folds = read_folds(folder)
    for site in SITES:
        join(folder / f"processed.{site}.data", folds[site], output / f"{site}.csv")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    prepare(sys.argv[1] if len(sys.argv) == 3 else DEFAULT_DATA, sys.argv[-1])
