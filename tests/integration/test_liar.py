"""A site that lies: every kind of bad update is refused by name over the wire, recorded, and the honest sites' round goes on.

The liar is a client of another make (grpcio) with a real site's certificate; the honest hospitals are real agents.
"""

import hashlib
import json
import pathlib
import struct
import sys
import tempfile
import threading
import unittest

import python_client  # starts itself again under another interpreter where grpcio is elsewhere
import harness
from harness import ConsortiumTest, plan_yaml, run, wait_until


def write_safetensors(path, tensors):
    """tensors: [(name, dtype, shape, bytes)]"""
    header, offset = {}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for *_, data in tensors))
    return path


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


WEIGHT = ("linear.weight", "F32", [1, 4], floats(0.1, 0.1, 0.1, 0.1))
BIAS = ("linear.bias", "F32", [1], floats(0.1))
# Each round of the job is one lie: name, tensors of the update, and what the refusal must say.
TENSOR_LIES = [
    ("a value that is no number", [("linear.weight", "F32", [1, 4], floats(0.1, float("nan"), 0, 0)), BIAS], "finite"),
    ("an infinite value", [WEIGHT, ("linear.bias", "F32", [1], floats(float("-inf")))], "finite"),
    ("another shape", [("linear.weight", "F32", [4, 1], floats(0, 0, 0, 0)), BIAS], "shape"),
    ("an unknown tensor", [WEIGHT, BIAS, ("backdoor", "F32", [1], floats(1))], "backdoor"),
    ("a missing tensor", [WEIGHT], "linear.bias"),
    ("another type", [WEIGHT, ("linear.bias", "F64", [1], struct.pack("<d", 0.1))], "F64"),
]


class Liar(threading.Thread):
    """Attends, approves every plan, and answers each task as the test says."""

    def __init__(self, site, channel, answer):
        super().__init__(daemon=True)
        self.site, self.channel, self.answer = site, channel, answer
        self.acks = []
        self.problem = None
        self.attendance = python_client.attend(channel)
        self.start()

    def run(self):
        messages = python_client.messages
        try:
            for message in self.attendance.received:
                kind = message.WhichOneof("body")
                if kind == "offer":
                    self.attendance.send.put(messages.SiteMessage(decision=self.approve(message.offer)))
                elif kind == "task":
                    for result in self.answer(self, message.task):
                        self.attendance.send.put(messages.SiteMessage(result=result))
                elif kind == "ack":
                    self.acks.append((message.ack.key.round, messages.Verdict.Name(message.ack.verdict), message.ack.reason))
        except python_client.grpc.RpcError as error:
            if error.code() != python_client.grpc.StatusCode.CANCELLED:
                self.problem = error
        except Exception as error:  # noqa: BLE001 (a test must hear of it)
            self.problem = error

    def approve(self, offer):
        text = f"consilium-decision-v1\n{offer.job}\n{offer.plan_sha256.hex()}\napproved"
        with tempfile.TemporaryDirectory() as folder:
            message, signature = pathlib.Path(folder, "m"), pathlib.Path(folder, "s")
            message.write_text(text)
            run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.site.folder / "keys" / "signing.key", "-in", message,
                 "-out", signature])
            return python_client.messages.PlanDecision(job=offer.job, plan_sha256=offer.plan_sha256,
                                                       decision=python_client.messages.DECISION_APPROVED,
                                                       signature=signature.read_bytes())

    def result(self, task, path, **changes):
        """An honest-looking result with the file as its update; `changes` replace fields."""
        outputs = []
        if path is not None:
            blob = python_client.store(self.channel, task.key, path)
            blob.name = "update"
            outputs = [blob]
        fields = dict(key=task.key, outcome=python_client.messages.OUTCOME_DONE, base_sha256=task.inputs[0].sha256, outputs=outputs,
                      samples=40, steps=20, loss=0.5)
        return python_client.messages.TaskResult(**{**fields, **changes})

    def finish(self):
        self.attendance.send.put(None)
        self.attendance.received.cancel()
        self.join(10)


class LiarTest(ConsortiumTest):
    def setUp(self):
        super().setUp()
        stubs = tempfile.TemporaryDirectory()
        self.addCleanup(stubs.cleanup)
        if not hasattr(python_client, "messages"):
            python_client.load_stubs(stubs.name)
        self.hospitals(2)
        # Last in name order, so that an honest site makes the first model.
        self.site = self.consortium.site("zz-liar").join()

    def attend(self, answer):
        keys = self.site.folder / "keys"
        words = type("Words", (), dict(target=f"localhost:{self.consortium.port}", authority=keys / "authority.crt",
                                       cert=keys / "tls.pem", key=keys / "tls.pem", server_name=None))
        channel = python_client.open_channel(words)
        self.addCleanup(channel.close)
        liar = Liar(self.site, channel, answer)
        self.addCleanup(liar.finish)
        self.consortium.wait_connected(self.site.name)
        return liar

    def run_job(self, rounds, answer):
        liar = self.attend(answer)
        job = self.consortium.submit(plan_yaml(rounds=rounds, standardize="site"))
        done = self.consortium.wait_job(job)
        self.assertIsNone(liar.problem)
        return liar, done

    def evaluation(self, liar, task):
        return liar.result(task, None, samples=0, steps=0, loss=0)

    def check_refused(self, liar, done, lies):
        """Every lie was refused with its reason, at the liar and in the record; honest sites were folded each time."""
        self.assertEqual(done["state"], "partial", done["reason"])
        for number, (name, says) in enumerate(lies, start=1):
            with self.subTest(lie=name):
                entry = next(entry for entry in done["history"] if entry["round"] == number)
                self.assertEqual(entry["folded"], ["hospital-1", "hospital-2"])
                self.assertEqual([lost["site"] for lost in entry["not_folded"]], ["zz-liar"])
                self.assertIn(says, entry["not_folded"][0]["reason"])
                self.assertTrue(any(at == number and verdict == "VERDICT_REFUSED" and says in reason
                                    for at, verdict, reason in liar.acks), liar.acks)
        transcript = (self.consortium.state / "audit" / "transcript.jsonl").read_text()
        refused = [record for record in map(json.loads, transcript.splitlines()) if record["kind"] == "result_refused"]
        self.assertEqual(len(refused), len(lies))

    def test_lies_in_the_tensors_are_refused_by_name_and_the_round_goes_on(self):
        def answer(liar, task):
            if task.key.phase != "train":
                return [self.evaluation(liar, task)]
            _, tensors, _ = TENSOR_LIES[task.key.round - 1]
            return [liar.result(task, write_safetensors(self.folder / "lie.safetensors", tensors))]

        liar, done = self.run_job(len(TENSOR_LIES), answer)

        self.check_refused(liar, done, [(name, says) for name, _, says in TENSOR_LIES])

    def test_lies_about_the_files_are_refused_by_name_and_the_round_goes_on(self):
        honest = write_safetensors(self.folder / "honest.safetensors", [WEIGHT, BIAS])
        garbage = self.folder / "garbage"
        garbage.write_bytes(bytes(range(256)))
        cut = self.folder / "cut"
        cut.write_bytes(honest.read_bytes()[:-1])

        def other_size(liar, task):
            result = liar.result(task, honest)
            result.outputs[0].size += 1
            return result

        def never_stored(liar, task):
            blob = python_client.messages.Blob(name="update", sha256=hashlib.sha256(b"nothing").digest(), size=7)
            return liar.result(task, None, outputs=[blob])

        lies = [
            ("no safetensors file", lambda liar, task: liar.result(task, garbage), "header"),
            ("a cut file", lambda liar, task: liar.result(task, cut), "bytes"),
            ("a stale base", lambda liar, task: liar.result(task, honest, base_sha256=hashlib.sha256(b"old").digest()), "base"),
            ("another size", other_size, "181"),
            ("a blob that was never stored", never_stored, "not stored"),
            ("no samples", lambda liar, task: liar.result(task, honest, samples=0), "samples"),
            ("a loss that is no number", lambda liar, task: liar.result(task, honest, loss=float("nan")), "loss"),
        ]

        def answer(liar, task):
            if task.key.phase != "train":
                return [self.evaluation(liar, task)]
            return [lies[task.key.round - 1][1](liar, task)]

        liar, done = self.run_job(len(lies), answer)

        self.check_refused(liar, done, [(name, says) for name, _, says in lies])

    def test_bytes_that_are_not_what_they_were_announced_as_are_not_kept(self):
        honest = write_safetensors(self.folder / "honest.safetensors", [WEIGHT, BIAS])
        refusals = []

        def answer(liar, task):
            if task.key.phase != "train":
                return [self.evaluation(liar, task)]
            try:
                python_client.store(liar.channel, task.key, honest, sha256=hashlib.sha256(b"other").hexdigest())
            except python_client.grpc.RpcError as error:
                refusals.append((error.code(), error.details()))
            return [liar.result(task, honest)]

        _, done = self.run_job(1, answer)

        self.assertEqual(done["state"], "complete")
        self.assertEqual([code for code, _ in refusals], [python_client.grpc.StatusCode.DATA_LOSS])
        other = hashlib.sha256(b"other").hexdigest()
        self.assertEqual(list((self.consortium.state / "blobs").rglob(f"*{other}*")), [])

    def test_the_same_result_again_is_the_same_answer_and_another_is_a_conflict(self):
        first = write_safetensors(self.folder / "first.safetensors", [WEIGHT, BIAS])
        second = write_safetensors(self.folder / "second.safetensors", [WEIGHT, ("linear.bias", "F32", [1], floats(9))])

        sent = []

        def answer(liar, task):
            if task.key.phase != "train":
                return [*sent, self.evaluation(liar, task)]  # after its answer; before it, two are one question
            sent.append(liar.result(task, first))
            return [*sent, liar.result(task, second)]

        liar, done = self.run_job(1, answer)
        verdicts = wait_until(lambda: liar.acks if len(liar.acks) >= 4 else None, "four answers")

        self.assertEqual(done["state"], "complete")
        self.assertEqual([verdict for _, verdict, _ in verdicts].count("VERDICT_ACCEPTED"), 3)
        self.assertEqual([verdict for _, verdict, _ in verdicts].count("VERDICT_CONFLICT"), 1)

    def test_a_site_cannot_store_for_a_task_that_is_not_its_own(self):
        liar = self.attend(lambda liar, task: [])
        honest = write_safetensors(self.folder / "honest.safetensors", [WEIGHT, BIAS])
        key = python_client.messages.TaskKey(job="no-such-job", round=1, phase="train")

        with self.assertRaises(python_client.grpc.RpcError) as refused:
            python_client.store(liar.channel, key, honest)

        self.assertIn(refused.exception.code(), (python_client.grpc.StatusCode.NOT_FOUND, python_client.grpc.StatusCode.PERMISSION_DENIED))

    def test_a_newer_session_of_a_site_ends_the_older_one(self):
        older = self.attend(lambda liar, task: [])
        newer = self.attend(lambda liar, task: [])

        older.join(20)

        self.assertFalse(older.is_alive())
        self.assertIsNone(older.problem)
        self.assertTrue(newer.is_alive())

    def test_hostile_traffic_is_refused_and_honest_sites_do_not_notice(self):
        keys = self.site.folder / "keys"
        identity = ["--target", f"localhost:{self.consortium.port}", "--authority", keys / "authority.crt", "--cert", keys / "tls.pem",
                    "--key", keys / "tls.pem"]
        for kind in ("oversized", "compressed", "malformed", "no-hello"):
            with self.subTest(kind=kind):
                run([sys.executable, pathlib.Path(__file__).with_name("python_client.py"), "bad", *identity, "--kind", kind])
                self.assertTrue(self.consortium.answers())
        self.assertLessEqual({"hospital-1", "hospital-2"}, self.consortium.connected())


if __name__ == "__main__":
    unittest.main(verbosity=2)
