#!/usr/bin/env python3
"""What an alignment costs, whole: coordinator, agents and workers on loopback with mutual TLS, sealing, fsync as always, one kind of key.

    tests/bench/align.py [--build build/release] [--log2 16] [--large 20] [--pattern 18] [--quick]

Prints the rows for BENCHMARKS.md: the CPU time of all processes for 2^16 × 2^16 with the processor's best back end and with the portable
one, beside OpenMined's PSI in the same run (median of three each, in turns); wall time and bytes of two parties with 2^20 and one
thread each; CPU time a site of five sites with 2^18 under a leader. Sizes count as lists have them on the wire, padding included.
Only what follows a job's submission counts: enrolment and the making of tables do not, reading them does.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--build", type=pathlib.Path, default=HERE.parents[1] / "build" / "release")
parser.add_argument("--log2", type=int, default=16, help="points of each of two lists, beside OpenMined's PSI; 0: leave out")
parser.add_argument("--large", type=int, default=20, help="points of each of two lists, wall time and bytes; 0: leave out")
parser.add_argument("--pattern", type=int, default=18, help="points of each of five lists; 0: leave out")
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--names", action="store_true", help="keys of name and birth date, with their normalization, instead of a number")
arguments = parser.parse_args()
os.environ["CONSILIUM_BUILD"] = str(arguments.build.resolve())
os.environ.setdefault("CONSILIUM_TEST_PATIENCE", "600")

import harness

TICKS = os.sysconf("SC_CLK_TCK")
FILL = 64  # canaries and dummies, which the padded size counts too


def cpu_s(pid):
    """User and system time of a process and of those of its children that have ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / TICKS


def write_table(path, first, count):
    with open(path, "w") as file:
        if arguments.names:
            file.write("given,family,birth_date\n")
            file.writelines(f"Anna{number % 97},Meier{number},19{number % 90 + 10}-0{number % 9 + 1}-1{number % 9}\n"
                            for number in range(first, first + count))
        else:
            file.write("national_id\n")
            file.writelines(f"patient {number}\n" for number in range(first, first + count))


class Run:
    """Sites whose lists have 2^log2 points each on the wire, half of them common."""

    def __init__(self, folder, sites, log2, portable=False):
        self.names = [f"site-{number + 1}" for number in range(sites)]
        self.consortium = harness.Consortium(folder).start()
        self.count = 2**log2 - FILL
        for number, name in enumerate(self.names):
            site = self.consortium.site(name).join()
            write_table(site.folder / "persons.csv", number * (self.count // 2 if sites == 2 else self.count // 8), self.count)
            worker = ""
            if portable:
                wrapper = site.folder / "worker"
                wrapper.write_text(f'#!/bin/sh\nCONSILIUM_CURVE=portable exec {harness.BUILD}/client/consilium-aligner "$@"\n')
                wrapper.chmod(0o755)
                worker = f"worker: {wrapper}\n"
            site.configure(f"site: {name}\ncoordinator: localhost:{self.consortium.port}\nthreads: 1\n{worker}"
                           "datasets: {persons-v1: {table: persons.csv}}\n"
                           "policy: {approve: [{dataset: persons-v1}], alignment: {sessions: {day: 1000}, "
                           "tokens: {session: 100000000, month: 10000000000}}}\n").start()
        self.consortium.wait_connected(*self.names)
        for site in self.consortium.sites.values():
            harness.wait_until(lambda: len(site.json("roster", "show")["members"]) == sites, "the roster")
            site.command("roster", "approve", site.json("roster", "show")["roster"])
        self.jobs = 0

    def align(self):
        """CPU seconds of the coordinator and of each site, wall seconds, bytes that the sites sent."""
        self.jobs += 1
        keys = "[[given, family, birth_date]]" if arguments.names else "[[national_id]]"
        plan = (f"plan: bench-{self.jobs}\nfederation: vertical\nsites: {{invite: [{', '.join(self.names)}], approval: 5m, deadline: 30m}}\n"
                "dataset: {name: persons-v1, kind: identities}\n"
                f"alignment: {{study: bench-{self.jobs}, leader: site-1, cohort: all, patients: {self.count}, keys: {keys}}}\n")
        daemons = [self.consortium.daemon] + [self.consortium.sites[name].daemon for name in self.names]
        before = [cpu_s(daemon.process.pid) for daemon in daemons]
        job = self.consortium.submit(plan)
        shown = self.consortium.watch_job(job)
        if shown["state"] != "complete":
            sys.exit(f"the job ended {shown['state']}: {shown['reason']}")
        harness.wait_until(lambda: not any(site.worker_pids() for site in self.consortium.sites.values()), "the workers to end")
        after = [cpu_s(daemon.process.pid) for daemon in daemons]
        wall = shown["history"][-1]["duration_ms"] / 1000
        sent = sum(self.sent_by(name, job) for name in self.names)
        found = shown["history"][-1]["evaluations"][0]["metrics"]["patients"]["value"]
        return {"coordinator": after[0] - before[0], "sites": [b - a for a, b in zip(before[1:], after[1:])], "wall": wall, "bytes": sent,
                "found": int(found)}

    def sent_by(self, name, job):
        """Sizes of the sealed blobs, by the site's own transcript."""
        total = 0
        for path in sorted((self.consortium.sites[name].folder / "audit").iterdir()):
            for part in path.read_bytes().split(b'"kind":"update_sent"')[1:]:
                text = part[:600]
                if f'"job":"{job}"'.encode() in text:
                    total += int(text.split(b'"size":')[1].split(b"}")[0].split(b",")[0])
        return total

    def stop(self):
        self.consortium.stop()


def run(sites, log2, portable, repeats):
    folder = tempfile.mkdtemp(prefix="cs-bench-")
    try:
        made = Run(folder, sites, log2, portable)
        try:
            return [made.align() for _ in range(repeats)]
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def total(result):
    return result["coordinator"] + sum(result["sites"])


def openmined(log2):
    done = subprocess.run([sys.executable, HERE / "peers" / "openmined_psi.py", "--log2", str(log2), "--json"], capture_output=True, text=True)
    if done.returncode == 77:
        print(done.stdout.strip())
        return None
    return json.loads(done.stdout)["cpu"] if done.returncode == 0 else sys.exit(done.stderr)


def compare():
    peers, best, portable = [], [], []
    for _ in range(arguments.repeats):  # in turns: a busy moment of the machine meets all three
        cpu = openmined(arguments.log2)
        if cpu is not None:
            peers.append(cpu)
        best += run(2, arguments.log2, False, 1)
        portable += run(2, arguments.log2, True, 1)
    for word, results in (("best", best), ("portable", portable)):
        cpu = statistics.median(total(result) for result in results)
        ratio = f"{statistics.median(peers) / cpu:.1f} × less than OpenMined's {statistics.median(peers):.2f} s" if peers else "not compared"
        print(f"| 2^{arguments.log2} × 2^{arguments.log2}, {word} back end, CPU of all processes | {cpu:.2f} s | {ratio} |")
        shares = [statistics.median(result["coordinator"] for result in results),
                  statistics.median(sum(result["sites"]) for result in results)]
        print(f"    coordinator {shares[0]:.2f} s, sites {shares[1]:.2f} s, wall {statistics.median(r['wall'] for r in results):.2f} s, "
              f"found {results[0]['found']}")


def main():
    if arguments.log2:
        compare()
    if arguments.large:
        results = run(2, arguments.large, False, 1)
        result = results[0]
        print(f"| two parties with 2^{arguments.large}, one thread each, wall | {result['wall']:.1f} s | {result['bytes'] / 1e6:.1f} MB sent by the sites, "
              f"CPU {total(result):.1f} s |")
    if arguments.pattern:
        result = run(5, arguments.pattern, False, 1)[0]
        print(f"| five sites with 2^{arguments.pattern}, CPU a site | {max(result['sites']):.2f} s at most, {statistics.mean(result['sites']):.2f} s mean | "
              f"coordinator {result['coordinator']:.2f} s, wall {result['wall']:.1f} s, {result['bytes'] / 1e6:.1f} MB sent |")


main()
