#!/usr/bin/env python3
"""A site of another make: enrols, attends, decides, fetches, trains, stores and answers, with what docs/protocol.md says and
nothing of Consilium's code. Python's grpcio with stubs of proto/ (or of an older proto/), openssl for keys, PyYAML for the plan.

    python_site.py join   --state DIR --join-file FILE
    python_site.py attend --state DIR --table FILE [--protocol DIR --minor 0 --features 0]

It trains logistic regression on a table with a column `fold`, whose value `test` holds a row out. `attend` ends with the first job
and prints what happened, one JSON object a line. Exit codes: 0; 1 the coordinator refused; 77 no grpcio here.
"""

import argparse
import csv
import hashlib
import json
import math
import pathlib
import random
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

import python_client
from python_client import Attendance, Refused

import grpc
import yaml

TRY_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
ENDED = ("JOB_COMPLETE", "JOB_PARTIAL", "JOB_FAILED", "JOB_CANCELLED")


def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


def openssl(*words, stdin=None):
    return subprocess.run(["openssl", *map(str, words)], input=stdin, check=True, capture_output=True).stdout


# ---- keys and enrolment ----

class State:
    """What the site keeps: two keys that never leave it, its certificate, the authority, and where the coordinator is."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.tls_key, self.signing_key = self.folder / "tls.key", self.folder / "signing.key"
        self.certificate, self.authority = self.folder / "site.crt", self.folder / "authority.crt"

    def make_keys(self):
        self.folder.mkdir(mode=0o700, exist_ok=True)
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self.tls_key)
        openssl("genpkey", "-algorithm", "ED25519", "-out", self.signing_key)

    def csr(self):
        return openssl("req", "-new", "-key", self.tls_key, "-subj", "/CN=site", "-outform", "DER")

    def public_key(self):
        return openssl("pkey", "-in", self.signing_key, "-pubout", "-outform", "DER")[-32:]  # RFC 8410: the last 32 bytes

    def sign(self, text):
        with tempfile.NamedTemporaryFile() as file:
            file.write(text)
            file.flush()
            return openssl("pkeyutl", "-sign", "-inkey", self.signing_key, "-rawin", "-in", file.name)

    def channel(self):
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes(), self.tls_key.read_bytes(), self.certificate.read_bytes())
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 2 << 20),
                   ("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        return grpc.secure_channel((self.folder / "coordinator").read_text(), credentials, options)


def read_join_file(path):
    head, _, rest = path.read_text().partition("-----BEGIN")
    words = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    return words, "-----BEGIN" + rest


def base64url(text):
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def read_exact(stream, size):
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise Refused("the enrolment port closed the connection")
        data += part
    return data


def run_join(words):
    state = State(words.state)
    join, authority = read_join_file(words.join_file)
    state.make_keys()
    token, csr = base64url(join["token"]), state.csr()
    text = b"consilium-enrol-v1\n" + join["site"].encode() + b"\n" + hashlib.sha256(token).digest() + hashlib.sha256(csr).digest()
    request = messages.EnrolRequest(hello=hello(words), site=join["site"], token=token, csr=csr, signing_key=state.public_key(),
                                    proof=state.sign(text)).SerializeToString()
    host, _, port = join["enrolment"].rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    with context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=host) as stream:
        stream.sendall(struct.pack(">I", len(request)) + request)
        answer = messages.EnrolAnswer.FromString(read_exact(stream, struct.unpack(">I", read_exact(stream, 4))[0]))
    if answer.code != 0:
        raise Refused(f"code {answer.code}: {answer.error}")
    state.certificate.write_bytes(answer.certificate)
    state.authority.write_text(authority)
    (state.folder / "site").write_text(join["site"])
    (state.folder / "coordinator").write_text(answer.coordinator or join["coordinator"])
    say("joined", site=join["site"], consortium=answer.consortium)


# ---- safetensors ----

FORMATS = {"F64": "d", "F32": "f"}


def read_tensors(data):
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            code = FORMATS[entry["dtype"]]
            tensors[name] = [value for (value,) in struct.iter_unpack("<" + code, body[begin:end])]
    return tensors


def write_tensors(tensors):
    """`tensors`: name → (dtype, shape, values), wider dtypes first."""
    header, body = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        part = struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(part)]}
        body += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


# ---- learning ----

def read_rows(path, dataset):
    """Features as the plan expands them, and labels; a row that lacks a used value is dropped. Two lists: train, test."""
    parts = {"train": [], "test": []}
    label = dataset["label"]
    for record in csv.DictReader(path.open(newline="")):
        features = []
        names = [feature if isinstance(feature, str) else feature["name"] for feature in dataset["features"]]
        if any(record[name] == "" for name in [*names, label["column"]]):
            continue
        for feature, name in zip(dataset["features"], names):
            value = float(record[name])
            levels = [] if isinstance(feature, str) else feature.get("levels", [])
            features += [1.0 if value == level else 0.0 for level in levels] if levels else [value]
        value = float(record[label["column"]])
        is_positive = value > label["above"] if "above" in label else value in label["positive"]
        parts["test" if record["fold"] == "test" else "train"].append((features, 1.0 if is_positive else 0.0))
    return parts


def sums_of(rows):
    columns = list(zip(*[features for features, _ in rows]))
    return len(rows), [sum(column) for column in columns], [sum(value * value for value in column) for column in columns]


def standardized(rows, count, sums, squares):
    """(x − mean) / (std + 1e-9), std unbiased."""
    scale = []
    for total, square in zip(sums, squares):
        mean = total / count
        scale.append((mean, math.sqrt(max((square - count * mean * mean) / (count - 1), 0.0)) + 1e-9))
    return [([(value - mean) / std for value, (mean, std) in zip(features, scale)], label) for features, label in rows]


def probability(weights, bias, features):
    logit = bias + sum(weight * value for weight, value in zip(weights, features))
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def log_loss(p, label):
    return -math.log(max(p if label else 1 - p, 1e-12))


def train(rows, weights, bias, training, seed):
    """Stochastic gradient descent on the mean cross-entropy of each batch."""
    rate, size = training["optimizer"]["learning_rate"], training["batch_size"]
    generator, order, losses = random.Random(seed), [], []
    for _ in range(training["local_steps"]):
        if not order:
            order = generator.sample(rows, len(rows))
        batch, order = order[:size], order[size:]
        slopes, slope = [0.0] * len(weights), 0.0
        loss = 0.0
        for features, label in batch:
            p = probability(weights, bias, features)
            loss += log_loss(p, label) / len(batch)
            slope += (p - label) / len(batch)
            slopes = [old + (p - label) * value / len(batch) for old, value in zip(slopes, features)]
        weights = [weight - rate * gradient for weight, gradient in zip(weights, slopes)]
        bias -= rate * slope
        losses.append(loss)
    return weights, bias, sum(losses) / len(losses)


def evaluation(rows, weights, bias, model, standardize):
    """`value` is `sum` / `count`: such metrics the coordinator pools over the sites."""
    scored = [(probability(weights, bias, features), label) for features, label in rows]
    sums = {"accuracy": sum((p >= 0.5) == (label > 0.5) for p, label in scored),
            "brier": sum((p - label) ** 2 for p, label in scored),
            "log_loss": sum(log_loss(p, label) for p, label in scored)}
    metrics = [messages.Metric(name=name, value=total / len(rows), sum=total, count=len(rows), pools=True, is_defined=True)
               for name, total in sums.items()]
    return messages.Evaluation(model=model, split="test", standardize=standardize, metrics=metrics)


# ---- the site ----

class Site:
    def __init__(self, words):
        self.words = words
        self.state = State(words.state)
        self.name = (self.state.folder / "site").read_text()
        self.plans = self.state.folder / "plans"  # by hash; only what was approved
        self.results = self.state.folder / "results"  # until they are acknowledged, through restarts of either side
        self.plans.mkdir(exist_ok=True)
        self.results.mkdir(exist_ok=True)
        self.unknown = []  # bodies that had more in them than this protocol knows

    def note_unknown(self, message):
        """What is not in the schema that this client was made with is kept by protobuf; here it must not come at all."""
        known = type(message).FromString(message.SerializeToString())
        known.DiscardUnknownFields()
        if known.SerializeToString() != message.SerializeToString():
            self.unknown.append(f"{type(message).__name__}: {message!s:.60}")
        return message

    def decide(self, offer):
        reason, plan = "", None
        if hashlib.sha256(offer.plan).digest() != offer.plan_sha256:
            reason = "the plan's bytes are not those of its hash"
        else:
            plan = yaml.safe_load(offer.plan)
            if plan["federation"] != "horizontal" or plan["model"]["kind"] != "logistic_regression":
                reason = "this site knows horizontal logistic regression only"
        word = "refused" if reason else "approved"
        if not reason:
            (self.plans / offer.plan_sha256.hex()).write_bytes(offer.plan)
        signature = self.state.sign(f"consilium-decision-v1\n{offer.job}\n{offer.plan_sha256.hex()}\n{word}".encode())
        say("decided", job=offer.job, decision=word, reason=reason)
        return messages.PlanDecision(job=offer.job, plan_sha256=offer.plan_sha256, reason=reason, signature=signature,
                                     decision=messages.DECISION_REFUSED if reason else messages.DECISION_APPROVED)

    def fetch(self, channel, task, name):
        blob = next(blob for blob in task.inputs if blob.name == name)
        request = messages.FetchBlobRequest(hello=hello(self.words), task=task.key, sha256=blob.sha256, offset=0)
        chunks = python_client.federation.FederationStub(channel).FetchBlob(request, timeout=60)
        data = b"".join(self.note_unknown(chunk).data for chunk in chunks)
        if hashlib.sha256(data).digest() != blob.sha256:
            raise Refused(f"the blob '{name}' is not the one of its hash")
        return blob.sha256, read_tensors(data)

    def store(self, channel, task, name, data):
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            blob = python_client.store(channel, task.key, pathlib.Path(file.name), say=lambda text: None)
        blob.name = name
        return blob

    def scaled(self, channel, task, plan, rows, by):
        how = plan["dataset"]["standardize"]
        if how == "none":
            return rows
        if how == "site":
            return standardized(rows, *sums_of(by))
        _, sums = self.fetch(channel, task, "statistics")
        return standardized(rows, sums["count"][0], sums["sum"], sums["sum_squares"])

    def run(self, channel, task):
        """The result of a task, its blobs stored. docs/protocol.md, "What a horizontal job asks"."""
        plan = yaml.safe_load((self.plans / task.plan_sha256.hex()).read_bytes())  # nothing runs that was not approved
        parts = read_rows(self.words.table, plan["dataset"])
        columns = len(parts["train"][0][0])
        result = messages.TaskResult(key=task.key, outcome=messages.OUTCOME_DONE, build="python_site", is_deterministic=False)
        if task.key.phase == "initialize":
            model = write_tensors({"linear.weight": ("F32", [1, columns], [0.0] * columns), "linear.bias": ("F32", [1], [0.0])})
            result.outputs.append(self.store(channel, task, "model", model))
        elif task.key.phase == "statistics":
            count, sums, squares = sums_of(parts["train"])
            statistics = write_tensors({"count": ("F64", [1], [float(count)]), "sum": ("F64", [columns], sums),
                                        "sum_squares": ("F64", [columns], squares)})
            result.samples = count
            result.outputs.append(self.store(channel, task, "statistics", statistics))
        elif task.key.phase in ("train", "evaluate"):
            result.base_sha256, model = self.fetch(channel, task, "model")
            weights, bias = model["linear.weight"], model["linear.bias"][0]
            how = plan["dataset"]["standardize"]
            test = self.scaled(channel, task, plan, parts["test"], parts["train"])
            result.evaluations.append(evaluation(test, weights, bias, "global", how))
            if task.key.phase == "train":
                rows = self.scaled(channel, task, plan, parts["train"], parts["train"])
                new, new_bias, result.loss = train(rows, weights, bias, plan["training"], f"{self.name} {task.key.round}")
                result.evaluations.append(evaluation(test, new, new_bias, "local", how))
                update = {"linear.weight": ("F32", [1, columns], [after - before for after, before in zip(new, weights)]),
                          "linear.bias": ("F32", [1], [new_bias - bias])}
                result.samples, result.steps = len(rows), plan["training"]["local_steps"]
                result.outputs.append(self.store(channel, task, "update", write_tensors(update)))
        else:
            result.outcome, result.reason = messages.OUTCOME_FAILED, f"this site knows no phase '{task.key.phase}'"
        return result

    def attend(self):
        """To the end of the first job; a broken line is dialled again, with jittered back-off."""
        for attempt in range(20):
            try:
                return self.session()
            except grpc.RpcError as error:
                if error.code() not in TRY_AGAIN or attempt == 19:
                    raise
                say("disconnected", code=error.code().name)
            time.sleep(random.uniform(0, min(0.2 * 2**attempt, 5)))

    def session(self):
        """Progress and bulk data go over connections of their own."""
        with self.state.channel() as control, self.state.channel() as bulk:
            kept = [messages.TaskResult.FromString(path.read_bytes()) for path in sorted(self.results.iterdir())]
            state = messages.SiteState(held=[result.key for result in kept], confinement="none: python_site", build="python_site")
            first = [messages.SiteMessage(hello=hello(self.words)), messages.SiteMessage(state=state)]
            with Attendance(control, *first, *[messages.SiteMessage(result=result) for result in kept]) as attendance:
                for message in attendance.received:
                    self.note_unknown(message)
                    if self.handle(message, attendance, bulk):
                        return
        raise Refused("the stream ended before a job did")

    def result_file(self, key):
        return self.results / f"{key.job}-{key.round:06}-{key.phase}"

    def handle(self, message, attendance, bulk):
        """True when the job has ended."""
        body = message.WhichOneof("body")
        if body == "hello":
            say("hello", minor=message.hello.minor, features=message.hello.features)
        elif body == "offer":
            attendance.send.put(messages.SiteMessage(decision=self.decide(message.offer)))
        elif body == "task":
            key = message.task.key
            stage = messages.STAGE_EVALUATING if key.phase == "evaluate" else messages.STAGE_TRAINING
            attendance.send.put(messages.SiteMessage(progress=messages.TaskProgress(key=key, stage=stage, total=1)))
            if not self.result_file(key).exists():  # assigned again after a reconnect: the same bytes again
                self.result_file(key).write_bytes(self.run(bulk, message.task).SerializeToString())
            attendance.send.put(messages.SiteMessage(result=messages.TaskResult.FromString(self.result_file(key).read_bytes())))
        elif body == "ack":
            self.result_file(message.ack.key).unlink(missing_ok=True)
            say("ack", round=message.ack.key.round, phase=message.ack.key.phase, reason=message.ack.reason,
                verdict=messages.Verdict.Name(message.ack.verdict))
        elif body == "goodbye":
            raise Refused(f"goodbye: {message.goodbye.reason}")
        elif body == "job" and messages.JobState.Name(message.job.state) in ENDED:
            say("ended", job=message.job.job, state=messages.JobState.Name(message.job.state), unknown=self.unknown)
            return True
        return False


# ---- the command line ----

def hello(words):
    return messages.Hello(major=words.major, minor=words.minor, features=words.features, software="python_site")


def parse(arguments):
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", type=pathlib.Path, required=True)
    common.add_argument("--protocol", type=pathlib.Path, default=python_client.PROTO, help="folder of the federation.proto to speak")
    common.add_argument("--major", type=int, default=1)
    common.add_argument("--minor", type=int, default=0)
    common.add_argument("--features", type=int, default=0)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("join", parents=[common])
    one.add_argument("--join-file", type=pathlib.Path, required=True)
    one.set_defaults(run=run_join)
    one = commands.add_parser("attend", parents=[common])
    one.add_argument("--table", type=pathlib.Path, required=True)
    one.set_defaults(run=lambda words: Site(words).attend())
    return parser.parse_args(arguments)


def main(arguments):
    words = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        python_client.load_stubs(folder, words.protocol)
        globals().update(messages=python_client.messages)
        try:
            words.run(words)
        except grpc.RpcError as error:
            print(f"refused: {error.code().name}: {error.details()}", file=sys.stderr)
            return 1
        except Refused as refusal:
            print(f"refused: {refusal}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
