#!/usr/bin/env python3
"""A client of another make: Python's grpcio and stubs generated from proto/ while it runs. Nothing of Consilium's own code.

It shows that any gRPC client with our .proto can talk to a coordinator, and it does what an honest site would not. Each
command exits 0 when the coordinator did what was asked, 1 when it refused (the sentence says how), 2 when the command line is
wrong, 77 when this machine has no grpcio.

    python_client.py health --target localhost:8443 --authority authority.crt --cert site.pem --key site.pem
    python_client.py attend … --seconds 5
    python_client.py store  … --job J --round 1 --phase train --file update.safetensors
    python_client.py result … --job J --round 1 --phase train --output update=update.safetensors --samples 100
    python_client.py bad    … --kind oversized | compressed | malformed | no-hello
"""

import argparse
import hashlib
import os
import pathlib
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
CHUNK = 1024 * 1024
PATIENCE_S = 60

try:
    import grpc
    from grpc_tools import protoc  # noqa: F401  (only to know that it is there)
except ImportError:
    # Another python3 may stand first in the path than the one that Debian's python3-grpcio belongs to.
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])
    print("not run: python3-grpcio and python3-grpc-tools are not installed", file=sys.stderr)
    sys.exit(77)


class Refused(Exception):
    """The coordinator said no, or could not be reached."""


def load_stubs(folder, proto=PROTO):
    """`proto`: where federation.proto lies, of this version or an older one."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", f"-I{PROTO}", f"--python_out={folder}",
               f"--grpc_python_out={folder}"]
    subprocess.run([*command, str(proto / "federation.proto"), str(PROTO / "health.proto")], check=True)
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    import federation_pb2
    import federation_pb2_grpc
    import health_pb2
    import health_pb2_grpc

    globals().update(messages=federation_pb2, federation=federation_pb2_grpc, health=health_pb2, health_service=health_pb2_grpc)


def pem_blocks(path, what):
    """Key and certificate may share a file; each side of TLS wants its own part."""
    found = re.findall(rb"-----BEGIN [A-Z ]*%s-----.*?-----END [A-Z ]*%s-----\n?" % (what, what), path.read_bytes(), re.S)
    if not found:
        raise SystemExit(f"{path}: no {what.decode()} in it")
    return b"".join(found)


def open_channel(words):
    if words.target.startswith("unix:"):
        return grpc.insecure_channel(words.target)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=pem_blocks(words.authority, b"CERTIFICATE"),
        private_key=pem_blocks(words.key, b"PRIVATE KEY") if words.key else None,
        certificate_chain=pem_blocks(words.cert, b"CERTIFICATE") if words.cert else None,
    )
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 2 << 20)]
    if words.server_name:
        options.append(("grpc.ssl_target_name_override", words.server_name))
    return grpc.secure_channel(words.target, credentials, options)


def hello():
    return messages.Hello(major=1, minor=0, features=0, software="python_client")


def task_key(words):
    return messages.TaskKey(job=words.job, round=words.round, phase=words.phase)


def run_health(channel, words):
    answer = health_service.HealthStub(channel).Check(health.HealthCheckRequest(service=words.service), timeout=PATIENCE_S)
    name = health.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(name)
    if name != "SERVING":
        raise Refused(f"the coordinator is {name}")


class Attendance:
    """An Attend stream: what is put into `send` goes out, what comes in is iterated."""

    def __init__(self, channel, *first):
        self.send = queue.SimpleQueue()
        for message in first:
            self.send.put(message)
        self.received = federation.FederationStub(channel).Attend(iter(self.send.get, None))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.send.put(None)
        self.received.cancel()


def attend(channel):
    state = messages.SiteState(confinement="none: python_client", build="python_client")
    return Attendance(channel, messages.SiteMessage(hello=hello()), messages.SiteMessage(state=state))


def run_attend(channel, words):
    end = time.monotonic() + words.seconds
    with attend(channel) as attendance:
        timer = threading.Timer(max(0.0, end - time.monotonic()), attendance.received.cancel)
        timer.start()
        try:
            for message in attendance.received:
                print(message.WhichOneof("body"), flush=True)
                if message.WhichOneof("body") == "goodbye":
                    raise Refused(f"goodbye: {message.goodbye.reason}")
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED or time.monotonic() < end:
                raise
        finally:
            timer.cancel()


def store(channel, key, path, size=None, sha256=None, say=print):
    """StoreBlob as the protocol has it: announce, learn the offset, send the rest, wait for `complete`."""
    data = path.read_bytes()
    claimed_size = len(data) if size is None else size
    claimed_hash = hashlib.sha256(data).digest() if sha256 is None else bytes.fromhex(sha256)
    requests = queue.SimpleQueue()
    requests.put(messages.StoreBlobRequest(hello=hello(), task=key, sha256=claimed_hash, size=claimed_size))
    acks = federation.FederationStub(channel).StoreBlob(iter(requests.get, None), timeout=PATIENCE_S)
    try:
        first = next(acks)
        say(f"go on from {first.durable_offset}")
        for offset in range(first.durable_offset, len(data), CHUNK) if not first.complete else ():
            requests.put(messages.StoreBlobRequest(offset=offset, data=data[offset : offset + CHUNK]))
        requests.put(None)
        is_complete = first.complete or any(ack.complete for ack in acks)
    finally:
        requests.put(None)
    if not is_complete:
        raise Refused("the stream ended before the blob was complete")
    return messages.Blob(sha256=claimed_hash, size=claimed_size)


def run_store(channel, words):
    blob = store(channel, task_key(words), words.file, words.claim_size, words.claim_sha256)
    print(f"stored sha256:{blob.sha256.hex()} {blob.size}")


def run_result(channel, words):
    outputs = []
    for output in words.output:
        name, _, path = output.partition("=")
        blob = store(channel, task_key(words), pathlib.Path(path))
        blob.name = name
        outputs.append(blob)
    result = messages.TaskResult(
        key=task_key(words), outcome=messages.OUTCOME_DONE, outputs=outputs, samples=words.samples, steps=1,
        loss=words.loss, base_sha256=bytes.fromhex(words.base) if words.base else b"", build="python_client",
    )
    with attend(channel) as attendance:
        attendance.send.put(messages.SiteMessage(result=result))
        for message in attendance.received:
            if message.WhichOneof("body") == "ack" and message.ack.key == result.key:
                verdict = messages.Verdict.Name(message.ack.verdict)
                print(verdict, message.ack.reason)
                if verdict != "VERDICT_ACCEPTED":
                    raise Refused(f"{verdict}: {message.ack.reason}")
                return
    raise Refused("the stream ended without an answer to the result")


def raw_attend(channel, payloads, **options):
    call = channel.stream_stream("/consilium.v1.Federation/Attend", request_serializer=bytes, response_deserializer=bytes)
    return call(iter(payloads), timeout=PATIENCE_S, **options)


def run_bad(channel, words):
    """Exits 0 when the coordinator ended the call as it should."""
    good = messages.SiteMessage(hello=hello()).SerializeToString()
    expected = {
        "oversized": (grpc.StatusCode.RESOURCE_EXHAUSTED, [good, good + b"\x7a" + b"\xff\xff\x7f" + bytes(0x1FFFFF)]),
        "malformed": (grpc.StatusCode.INVALID_ARGUMENT, [b"\x0a\x05\xff"]),
        "compressed": (grpc.StatusCode.UNIMPLEMENTED, [messages.SiteMessage(hello=messages.Hello(software="x" * 4096)).SerializeToString()]),
        "no-hello": (None, [messages.SiteMessage(state=messages.SiteState()).SerializeToString()]),
    }
    code, payloads = expected[words.kind]
    options = {"compression": grpc.Compression.Gzip} if words.kind == "compressed" else {}
    try:
        for _ in raw_attend(channel, payloads, **options):
            pass
    except grpc.RpcError as error:
        if code is not None and error.code() != code:
            raise
        print(f"ended with {error.code().name}: {error.details()}")
        return
    raise Refused(f"a {words.kind} message was taken")


def parse(arguments):
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--target", required=True, help="HOST:PORT or unix:PATH")
    common.add_argument("--authority", type=pathlib.Path, help="PEM of the consortium's authority")
    common.add_argument("--cert", type=pathlib.Path)
    common.add_argument("--key", type=pathlib.Path)
    common.add_argument("--server-name", help="name the server's certificate must bear")
    task = argparse.ArgumentParser(add_help=False)
    task.add_argument("--job", required=True)
    task.add_argument("--round", type=int, required=True)
    task.add_argument("--phase", required=True)

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("health", parents=[common])
    one.add_argument("--service", default="")
    one.set_defaults(run=run_health)
    one = commands.add_parser("attend", parents=[common])
    one.add_argument("--seconds", type=float, default=5)
    one.set_defaults(run=run_attend)
    one = commands.add_parser("store", parents=[common, task])
    one.add_argument("--file", type=pathlib.Path, required=True)
    one.add_argument("--claim-size", type=int, help="say this instead of the file's size")
    one.add_argument("--claim-sha256", help="say this instead of the file's hash")
    one.set_defaults(run=run_store)
    one = commands.add_parser("result", parents=[common, task])
    one.add_argument("--output", action="append", default=[], metavar="NAME=FILE")
    one.add_argument("--samples", type=int, default=1)
    one.add_argument("--loss", type=float, default=0.5)
    one.add_argument("--base", help="hash of the model the task started from, hex")
    one.set_defaults(run=run_result)
    one = commands.add_parser("bad", parents=[common])
    one.add_argument("--kind", choices=["oversized", "compressed", "malformed", "no-hello"], required=True)
    one.set_defaults(run=run_bad)
    words = parser.parse_args(arguments)
    if not words.target.startswith("unix:") and not words.authority:
        parser.error("--authority is needed for a TLS target")
    return words


def main(arguments):
    words = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        load_stubs(folder)
        with open_channel(words) as channel:
            try:
                words.run(channel, words)
            except grpc.RpcError as error:
                print(f"refused: {error.code().name}: {error.details()}", file=sys.stderr)
                return 1
            except Refused as refusal:
                print(f"refused: {refusal}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
