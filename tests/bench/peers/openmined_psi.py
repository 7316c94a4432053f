#!/usr/bin/env python3
"""Measures the total CPU time of OpenMined's PSI (PyPI wheel openmined-psi, ECDH on P-256), both parties in one process.

    openmined_psi.py [--log2 16] [--data-structure raw|gcs|bloom] [--json]

2^N strings at each side, half of them common; the client learns which. Installs the wheel into a temporary virtual
environment; where the package index is out of reach it prints "not run: ..." and ends with 77. The data structure Raw is
exact and what PSI at its README recommends for equal sizes; the others save bytes and cost time. Messages are serialized
and parsed like over a wire, and that is counted. Standard library only."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

PACKAGE = "openmined-psi==2.0.6"
NOT_RUN = 77

MEASURE = r"""
import json, sys, time
import private_set_intersection.python as psi

count, structure = int(sys.argv[1]), getattr(psi.DataStructure, sys.argv[2])
client_items = [("patient %d" % i) if i % 2 == 0 else ("client %d" % i) for i in range(count)]
server_items = [("patient %d" % i) if i % 2 == 0 else ("server %d" % i) for i in range(count)]
steps, sizes = {}, {}

def step(name, work):
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    steps[name] = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return result

client = psi.client.CreateWithNewKey(True)
server = psi.server.CreateWithNewKey(True)
setup = step("server setup", lambda: server.CreateSetupMessage(1e-9, count, server_items, structure).SerializeToString())
request = step("client request", lambda: client.CreateRequest(client_items).SerializeToString())

def answer():
    message = psi.Request()
    message.ParseFromString(request)
    return server.ProcessRequest(message).SerializeToString()

response = step("server answer", answer)

def intersect():
    first, second = psi.ServerSetup(), psi.Response()
    first.ParseFromString(setup)
    second.ParseFromString(response)
    return client.GetIntersection(first, second)

found = step("client intersection", intersect)
assert sorted(found) == list(range(0, count, 2)), "the intersection is wrong: %d found" % len(found)
print(json.dumps({"steps": steps, "cpu": sum(s["cpu"] for s in steps.values()),
                  "wall": sum(s["wall"] for s in steps.values()),
                  "bytes": len(setup) + len(request) + len(response)}))
"""


def not_run(reason):
    print(f"not run: {reason}")
    sys.exit(NOT_RUN)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log2", type=int, default=16)
    parser.add_argument("--data-structure", choices=["raw", "gcs", "bloom"], default="raw")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    structure = {"raw": "RAW", "gcs": "GCS", "bloom": "BLOOM_FILTER"}[options.data_structure]
    with tempfile.TemporaryDirectory(prefix="consilium-openmined-") as folder:
        python = pathlib.Path(folder) / "bin" / "python"
        made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True)
        if made.returncode != 0:
            not_run(f"no virtual environment (python3-venv): {(made.stdout + made.stderr).strip().splitlines()[-1]}")
        install = subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", PACKAGE],
                                 capture_output=True, text=True, env={**os.environ, "PIP_RETRIES": "1"})
        if install.returncode != 0:
            not_run(f"{PACKAGE} cannot be installed: {install.stderr.strip().splitlines()[-1]}")
        measured = subprocess.run([python, "-c", MEASURE, str(1 << options.log2), structure],
                                  capture_output=True, text=True)
        if measured.returncode != 0:
            print(measured.stderr, file=sys.stderr)
            sys.exit(1)
    result = json.loads(measured.stdout)
    if options.json:
        print(json.dumps(result))
        return
    for name, times in result["steps"].items():
        print(f"{name:20} {times['cpu']:8.2f} CPU-s")
    print(f"{PACKAGE}, {options.data_structure}, 2 x 2^{options.log2}: {result['cpu']:.2f} CPU-seconds, "
          f"{result['wall']:.2f} s, {result['bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
