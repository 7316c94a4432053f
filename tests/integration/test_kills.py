"""`kill -9` of coordinator, agent and worker at random moments: the job ends by itself, with the same bytes.

The seed is printed with every failure and repeats the moments: CONSILIUM_TEST_SEED=… CONSILIUM_TEST_KILLS=… (default ten of each).
"""

import os
import random
import signal
import subprocess
import time
import unittest

import harness
from harness import ConsortiumTest, plan_yaml, wait_until

SEED = int(os.environ.get("CONSILIUM_TEST_SEED", "20260301"))
KILLS = int(os.environ.get("CONSILIUM_TEST_KILLS", "10"))
# All sites must be folded in every round and the deadline cannot expire: the model may not depend on the kills.
PLAN = dict(rounds=60, steps=60, minimum=3, deadline="1h")


class KillTest(ConsortiumTest):
    def setUp(self):
        super().setUp()
        self.moments = random.Random(SEED)
        self.sites = self.hospitals(3)
        job = self.consortium.submit(plan_yaml(**PLAN))
        self.assertEqual(self.consortium.wait_job(job)["state"], "complete")
        self.undisturbed = self.consortium.model_hash(job)

    def state_of(self, job):
        try:
            return self.consortium.job(job)["state"]
        except harness.Failed:
            return "unknown"

    def trial(self, kill):
        """Kills at random moments of as many jobs as it takes; every one of them must end with the same model."""
        killed = 0
        while killed < KILLS:
            job = self.consortium.submit(plan_yaml(**PLAN))
            wait_until(lambda: self.consortium.job(job)["state"] == "running", "the job to run")
            while killed < KILLS and self.state_of(job) == "running":
                time.sleep(self.moments.uniform(0.0, 0.35))  # the random moment itself
                if self.state_of(job) != "running":
                    break
                if kill():
                    killed += 1
            done = self.consortium.wait_job(job)
            context = f"seed {SEED}, {killed} kills, job {job}: {done['reason']}"
            self.assertEqual(done["state"], "complete", context)
            self.assertEqual(self.consortium.model_hash(job), self.undisturbed, context)
        print(f"{self.id()}: {killed} kills, same model {self.undisturbed[:16]}…", flush=True)

    def test_coordinator_killed_at_random_moments(self):
        def kill():
            self.consortium.daemon.kill()
            self.consortium.start()
            return True
        self.trial(kill)

    def test_agent_killed_at_random_moments(self):
        def kill():
            site = self.moments.choice(self.sites)
            site.daemon.kill()
            site.start()
            return True
        self.trial(kill)

    def test_worker_killed_at_random_moments(self):
        def kill():
            pids = self.moments.choice(self.sites).worker_pids()
            if not pids:
                return False
            try:
                os.kill(pids[0], signal.SIGKILL)
            except ProcessLookupError:
                return False
            return True
        self.trial(kill)


class PhaseTest(ConsortiumTest):
    """The coordinator dies exactly at each named place where it changes its state or its files."""

    # What this run never passes: late answers and deadlines, removals, blobs that the coordinator itself puts in, and the
    # syncs inside an upload of more than 4 MiB.
    NOT_PASSED = {"engine.deadline", "engine.late", "blobs.put", "blobs.remove", "blobs.sync", "blobs.synced"}

    def test_coordinator_killed_at_each_failpoint_of_the_engine(self):
        names = sorted(self.failpoints() - self.NOT_PASSED)
        self.assertGreaterEqual(len(names), 20)
        self.hospitals(2)
        survived = set()
        for seed, name in enumerate(names, start=100):
            with self.subTest(failpoint=name):
                # A seed of its own: blobs that are there already would not be stored again.
                plan = plan_yaml(rounds=3, minimum=2, deadline="1h").replace("seed: 42", f"seed: {seed}")
                # The second passage, but for what is passed once in a job or new with each blob.
                passage = 1 if name.startswith(("blobs.", "engine.submit")) else 2
                self.consortium.daemon.stop()
                self.consortium.daemon.start(CONSILIUM_FAILPOINTS=f"{name}=kill@{passage}")
                job = None
                try:
                    wait_until(lambda: self.consortium.answers() or not self.consortium.daemon.is_running(), "an answer")
                    self.consortium.wait_connected(*self.consortium.sites)
                    job = self.consortium.submit(plan)
                    wait_until(lambda: not self.consortium.daemon.is_running() or self.consortium.job(job)["state"] == "complete",
                               "the failpoint or the end")
                except harness.Failed:
                    try:  # its socket closes a moment before the process is gone
                        self.consortium.daemon.process.wait(5)
                    except subprocess.TimeoutExpired:
                        raise
                try:  # the failpoint may come just after the end of the job
                    self.consortium.daemon.process.wait(10)
                except subprocess.TimeoutExpired:
                    survived.add(name)
                self.consortium.daemon.stop()
                self.consortium.start()
                if job is None:  # it died before the submission was acknowledged
                    jobs = [entry for entry in self.consortium.server_json("job", "list") if entry["state"] in ("waiting", "running")]
                    job = jobs[-1]["job"] if jobs else self.consortium.submit(plan)
                done = self.consortium.wait_job(job)
                self.assertEqual(done["state"], "complete", done["reason"])
                undisturbed = self.consortium.submit(plan)
                self.assertEqual(self.consortium.wait_job(undisturbed)["state"], "complete")
                self.assertEqual(self.consortium.model_hash(job), self.consortium.model_hash(undisturbed))
        print(f"killed at {len(names) - len(survived)} of {len(names)} failpoints", flush=True)
        self.assertEqual(survived, set())

    @staticmethod
    def failpoints():
        import re
        found = set()
        for folder in ("server/engine", "common/blobs"):
            for path in (harness.SOURCE / folder).glob("*.c"):
                found |= set(re.findall(r'(?:CS_FAILPOINT|cs_failpoint)\("([a-z_.]+)"\)', path.read_text()))
        return found


if __name__ == "__main__":
    unittest.main(verbosity=2)
