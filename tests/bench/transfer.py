#!/usr/bin/env python3
"""What moving a model costs, beside references of our own in the same run: one upload, a round, the coordinator's memory.

    tests/bench/transfer.py [--build build/dev] [--only upload,round,memory] [--model-mb 64] [--folder DIR]

upload  the agent's transfer code to a real coordinator (tests/bench/upload.c), against (a) a bare gRPC stream with mutual TLS and
        (b) the same with SHA-256 at both ends and fdatasync every 4 MiB (tests/bench/reference.c).
round   8 agents with stand-in workers and a model of 10 MB, from the opening of the round until the new model is durable,
        against 8 clients that each download and upload as many bytes as in (b).
memory  peak resident memory of the coordinator while 4, then 16 sites fetch a model, upload updates and have them aggregated.
        Default 64 MB; `--model-mb 1000` is the figure of BENCHMARKS.md and takes 19 GB of disk, which is checked first.

Ratios are taken run by run, reference and product in turns; medians are printed, least and most in brackets, as rows of a table.
Ends with 1 when the memory is over its limit, with 77 when there is no disk for it; the other figures are only printed.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "integration"))

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--build", type=pathlib.Path, default=SOURCE / "build" / "dev", help="of the daemons; the benches are of preset dev")
parser.add_argument("--bench", type=pathlib.Path, default=SOURCE / "build" / "dev" / "tests" / "bench", help="folder of the benches")
parser.add_argument("--only", default="upload,round,memory")
parser.add_argument("--runs", type=int, default=7)
parser.add_argument("--upload-mb", type=int, default=512)
parser.add_argument("--round-sites", type=int, default=8)
parser.add_argument("--round-mb", type=int, default=10)
parser.add_argument("--model-mb", type=int, default=64, help="of the memory part")
parser.add_argument("--memory-sites", default="4,16")
parser.add_argument("--folder", type=pathlib.Path, default=None, help="where everything lies (the temporary folder)")
arguments = parser.parse_args()
os.environ["CONSILIUM_BUILD"] = str(arguments.build.resolve())

import python_client  # noqa: E402  (may start itself again under another interpreter)
import harness  # noqa: E402
import test_liar  # noqa: E402

MB = 1000 * 1000
CHUNK = 1 << 20
PEAK_MAX_MB = 128
PER_SITE_MAX_MB = 4


def plan(name, sites, rounds):
    return f"""plan: {name}
federation: horizontal
sites: {{invite: all, minimum: {sites}, approval: 5m, deadline: 6h}}
dataset: {{name: demo-v1, kind: table, features: [age, pressure], label: {{column: y, above: 0}}, missing: drop, standardize: none}}
model: {{kind: logistic_regression}}
training: {{rounds: {rounds}, local_steps: 1, batch_size: 4, optimizer: {{kind: sgd, learning_rate: 0.01}}, loss: bce}}
aggregation: {{method: fedavg, weights: samples}}
evaluation: {{metrics: [accuracy], standardize: [none]}}
retention: {{updates: 1, models: [last]}}
seed: 1
"""


class Tensors:
    """A safetensors file of one F32 tensor that holds one value, made while it is read."""

    def __init__(self, size, value):
        self.values = size // 4
        text = json.dumps({"linear.weight": {"dtype": "F32", "shape": [1, self.values], "data_offsets": [0, 4 * self.values]}}).encode()
        text += b" " * (-len(text) % 8)
        self.header = struct.pack("<Q", len(text)) + text
        self.size = len(self.header) + 4 * self.values
        self.part = struct.pack("<f", value) * (CHUNK // 4)
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        self.sha256 = digest.digest()

    def chunks(self, offset=0):
        if offset == 0:
            yield self.header
            offset = len(self.header)
        while offset < self.size:
            count = min(CHUNK, self.size - offset)
            yield self.part[:count]
            offset += count

    def write(self, path):
        with open(path, "wb") as file:
            for chunk in self.chunks():
                file.write(chunk)
        return path


def fetch(channel, task):
    """Receives the model and drops it."""
    messages = python_client.messages
    request = messages.FetchBlobRequest(hello=python_client.hello(), task=task.key, sha256=task.inputs[0].sha256)
    received = sum(len(chunk.data) for chunk in python_client.federation.FederationStub(channel).FetchBlob(request))
    if received != task.inputs[0].size:
        raise harness.Failed(f"the model has {received} bytes, the task says {task.inputs[0].size}")


def store(channel, key, tensors, name):
    """StoreBlob of bytes that are made on the way: a site without a disk of its own."""
    messages = python_client.messages
    may_send = threading.Event()
    start = []

    def requests():
        yield messages.StoreBlobRequest(hello=python_client.hello(), task=key, sha256=tensors.sha256, size=tensors.size)
        may_send.wait()
        offset = 0
        for chunk in tensors.chunks():
            if start[0] == 0:
                yield messages.StoreBlobRequest(offset=offset, data=chunk)
            offset += len(chunk)

    acks = python_client.federation.FederationStub(channel).StoreBlob(requests())
    first = next(acks)
    start.append(first.durable_offset)
    may_send.set()
    if not first.complete and not any(ack.complete for ack in acks):
        raise harness.Failed("the stream ended before the blob was complete")
    return messages.Blob(name=name, sha256=tensors.sha256, size=tensors.size)


class Sites:
    """Attending sites without data or worker; `train` makes the update of each."""

    def __init__(self, consortium, count, size, train):
        self.size, self.train = size, train
        self.members, self.channels = [], []
        for index in range(count):
            site = consortium.site(f"site-{index:02}")
            if not site.folder.exists():
                site.join()
            keys = site.folder / "keys"
            words = argparse.Namespace(target=f"localhost:{consortium.port}", authority=keys / "authority.crt", cert=keys / "tls.pem",
                                       key=keys / "tls.pem", server_name=None)
            channel, bulk = (python_client.open_channel(argparse.Namespace(**vars(words))) for _ in range(2))
            member = test_liar.Liar(site, channel, self.answer)
            member.bulk, member.number, member.tasks = bulk, index, []
            self.members.append(member)
            self.channels += [channel, bulk]
        consortium.wait_connected(*[member.site.name for member in self.members])

    def answer(self, member, task):
        """What goes wrong here fails the job, with the reason."""
        try:
            return self.work(member, task)
        except Exception as error:  # noqa: BLE001
            messages = python_client.messages
            return [messages.TaskResult(key=task.key, outcome=messages.OUTCOME_FAILED, reason=repr(error)[:250])]

    def work(self, member, task):
        messages = python_client.messages
        common = dict(key=task.key, outcome=messages.OUTCOME_DONE, samples=100, steps=1, loss=0.5)
        if task.key.phase == "initialize":
            outputs = [store(member.bulk, task.key, Tensors(self.size, 0.0), "model")]
            return [messages.TaskResult(**common, outputs=outputs)]
        if task.key.phase == "train":
            outputs = [self.train(member, task)]
            return [messages.TaskResult(**common, outputs=outputs, base_sha256=task.inputs[0].sha256)]
        return [messages.TaskResult(**{**common, "samples": 0, "steps": 0, "loss": 0}, base_sha256=task.inputs[0].sha256)]

    def stop(self):
        for member in self.members:
            member.finish()
        for channel in self.channels:
            channel.close()

    def check(self):
        for member in self.members:
            if member.problem:
                raise harness.Failed(f"{member.site.name}: {member.problem!r}")


def run_job(consortium, name, sites, rounds):
    job = consortium.submit(plan(name, sites, rounds))
    done = consortium.watch_job(job)
    if done["state"] != "complete":
        raise harness.Failed(f"job {done['state']}: {done['reason']}\n{consortium.daemon.text()[-3000:]}")
    return done


def bench(program, *options):
    command = [str(arguments.bench / program), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode != 0:
        raise harness.Failed(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def row(what, figure, goal=""):
    """A line of the table in BENCHMARKS.md."""
    print(f"| {what} | {figure} | {goal} |", flush=True)


# ---- one upload ----

def measure_upload(folder):
    size = arguments.upload_mb * MB
    rates = {"a": [], "b": [], "product": []}

    def train(member, task):
        """One round: the two references, then the product, for the task that is open."""
        number = task.key.round
        for kind, options in (("a", ()), ("b", ("--synced",))):
            rates[kind].append(size / bench("bench_reference", *options, "--up", size, "--folder", folder)["seconds"] / MB)
        file = Tensors(size, float(number)).write(folder / f"update-{number}")
        os.sync()
        done = bench("bench_upload", "--state", member.site.folder, "--job", task.key.job, "--round", number, "--phase", "train",
                     "--file", file)
        rates["product"].append(done["size"] / done["seconds"] / MB)
        return python_client.messages.Blob(name="update", sha256=bytes.fromhex(done["sha256"]), size=done["size"])

    consortium = harness.Consortium(folder)
    try:
        consortium.start()
        sites = Sites(consortium, 1, size, train)
        run_job(consortium, "bench-upload", 1, arguments.runs)
        sites.check()
        sites.stop()
    finally:
        consortium.stop()
    for kind, what in (("a", "(a) bare"), ("b", "(b) hashed and synced"), ("product", "product")):
        row(f"one upload of {arguments.upload_mb} MB, {what}, MB/s", spread(rates[kind], 0))
    for kind, goal in (("a", 0.35), ("b", 0.9)):
        row(f"one upload, product / ({kind})", spread([ours / theirs for ours, theirs in zip(rates["product"], rates[kind])]), f"≥ {goal}")


# ---- a round ----

def measure_round(folder):
    size = arguments.round_mb * MB
    count = arguments.round_sites
    ratios, products, references = [], [], []
    consortium = harness.Consortium(folder)
    try:
        consortium.start()
        names = [f"site-{n}" for n in range(count)]
        for name in names:
            site = consortium.site(name).join()
            harness.write_table(site.folder / "demo.csv", seed=1)
            site.configure(harness.site_yaml(name, consortium).replace("threads: 1", f"threads: 1\nworker: {arguments.bench / 'standin_worker'}"))
            (site.folder / "standin-values").write_text(str(size // 4))
            site.start()
        consortium.wait_connected(*names)
        for run in range(arguments.runs):
            reference = bench("bench_reference", "--synced", "--clients", count, "--down", size, "--up", size, "--folder", folder)["seconds"]
            # The first round also starts the workers, the last also evaluates: those between are taken.
            history = run_job(consortium, f"bench-round-{run}", count, 5)["history"]
            product = statistics.median(entry["duration_ms"] for entry in history[2:5]) / 1000
            references.append(1000 * reference)
            products.append(1000 * product)
            ratios.append(product / reference)
    finally:
        consortium.stop()
    what = f"{count} sites, {arguments.round_mb} MB down and up each"
    row(f"{what}: (b), ms", spread(references, 0))
    row(f"{what}: a whole round, ms", spread(products, 0))
    row("round / (b)", spread(ratios), "≤ 1.3")


# ---- memory ----

def status_mb(pid, field):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) * 1024 / MB


def measure_memory(folder):
    size = arguments.model_mb * MB
    counts = [int(word) for word in arguments.memory_sites.split(",")]
    needed = (max(counts) + 3) * size
    free = shutil.disk_usage(folder).free
    print(f"the memory part needs {needed / 1000 / MB:.1f} GB of disk and another GB to spare; {free / 1000 / MB:.1f} GB are free at {folder}",
          flush=True)
    if free < needed + 1000 * MB:
        print("not run: not enough disk")
        sys.exit(77)
    peaks = {}
    for count in counts:
        state = folder / f"memory-{count}"
        state.mkdir()
        consortium = harness.Consortium(state)
        try:
            consortium.start()

            def train(member, task):
                fetch(member.bulk, task)
                return store(member.bulk, task.key, Tensors(size, 0.001 * (1 + member.number)), "update")

            sites = Sites(consortium, count, size, train)
            idle = status_mb(consortium.daemon.process.pid, "VmRSS")
            run_job(consortium, f"bench-memory-{count}", count, 1)
            sites.check()
            peaks[count] = status_mb(consortium.daemon.process.pid, "VmHWM")
            sites.stop()
            row(f"coordinator, {count} sites, model of {arguments.model_mb} MB: peak resident", f"{peaks[count]:.1f} MB (idle {idle:.1f} MB)",
                f"≤ {PEAK_MAX_MB} MB")
        finally:
            consortium.stop()
            shutil.rmtree(state, ignore_errors=True)
    is_good = max(peaks.values()) <= PEAK_MAX_MB
    if len(peaks) > 1:
        few, many = min(peaks), max(peaks)
        each = (peaks[many] - peaks[few]) / (many - few)
        row("more for each further site", f"{each:.2f} MB", f"≤ {PER_SITE_MAX_MB} MB")
        is_good = is_good and each <= PER_SITE_MAX_MB
    return is_good


def main():
    parts = arguments.only.split(",")
    is_good = True
    with tempfile.TemporaryDirectory() as stubs:
        python_client.load_stubs(stubs)
        for part in parts:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="cs-bench-", dir=arguments.folder))
            try:
                if part == "upload":
                    measure_upload(folder)
                elif part == "round":
                    measure_round(folder)
                elif part == "memory":
                    is_good = measure_memory(folder) and is_good
                else:
                    raise SystemExit(f"--only: there is no part '{part}'")
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
