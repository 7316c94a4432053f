#!/usr/bin/env python3
"""What attending sites cost the coordinator while nothing happens: one process holds N real Attend streams over mutual TLS, each with
an identity of its own that joined with a token of its own.

    tests/bench/idle.py [--sites 1000] [--seconds 60] [--build build/release]      # an hour: --seconds 3600

Prints the coordinator's resident memory, descriptors and CPU time as it goes, then the slope of a linear fit through the samples, and
whether every stream is still there, as the sites and as the coordinator see it. Ends with 1 when a stream was lost.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
ROOT = pathlib.Path(__file__).resolve().parents[2]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sites", type=int, default=1000)
parser.add_argument("--seconds", type=float, default=60)
parser.add_argument("--samples", type=int, default=60, help="over the whole time")
parser.add_argument("--settle", type=float, default=10, help="seconds before the first sample")
parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
parser.add_argument("--holder", type=pathlib.Path, default=ROOT / "build" / "dev" / "tests" / "bench" / "bench_attend")
arguments = parser.parse_args()
os.environ["CONSILIUM_BUILD"] = str(arguments.build.resolve())

import harness


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def slope(points):
    """Least squares, in units of y per unit of x."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def watch(pid):
    """Samples over the time that was asked for; gives (seconds, MiB)."""
    points = []
    begun, cpu = time.monotonic(), cpu_seconds(pid)
    for n in range(arguments.samples + 1):
        time.sleep(max(0.0, begun + n * arguments.seconds / arguments.samples - time.monotonic()))
        points.append((time.monotonic() - begun, resident_mib(pid)))
        if n % max(1, arguments.samples // 12) == 0:
            print(f"{points[-1][0]:7.0f} s  {points[-1][1]:6.1f} MiB resident, {descriptors(pid)} descriptors, "
                  f"{cpu_seconds(pid) - cpu:.1f} s of CPU", flush=True)
    return points


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cs-bench-"))
    consortium = harness.Consortium(folder)
    holder = None
    try:
        consortium.start()
        pid = consortium.daemon.process.pid
        alone = resident_mib(pid)
        begun = time.monotonic()
        holder = subprocess.Popen([arguments.holder, consortium.state / "admin.sock", folder, str(arguments.sites)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = holder.stdout.readline().strip()
        if line != f"attending {arguments.sites}":
            raise SystemExit(f"the sites do not attend: {line or consortium.daemon.text()[-1000:]}")
        print(f"{arguments.sites} sites joined and attend after {time.monotonic() - begun:.0f} s; alone the coordinator had "
              f"{alone:.1f} MiB resident", flush=True)
        time.sleep(arguments.settle)
        points = watch(pid)

        holder.stdin.write("check\n")
        holder.stdin.flush()
        alive = int(holder.stdout.readline().split()[1])
        connected = len(consortium.connected())
        most = max(mib for _, mib in points)
        print(f"idle: {arguments.sites} sites, {points[-1][0]:.0f} s: at most {most:.1f} MiB ({most * 1.048576:.0f} MB) resident, "
              f"{(points[-1][1] - alone) * 1024 / arguments.sites:.0f} KiB a site; slope {slope(points) * 3600:+.2f} MiB/h; "
              f"{alive} streams alive at the sites, {connected} connected at the coordinator")
        if alive != arguments.sites or connected != arguments.sites:
            raise SystemExit(1)
    finally:
        if holder:
            holder.stdin.close()
            holder.wait()
        consortium.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
