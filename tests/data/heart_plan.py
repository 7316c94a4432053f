#!/usr/bin/env python3
"""Writes the plan of one run of the published heart-disease study (FedAvg).

    heart_plan.py SEED [DATA]      the plan on stdout; DATA is the folder heart_uci4 (default: ../shared/data/heart_uci4)
"""
import csv
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data" / "heart_uci4"
SITES = ("cleveland", "hungarian", "switzerland", "va")

PLAN = """\
# The study of FLamby's Fed-Heart-Disease, FedAvg, run {seed}: the published initial model and order of batches.
plan: heart-disease-{seed}
federation: horizontal
sites: {{invite: [{sites}], minimum: 4, require: [{sites}]}}
dataset:
  name: heart-v1
  kind: table
  features: [age, sex, trestbps, chol, fbs, thalach, exang, oldpeak, {{name: cp, levels: [2, 3, 4]}}, {{name: restecg, levels: [1, 2]}}]
  label: {{column: num, above: 0}}
  missing: drop
  standardize: site
model: {{kind: logistic_regression, initial: {{seed: {seed}}}}}
training:
  rounds: 15
  local_steps: 100
  batch_size: 4
  optimizer: {{kind: sgd, learning_rate: 0.001}}
  loss: bce
  epoch_seeds:
{epoch_seeds}
aggregation: {{method: fedavg, weights: samples}}
evaluation: {{metrics: [accuracy, auc, brier, log_loss], standardize: [site, federated]}}
seed: {seed}
"""


def epoch_seeds(data, seed):
    """The generator seeds of each site's epochs, in order."""
    seeds = {site: [] for site in SITES}
    with open(pathlib.Path(data) / "epoch_seeds.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["training"] == "federated" and int(row["run_seed"]) == seed:
                seeds[SITES[int(row["site"])]].append(row["generator_seed"])
    return seeds


def plan(data, seed):
    lines = [f"    - {{site: {site}, seeds: [{', '.join(values)}]}}" for site, values in epoch_seeds(data, seed).items()]
    return PLAN.format(seed=seed, sites=", ".join(SITES), epoch_seeds="\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    print(plan(sys.argv[2] if len(sys.argv) == 3 else DEFAULT_DATA, int(sys.argv[1])), end="")
