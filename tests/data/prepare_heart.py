#!/usr/bin/env python3
"""Joins the published split to the four UCI heart-disease files, one more column at the end of each line: train, test, or
nothing for a row that the published study dropped. Changes nothing else: dropping rows, encoding and standardizing are the
product's work.

    prepare_heart.py [DATA] OUTPUT      DATA is the folder heart_uci4 (default: ../shared/data/heart_uci4)

OUTPUT gets a folder for each hospital with its table, heart.csv, and a site.yaml that maps the plan's names to it.
"""
import csv
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data" / "heart_uci4"
SITES = ("cleveland", "hungarian", "switzerland", "va")
# The published files have no header; columns are named by number.
SITE = """\
site: {site}
coordinator: {coordinator}
datasets:
  heart-v1:
    table: heart.csv
    has_header: false
    columns: {{age: "#0", sex: "#1", cp: "#2", trestbps: "#3", chol: "#4", fbs: "#5", restecg: "#6", thalach: "#7",
              exang: "#8", oldpeak: "#9", num: "#13"}}
    missing: ["?"]
    split: {{by: row, test: {{column: "#14", value: test}}}}
threads: 1
policy:
  approve: [{{dataset: heart-v1, model: [logistic_regression], rounds: {{maximum: 100}}, sites: {{minimum: 3}}}}]
"""
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


def write_site(data, site, folder, coordinator="localhost:8443"):
    """One hospital: its table and its configuration."""
    data, folder = pathlib.Path(data), pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    join(data / f"processed.{site}.data", read_folds(data)[site], folder / "heart.csv")
    (folder / "site.yaml").write_text(SITE.format(site=site, coordinator=coordinator))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    for name in SITES:
        write_site(sys.argv[1] if len(sys.argv) == 3 else DEFAULT_DATA, name, pathlib.Path(sys.argv[-1]) / name)
