#!/usr/bin/env python3
"""Writes the plan of one run of the published heart-disease study (FedAvg), and the four sites' configurations.

    heart_plan.py plan SEED [DATA]                     the plan on stdout; DATA holds heart_uci4 (default: ../shared/data)
    heart_plan.py site NAME TABLE COORDINATOR          a site.yaml on stdout; TABLE is a file of prepare_heart.py
"""
import csv
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data"
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

# The published files have no header; columns are named by number.
SITE = """\
site: {site}
coordinator: {coordinator}
datasets:
  heart-v1:
    table: {table}
    has_header: false
    columns: {{age: "#0", sex: "#1", cp: "#2", trestbps: "#3", chol: "#4", fbs: "#5", restecg: "#6", thalach: "#7", exang: "#8",
              oldpeak: "#9", num: "#13"}}
    missing: ["?"]
    split: {{by: row, test: {{column: "#14", value: test}}}}
threads: 1
policy: {{approve: [{{dataset: heart-v1, model: [logistic_regression], rounds: {{maximum: 100}}, sites: {{minimum: 3}}}}]}}
"""


def epoch_seeds(data, seed):
    """The generator seeds of each site's epochs, in order."""
    seeds = {site: [] for site in SITES}
    with open(pathlib.Path(data) / "heart_uci4" / "epoch_seeds.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["training"] == "federated" and int(row["run_seed"]) == seed:
                seeds[SITES[int(row["site"])]].append(row["generator_seed"])
    return seeds


def plan(seed, data=DEFAULT_DATA):
    lines = [f"    - {{site: {site}, seeds: [{', '.join(values)}]}}" for site, values in epoch_seeds(data, seed).items()]
    return PLAN.format(seed=seed, sites=", ".join(SITES), epoch_seeds="\n".join(lines))


def site(name, table, coordinator):
    return SITE.format(site=name, table=table, coordinator=coordinator)


if __name__ == "__main__":
    if len(sys.argv) in (3, 4) and sys.argv[1] == "plan":
        print(plan(int(sys.argv[2]), *sys.argv[3:]), end="")
    elif len(sys.argv) == 5 and sys.argv[1] == "site":
        print(site(*sys.argv[2:]), end="")
    else:
        sys.exit(__doc__)
