#!/usr/bin/env python3
"""A training step of a small network at batch 4: the worker's code against the same in Python, same libtorch, one thread.

    mlp_step.py [--build DIR] [--pairs 50] [--steps 400]        needs PyTorch (Debian: python3-torch); else exit code 77

13 columns, hidden layers of 32 and 16, binary cross-entropy. Pairs of runs in turns; each row is the median of the pairs' ratios
Python / C (above 1: C is faster). The A/A column is the same ratio of C to itself, one half of its runs against the other.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import time

try:
    import torch
except ImportError:
    print("not run: no PyTorch for this Python (Debian: python3-torch)")
    sys.exit(77)

ROWS, COLUMNS, BATCH = 1000, 13, 4
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Reference:
    def __init__(self, optimizer):
        torch.manual_seed(1)
        self.x, self.y = torch.rand(ROWS, COLUMNS) * 2 - 1, torch.rand(ROWS, 1)
        self.model = torch.nn.Sequential(torch.nn.Linear(COLUMNS, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16), torch.nn.ReLU(),
                                         torch.nn.Linear(16, 1))
        self.loss = torch.nn.BCEWithLogitsLoss()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters(), lr=0.001)
        self.position, self.order = 0, torch.randperm(ROWS)

    def step(self):
        if self.position + BATCH > ROWS:
            self.position, self.order = 0, torch.randperm(ROWS)
        rows = self.order[self.position:self.position + BATCH]
        self.position += BATCH
        self.optimizer.zero_grad()
        loss = self.loss(self.model(self.x.index_select(0, rows)), self.y.index_select(0, rows))
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def run(self, steps):
        begin = time.perf_counter_ns()
        for _ in range(steps):
            self.step()
        return (time.perf_counter_ns() - begin) / steps


class Worker:
    def __init__(self, build, optimizer):
        self.process = subprocess.Popen([build / "tests" / "bench" / "bench_mlp_step", optimizer], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def run(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def measure(build, optimizer, pairs, steps):
    worker, reference = Worker(build, optimizer), Reference(optimizer)
    worker.run(steps), reference.run(steps)  # warm
    ours, theirs = [], []
    for pair in range(pairs):
        for side in ((0, 1), (1, 0))[pair % 2]:
            (theirs if side else ours).append((reference if side else worker).run(steps))
    worker.end()
    ratio = statistics.median(b / a for a, b in zip(ours, theirs))
    same = statistics.median(ours[::2]) / statistics.median(ours[1::2])
    print(f"| MLP step, batch 4, {optimizer} | {statistics.median(ours) / 1000:.1f} µs | {statistics.median(theirs) / 1000:.1f} µs | "
          f"{ratio:.2f} | {same:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2] / "build" / "dev")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}, one thread\n| what | worker | Python | ratio | A/A |\n|---|---|---|---|---|")
    for optimizer in OPTIMIZERS:
        measure(arguments.build, optimizer, arguments.pairs, arguments.steps)


if __name__ == "__main__":
    main()
