"""A consortium of real processes on loopback, for integration tests: coordinator, agents, workers, nothing faked.

Every test gets a folder of its own; everything it started is gone when it ends. Waiting is for events (a file, a line of
`--json`), never for a fixed time. Standard library only.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CONSILIUM_BUILD", SOURCE / "build" / "dev"))
DATA = pathlib.Path(os.environ.get("CONSILIUM_TEST_DATA", SOURCE.parent / "shared" / "data"))
SERVER = BUILD / "server" / "consilium-server"
CLIENT = BUILD / "client" / "consilium-client"
WORKER = BUILD / "client" / "consilium-worker"
# Sanitized builds are slower; a wait that fails is a failure, so be generous.
PATIENCE_S = float(os.environ.get("CONSILIUM_TEST_PATIENCE", "60"))


class Failed(Exception):
    """A command ended with an exit code the test did not expect."""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def wait_until(condition, what, patience_s=None):
    """Polls other processes; returns what the condition gave."""
    end = time.monotonic() + (patience_s or PATIENCE_S)
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Failed(f"waited in vain for: {what}")
        time.sleep(0.02)


def clean_environment():
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CONSILIUM_")}
    environment.pop("http_proxy", None)
    return environment


class Daemon:
    """One process in the foreground, its log in a file."""

    def __init__(self, command, log, environment=None):
        self.command = [str(word) for word in command]
        self.log = pathlib.Path(log)
        self.environment = environment or {}
        self.process = None

    def start(self, **environment):
        handle = open(self.log, "ab")
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=handle, stderr=handle,
                                        env={**clean_environment(), **self.environment, **environment}, start_new_session=True)
        handle.close()
        return self

    def kill(self):
        """As a power cut would: no chance to say goodbye. Workers of an agent notice their closed socket."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def stop(self):
        if not self.process:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed(f"{self.command[0]} did not stop within 20 s; its log: {self.text()[-2000:]}")

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def run(command, expect=0, timeout=300, **options):
    """Runs a command to its end; gives its output."""
    command = [str(word) for word in command]
    environment = {**clean_environment(), **options.pop("environment", {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, stdin=subprocess.DEVNULL,
                          **options)
    if expect is not None and done.returncode != expect:
        raise Failed(f"{' '.join(command)}\n  exit code {done.returncode}, expected {expect}\n  {done.stdout}\n  {done.stderr}")
    return done


class Site:
    def __init__(self, consortium, name):
        self.consortium = consortium
        self.name = name
        self.folder = consortium.folder / name
        self.join_file = consortium.folder / f"{name}.join"
        self.daemon = Daemon([CLIENT, "run", "--state", self.folder], consortium.folder / f"{name}.log")

    def command(self, *words, expect=0):
        return run([CLIENT, *words, "--state", self.folder], expect=expect)

    def json(self, *words):
        return json.loads(self.command(*words, "--json").stdout)

    def join(self):
        self.join_file.write_text(self.consortium.server("token", "new", self.name).stdout)
        self.command("join", self.join_file)
        return self

    def configure(self, text):
        (self.folder / "site.yaml").write_text(text)
        return self

    def start(self, **environment):
        self.daemon.start(**environment)
        return self

    def worker_pids(self):
        """Processes that this site's agent started."""
        pids = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if self.daemon.process and int(fields[1]) == self.daemon.process.pid and fields[0] != "Z":
                    pids.append(int(entry.name))
        return pids


class Consortium:
    def __init__(self, folder, server_options=()):
        self.folder = pathlib.Path(folder)
        self.state = self.folder / "coordinator"
        self.port, self.enrolment_port = free_ports(2)
        self.sites = {}
        made = run([SERVER, "init", "--state", self.state, "--name", "Test consortium", "--address", "localhost",
                    "--port", self.port, "--enrolment-port", self.enrolment_port, "--json"])
        self.words = json.loads(made.stdout)["authority"]
        # A small disk on the test machine is no reason to pause.
        self.add_server_options("disk_reserve: 1MiB", *server_options)
        self.daemon = Daemon([SERVER, "run", "--state", self.state], self.folder / "coordinator.log")

    def add_server_options(self, *lines):
        path = self.state / "server.yaml"
        text = path.read_text()
        for line in lines:
            key = line.split(":")[0]
            text = re.sub(rf"(?m)^{key}:.*\n", "", text) + line + "\n"
        path.write_text(text)

    def server(self, *words, expect=0):
        return run([SERVER, *words, "--state", self.state], expect=expect)

    def server_json(self, *words):
        return json.loads(self.server(*words, "--json").stdout)

    def start(self, **environment):
        self.daemon.start(**environment)
        wait_until(lambda: not self.daemon.is_running() or self.answers(), "the coordinator to answer")
        if not self.daemon.is_running():
            raise Failed(f"the coordinator ended: {self.daemon.text()[-3000:]}")
        return self

    def answers(self):
        return run([SERVER, "job", "list", "--state", self.state], expect=None).returncode == 0

    def site(self, name):
        if name not in self.sites:
            self.sites[name] = Site(self, name)
        return self.sites[name]

    def connected(self):
        return {entry["site"] for entry in self.server_json("site", "list") if entry["connected"]}

    def wait_connected(self, *names, patience_s=None):
        wait_until(lambda: set(names) <= self.connected(), f"{', '.join(names)} to attend", patience_s)

    def submit(self, plan, expect=0):
        path = self.folder / "plan.yaml"
        path.write_text(plan)
        done = self.server("job", "submit", path, "--json", expect=expect)
        return json.loads(done.stdout)["job"] if expect == 0 else done

    def job(self, name):
        return self.server_json("job", "show", name)

    def wait_job(self, name, states=("complete", "partial", "failed", "cancelled"), patience_s=None):
        def ended():
            job = self.job(name)
            return job if job["state"] in states else None
        return wait_until(ended, f"job {name} to be {' or '.join(states)}", patience_s or 3 * PATIENCE_S)

    def watch_job(self, name, patience_s=6 * 3600):
        """wait_job for measurements: one command that is told of the end, and takes no time from the daemons until then."""
        run([SERVER, "job", "watch", name, "--state", self.state], expect=None, timeout=patience_s)
        return self.job(name)

    def model_hash(self, job):
        models = self.server_json("model", "list", job)
        return next(model["sha256"] for model in models if model["last"])

    def stop(self):
        problems = []
        for daemon in [site.daemon for site in self.sites.values()] + [self.daemon]:
            try:
                code = daemon.stop()
                if code not in (0, -signal.SIGKILL):
                    problems.append(f"{daemon.command[:2]} ended with {code}: {daemon.text()[-3000:]}")
            except Failed as error:
                problems.append(str(error))
        for daemon in [site.daemon for site in self.sites.values()] + [self.daemon]:
            for word in ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "runtime error:"):
                if word in daemon.text():
                    problems.append(f"{word} in {daemon.log}: {daemon.text()[-6000:]}")
        if problems:
            raise Failed("\n".join(problems))


# ---- data and plans that every test may use ----

def write_table(path, seed, rows=60, shift=0.0):
    """Two numeric columns, one of levels, a label that depends on them, a fold column."""
    generator = random.Random(seed)
    lines = ["age,pressure,kind,outcome,fold"]
    for row in range(rows):
        age = generator.gauss(55 + shift, 9)
        pressure = generator.gauss(130, 15)
        kind = generator.choice([1, 2, 3])
        score = 0.08 * (age - 55) + 0.03 * (pressure - 130) + (0.9 if kind == 3 else 0.0) + generator.gauss(0, 0.7)
        lines.append(f"{age:.1f},{pressure:.0f},{kind},{int(score > 0.2)},{'test' if row % 3 == 0 else 'train'}")
    pathlib.Path(path).write_text("\n".join(lines) + "\n")


def site_yaml(site, consortium, approve=True, extra=""):
    rule = "[{dataset: demo-v1}]" if approve else "[]"
    return f"""site: {site}
coordinator: localhost:{consortium.port}
threads: 1
datasets:
  demo-v1:
    table: demo.csv
    split: {{by: row, test: {{column: fold, value: test}}}}
policy:
  approve: {rule}
  confinement: required
{extra}"""


def plan_yaml(name="demo", rounds=3, steps=20, minimum=2, deadline="10m", approval="7d", invite="all", require="[]",
              standardize="federated", extra=""):
    return f"""plan: {name}
federation: horizontal
sites: {{invite: {invite}, require: {require}, minimum: {minimum}, approval: {approval}, deadline: {deadline}}}
dataset:
  name: demo-v1
  kind: table
  features: [age, pressure, {{name: kind, levels: [2, 3]}}]
  label: {{column: outcome, above: 0}}
  missing: drop
  standardize: {standardize}
model: {{kind: logistic_regression}}
training: {{rounds: {rounds}, local_steps: {steps}, batch_size: 8, optimizer: {{kind: sgd, learning_rate: 0.05}}, loss: bce}}
aggregation: {{method: fedavg, weights: samples}}
evaluation: {{metrics: [auc, accuracy, brier, log_loss], standardize: [{standardize}]}}
retention: {{updates: all, models: [best, last]}}
seed: 42
{extra}"""


class ConsortiumTest(unittest.TestCase):
    """A coordinator is started; `hospitals(n)` adds joined and running sites with data."""

    server_options = ()

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="cs-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.consortium = Consortium(self.folder, self.server_options)
        self.addCleanup(self._stop)
        self.consortium.start()

    def _stop(self):
        try:
            self.consortium.stop()
        except Failed:
            self._show_logs()
            raise

    def _show_logs(self):
        for log in sorted(self.folder.glob("*.log")):
            print(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)

    def run(self, result=None):
        outcome = super().run(result)
        return outcome

    def hospitals(self, count, rows=60, start=True, extra=""):
        sites = []
        for index in range(count):
            site = self.consortium.site(f"hospital-{index + 1}")
            site.join()
            write_table(site.folder / "demo.csv", seed=index, rows=rows, shift=3.0 * index)
            site.configure(site_yaml(site.name, self.consortium, extra=extra))
            if start:
                site.start()
            sites.append(site)
        if start:
            self.consortium.wait_connected(*[site.name for site in sites])
        return sites
