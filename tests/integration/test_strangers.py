"""Clients that are not ours: one of another make that trains with our hospitals, one of an older protocol, one of none we know."""

import json
import pathlib
import subprocess
import threading
import unittest

import harness
from harness import ConsortiumTest, clean_environment, plan_yaml, run, wait_until

HERE = pathlib.Path(__file__).parent
PROTOCOL_1_0 = HERE / "protocol-1.0"


class Stranger:
    """python_site.py as a process; its events as they come."""

    def __init__(self, test, name):
        self.test, self.name = test, name
        self.folder = test.folder / f"stranger-{name}"
        self.table = test.folder / f"{name}.csv"
        self.events = []

    def run(self, *words, expect=0):
        return run(["python3", HERE / "python_site.py", *words], expect=expect)

    def join(self, *words, expect=0):
        join_file = self.test.folder / f"{self.name}.join"
        join_file.write_text(self.test.consortium.server("token", "new", self.name).stdout)
        return self.run("join", "--state", self.folder, "--join-file", join_file, *words, expect=expect)

    def attend(self, *words):
        harness.write_table(self.table, seed=77)
        command = ["python3", str(HERE / "python_site.py"), "attend", "--state", str(self.folder), "--table", str(self.table), *map(str, words)]
        log = open(self.test.folder / f"{self.name}.log", "w")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True,
                                        env=clean_environment())
        self.test.addCleanup(log.close)
        self.test.addCleanup(self.stop)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        return self

    def read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()

    def of(self, event):
        return [item for item in list(self.events) if item["event"] == event]

    def end(self):
        """The event with which the job ended for the stranger."""
        self.process.wait(harness.PATIENCE_S)
        self.reader.join()
        self.test.assertEqual(self.process.returncode, 0, (self.test.folder / f"{self.name}.log").read_text())
        return self.of("ended")[0]


@unittest.skipIf(run(["python3", HERE / "python_site.py", "--help"], expect=None).returncode == 77, "no grpcio for Python here")
class StrangerTest(ConsortiumTest):
    def train_with(self, name, *words, rounds=4):
        """Two hospitals of ours and a stranger; the job, and the stranger."""
        self.hospitals(2)
        stranger = Stranger(self, name)
        stranger.join(*words)
        stranger.attend(*words)
        wait_until(lambda: name in self.consortium.connected() or stranger.process.poll() is not None, "the stranger to attend")
        job = self.consortium.submit(plan_yaml(rounds=rounds, minimum=3))
        return self.consortium.wait_job(job), stranger

    def assert_folded_like_any_other(self, job, stranger):
        self.assertEqual(job["state"], "complete")
        for entry in job["history"][1:]:
            self.assertEqual(sorted(entry["folded"]), sorted(["hospital-1", "hospital-2", stranger.name]))
            self.assertEqual(entry["not_folded"], [])
        self.assertEqual(stranger.end()["state"], "JOB_COMPLETE")
        verdicts = {(ack["phase"], ack["verdict"]) for ack in stranger.of("ack")}
        self.assertEqual({verdict for _, verdict in verdicts}, {"VERDICT_ACCEPTED"})
        self.assertIn("train", {phase for phase, _ in verdicts})

    def test_a_site_of_another_make_is_folded_like_any_other(self):
        job, stranger = self.train_with("z-stranger")

        self.assert_folded_like_any_other(job, stranger)
        own = [entry for entry in job["history"][-1]["evaluations"] if entry["site"] == "z-stranger" and entry["model"] == "global"]
        pooled = [entry for entry in job["history"][-1]["evaluations"] if entry["site"] is None and entry["model"] == "global"]
        self.assertGreater(own[0]["metrics"]["accuracy"]["value"], 0.6)
        self.assertEqual(pooled[0]["metrics"]["accuracy"]["count"], 60)  # 20 rows held out at each
        self.assertLess(job["history"][-1]["loss"], job["history"][1]["loss"])

    def test_a_site_of_another_make_may_be_the_one_that_begins(self):
        job, stranger = self.train_with("a-stranger", rounds=2)

        self.assert_folded_like_any_other(job, stranger)
        self.assertIn("initialize", {ack["phase"] for ack in stranger.of("ack")})

    def test_a_coordinator_that_dies_costs_a_stranger_nothing(self):
        self.hospitals(2)
        stranger = Stranger(self, "z-stranger")
        stranger.join()
        stranger.attend()
        wait_until(lambda: "z-stranger" in self.consortium.connected(), "the stranger to attend")
        job = self.consortium.submit(plan_yaml(rounds=12, minimum=3))
        wait_until(lambda: len(stranger.of("ack")) >= 3, "the stranger to have trained")

        self.consortium.daemon.kill()
        self.consortium.start()

        self.assert_folded_like_any_other(self.consortium.wait_job(job), stranger)
        self.assertTrue(stranger.of("disconnected"))

    def test_a_client_of_the_previous_minor_is_served_and_sent_nothing_newer(self):
        job, stranger = self.train_with("z-stranger", "--protocol", PROTOCOL_1_0, "--minor", 0, "--features", 0, rounds=2)

        self.assert_folded_like_any_other(job, stranger)
        self.assertEqual(stranger.end()["unknown"], [])
        self.assertGreaterEqual(stranger.of("hello")[0]["minor"], 1)

    def test_what_is_newer_is_seen_by_a_client_that_claims_to_know_it(self):
        """The other half of the test above: there is something newer, and it would have been noticed."""
        job, stranger = self.train_with("z-stranger", "--protocol", PROTOCOL_1_0, "--minor", 1, "--features", 0xFFFF, rounds=1)

        self.assertEqual(job["state"], "complete")
        self.assertNotEqual(stranger.end()["unknown"], [])

    def test_a_client_of_a_later_minor_is_served(self):
        job, stranger = self.train_with("z-stranger", "--minor", 1000, "--features", (1 << 63) | 0xFF00, rounds=1)

        self.assert_folded_like_any_other(job, stranger)

    def test_another_major_is_refused_with_a_sentence_at_both_doors(self):
        stranger = Stranger(self, "z-stranger")

        at_enrolment = stranger.join("--major", 2, expect=1)
        stranger.folder.rename(self.folder / "refused")
        stranger.join()
        harness.write_table(stranger.table, seed=1)
        at_attend = stranger.run("attend", "--state", stranger.folder, "--table", stranger.table, "--major", 2, expect=1)

        self.assertIn("'python_site' speaks protocol 2.0, this is consilium", at_enrolment.stderr)
        self.assertRegex(at_attend.stderr, r"FAILED_PRECONDITION: 'python_site' speaks protocol 2\.0, this is consilium .* with protocol 1\.")


if __name__ == "__main__":
    unittest.main(verbosity=2)
