#!/usr/bin/env python3
"""What a round costs beside the training: coordinator, N agents and stand-in workers on loopback, mutual TLS, fsync as always.

    tests/bench/round.py [--sites 8] [--rounds 200] [--build build/release]

Prints the median, the 10 % and 90 % marks of a round in milliseconds, and beside it the reference of the same run: the time this
machine takes to write and fsync the same bytes to as many files (model × sites), one after the other. Then start-up time and
resident memory of idle daemons.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import shutil
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sites", type=int, default=8)
parser.add_argument("--rounds", type=int, default=200)
parser.add_argument("--columns", type=int, default=25000, help="parameters of the model; 25000 are 0.1 MB")
parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2] / "build" / "release")
parser.add_argument("--standin", type=pathlib.Path, default=None, help="the stand-in worker's program")
arguments = parser.parse_args()
os.environ["CONSILIUM_BUILD"] = str(arguments.build.resolve())

import harness


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def plan():
    levels = 1000
    features = ", ".join(f"{{name: c{n}, levels: [{', '.join(map(str, range(levels)))}]}}" for n in range(arguments.columns // levels))
    return f"""plan: bench
federation: horizontal
sites: {{invite: all, minimum: {arguments.sites}, approval: 5m, deadline: 10m}}
dataset: {{name: demo-v1, kind: table, features: [{features}], label: {{column: y, above: 0}}, missing: drop, standardize: none}}
model: {{kind: logistic_regression}}
training: {{rounds: {arguments.rounds}, local_steps: 1, batch_size: 4, optimizer: {{kind: sgd, learning_rate: 0.01}}, loss: bce}}
aggregation: {{method: fedavg, weights: samples}}
evaluation: {{metrics: [accuracy], standardize: [none]}}
retention: {{updates: 2, models: [last]}}
seed: 1
"""


def write_and_sync_ms(folder, size, files):
    """The reference: what durable files cost here."""
    data = os.urandom(size)
    begun = time.monotonic()
    for n in range(files):
        with open(folder / f"reference-{n}", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    return (time.monotonic() - begun) * 1000


def main():
    standin = arguments.standin or pathlib.Path(__file__).resolve().parents[2] / "build" / "dev" / "tests" / "bench" / "standin_worker"
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cs-bench-"))
    consortium = harness.Consortium(folder)
    try:
        begun = time.monotonic()
        consortium.daemon.start()
        harness.wait_until(lambda: 'msg=serving' in consortium.daemon.text(), "the coordinator to serve")
        startup_ms = (time.monotonic() - begun) * 1000
        consortium.start() if not consortium.daemon.is_running() else None
        names = [f"site-{n}" for n in range(arguments.sites)]
        for name in names:
            site = consortium.site(name).join()
            harness.write_table(site.folder / "demo.csv", seed=1)
            site.configure(harness.site_yaml(name, consortium).replace("threads: 1", f"threads: 1\nworker: {standin.resolve()}"))
            site.start()
        consortium.wait_connected(*names)
        idle = (resident_mib(consortium.daemon.process.pid), resident_mib(consortium.site(names[0]).daemon.process.pid))

        job = consortium.submit(plan())
        done = consortium.watch_job(job, patience_s=600)
        if done["state"] != "complete":
            raise SystemExit(f"job {done['state']}: {done['reason']}\n{consortium.daemon.text()[-2000:]}")
        rounds = sorted(entry["duration_ms"] for entry in done["history"][1:])
        size = done["history"][-1]["size"]
        reference = statistics.median(write_and_sync_ms(folder, size, arguments.sites) for _ in range(7))
        median = statistics.median(rounds)
        print(f"round: sites {arguments.sites}, model {size / 1e6:.2f} MB, rounds {len(rounds)}: median {median:.0f} ms, "
              f"10 % {rounds[len(rounds) // 10]} ms, 90 % {rounds[len(rounds) * 9 // 10]} ms; ratio to writing and syncing the "
              f"updates alone ({reference:.1f} ms): {median / reference:.1f}")
        print(f"coordinator: serving {startup_ms:.0f} ms after start, idle {idle[0]:.1f} MiB resident, "
              f"after the job {resident_mib(consortium.daemon.process.pid):.1f} MiB")
        print(f"agent: idle {idle[1]:.1f} MiB resident")
    finally:
        consortium.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
