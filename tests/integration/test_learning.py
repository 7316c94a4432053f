"""Networks, several classes, weights, early stopping and an optimizer that remembers, through the real daemons.

The example plans of deploy/plans on the four hospitals' real tables ("not run" where those are absent), and `kill -9` of each
process in jobs whose result depends on more than the last model: what was decided, and what stayed at a site.
"""

import json
import os
import random
import re
import signal
import sqlite3
import struct
import sys
import time
import unittest

import harness
from harness import ConsortiumTest, plan_yaml, site_yaml, wait_until

sys.path.insert(0, str(harness.SOURCE / "tests" / "data"))
import heart_plan
import prepare_heart

SEED = int(os.environ.get("CONSILIUM_TEST_SEED", "20260301"))
KILLS = int(os.environ.get("CONSILIUM_TEST_KILLS", "4"))
SPLIT = "split: {by: row, fractions: {train: 0.6, valid: 0.2, test: 0.2}}"


def pooled(summary, split):
    """The pooled evaluation of the model that a round made."""
    found = [entry for entry in summary["evaluations"]
             if entry["site"] is None and entry["model"] == "global" and entry["split"] == split]
    assert len(found) <= 1, f"evaluated twice: {found}"
    return found[0]["metrics"] if found else None


def of_sites(summary, split):
    return {entry["site"]: entry["metrics"] for entry in summary["evaluations"]
            if entry["site"] is not None and entry["model"] == "global" and entry["split"] == split}


def decide(values, patience, minimum_change):
    """Where a job stops by these numbers (smaller is better), counted from 0; None: nowhere."""
    best, without = float("inf"), 0
    for place, value in enumerate(values):
        if value < best - minimum_change:
            best, without = value, 0
        else:
            without += 1
        if without >= patience:
            return place
    return None


def calibration_error(bins):
    return sum(abs(entry["predicted"] - entry["observed"]) for entry in bins) / sum(entry["rows"] for entry in bins)


def kept(site):
    """What the agent's database says the site keeps for the next round: (round, blob); None: nothing."""
    database = sqlite3.connect(f"file:{site.folder / 'db' / 'agent.db'}?mode=ro", uri=True)
    try:
        return next(((row[0], row[1].hex()) for row in database.execute("SELECT round, blob FROM kept")), None)
    finally:
        database.close()


class HeartTest(ConsortiumTest):
    """The example plans, as they are, on the real tables."""

    def setUp(self):
        if not (harness.DATA / "heart_uci4").is_dir():
            self.skipTest("not run: data absent (heart_uci4)")
        super().setUp()
        prepare_heart.prepare(harness.DATA, self.folder / "tables")
        for name in heart_plan.SITES:
            site = self.consortium.site(name).join()
            text = heart_plan.site(name, str(self.folder / "tables" / f"{name}.csv"), f"localhost:{self.consortium.port}")
            text = re.sub(r"split: .*", SPLIT, text).replace("model: [logistic_regression]", "model: [logistic_regression, mlp]")
            site.configure(text).start()
        self.consortium.wait_connected(*heart_plan.SITES)

    def run_example(self, name):
        job = self.consortium.submit((harness.SOURCE / "deploy" / "plans" / f"{name}.yaml").read_text())
        done = self.consortium.wait_job(job)
        self.assertEqual(done["state"], "complete", done["reason"])
        return job, done

    def test_a_network_of_five_classes_stops_early_and_gives_its_best_round(self):
        job, done = self.run_example("heart-stages")

        said = re.fullmatch(r"stopped early at round (\d+): no log_loss on validation rows better by more than 0\.002 in 8 "
                            r"evaluations; best round (\d+) with log_loss (\d\.\d{4})", done["reason"])
        self.assertIsNotNone(said, done["reason"])
        rounds = {summary["round"]: summary for summary in done["history"]}
        losses = {number: pooled(summary, "valid")["log_loss"]["value"] for number, summary in sorted(rounds.items())}
        last, best = int(said[1]), int(said[2])
        self.assertEqual(max(rounds), last)
        self.assertLess(last, 60)
        # The decision can be made again from what `job show` says.
        self.assertEqual(decide(list(losses.values()), 8, 0.002), last)
        self.assertEqual(best, min(losses, key=losses.get))
        self.assertEqual(best, done["best_round"])
        self.assertAlmostEqual(losses[best], float(said[3]), delta=5e-5)
        self.assertLess(losses[best], 0.9 * losses[0])

        out = self.folder / "best.safetensors"
        exported = self.consortium.server_json("model", "export", job, "--round", "best", "--output", out)
        self.assertEqual(exported["sha256"], rounds[best]["model"])
        tensors = harness.run([sys.executable, harness.SOURCE / "tests" / "integration" / "read_safetensors.py", out]).stdout
        for tensor in ("layers.0.weight", "layers.1.bias", "head.weight"):
            self.assertIn(tensor, tensors)

        # Of five classes with their rows: what is pooled is what the sites sent.
        sites, everybody = of_sites(rounds[best], "test"), pooled(rounds[best], "test")
        self.assertEqual(set(sites), set(heart_plan.SITES))
        for name in ("accuracy", "brier", "log_loss"):
            self.assertAlmostEqual(everybody[name]["sum"], sum(site[name]["sum"] for site in sites.values()), places=9)
        bins = [site["calibration_error"]["bins"] for site in sites.values()]
        self.assertEqual({len(entry) for entry in bins}, {15})
        added = [{key: sum(site[place][key] for site in bins) for key in ("rows", "predicted", "observed")} for place in range(15)]
        self.assertAlmostEqual(everybody["calibration_error"]["value"], calibration_error(added), places=9)
        self.assertEqual(sum(entry["rows"] for entry in added), everybody["accuracy"]["count"])
        self.assertEqual(everybody["auc_within_sites"]["classes"], 5)
        self.assertGreater(everybody["auc_within_sites"]["value"], 0.55)

        page = self.consortium.server("job", "show", job).stdout
        self.assertIn("stopped early at round", page)
        self.assertIn("calibration, all sites, test rows scaled by federated", page)

    def test_rows_of_the_ill_weigh_more_and_calibration_shows_it(self):
        _, done = self.run_example("heart-disease-weighted")

        metrics = pooled(done["history"][-1], "test")
        bins = metrics["calibration_error"]["bins"]
        # A weight of 2.5 moves the log odds by almost ln 2.5: more is predicted than comes true, and the order stays good.
        self.assertGreater(sum(entry["predicted"] for entry in bins), 1.1 * sum(entry["observed"] for entry in bins))
        self.assertGreater(metrics["auc_within_sites"]["value"], 0.75)
        self.assertAlmostEqual(metrics["calibration_error"]["value"], calibration_error(bins), places=9)
        for name, site in of_sites(done["history"][-1], "test").items():
            self.assertEqual(len(site["calibration_error"]["bins"]), 15, name)


class KillTest(ConsortiumTest):
    """Three sites, their tables made up; each job is ended by patience and its optimizer remembers."""

    STOPPING = ("early_stopping: {metric: brier, patience: 3, minimum_change: 0.0005}, "
                "optimizer: {kind: adam, learning_rate: 0.02, state: keep}")

    def plan(self):
        text = plan_yaml(rounds=200, steps=12, minimum=3, deadline="1h")
        text = text.replace("model: {kind: logistic_regression}", "model: {kind: mlp, hidden: [6], dropout: 0.2, activation: tanh}")
        return re.sub(r"optimizer: \{kind: sgd, learning_rate: [0-9.]+\}", self.STOPPING, text)

    def setUp(self):
        super().setUp()
        self.moments = random.Random(SEED)
        self.sites = self.hospitals(3, rows=120, start=False)
        for site in self.sites:
            text = re.sub(r"split: .*", SPLIT, site_yaml(site.name, self.consortium))
            site.configure(text).start()
        self.consortium.wait_connected(*[site.name for site in self.sites])
        job = self.consortium.submit(self.plan())
        self.check_kept()
        self.undisturbed = self.consortium.wait_job(job)
        self.assertEqual(self.undisturbed["state"], "complete", self.undisturbed["reason"])
        self.assertIn("stopped early at round", self.undisturbed["reason"])
        wait_until(lambda: not any(kept(site) for site in self.sites), "the sites to forget what they kept")
        self.models = [summary["model"] for summary in self.undisturbed["history"]]

    def check_kept(self):
        """The optimizer's memory is committed with each result, and its steps are those of all rounds so far."""
        def steps():
            found = kept(self.sites[0])
            if not found or found[0] < 3:
                return None
            path = self.sites[0].folder / "blobs" / found[1][:2] / found[1]
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None  # the next round has replaced it
            header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
            begin = 8 + struct.unpack("<Q", data[:8])[0] + header["step"]["data_offsets"][0]
            return found[0], struct.unpack("<q", data[begin:begin + 8])[0]
        rounds, done = wait_until(steps, "a third round's optimizer")
        self.assertEqual(done, 12 * rounds)

    def state_of(self, job):
        try:
            return self.consortium.job(job)["state"]
        except harness.Failed:
            return "unknown"

    def trial(self, kill):
        """Kills until it was done often enough; every job ends at the same round, for the same reason, with the same bytes."""
        killed = 0
        while killed < KILLS:
            job = self.consortium.submit(self.plan())
            wait_until(lambda: self.state_of(job) == "running", "the job to run")
            while killed < KILLS and self.state_of(job) == "running":
                time.sleep(self.moments.uniform(0.0, 0.3))  # the random moment itself
                if self.state_of(job) == "running" and kill():
                    killed += 1
            done = self.consortium.wait_job(job)
            context = f"seed {SEED}, {killed} kills, job {job}"
            self.assertEqual(done["state"], "complete", f"{context}: {done['reason']}")
            self.assertEqual(done["reason"], self.undisturbed["reason"], context)
            self.assertEqual(done["history"][-1]["model"], self.models[-1], context)
            self.assertEqual(self.consortium.server_json("model", "list", job), self.consortium.server_json(
                "model", "list", self.undisturbed["job"]), context)

    def test_coordinator_killed(self):
        def kill():
            self.consortium.daemon.kill()
            self.consortium.start()
            return True
        self.trial(kill)

    def test_agent_and_worker_killed_with_what_the_optimizer_remembers(self):
        def kill():
            site = self.moments.choice(self.sites)
            pids = site.worker_pids()
            if pids and self.moments.random() < 0.5:
                try:
                    os.kill(pids[0], signal.SIGKILL)
                except ProcessLookupError:
                    return False
            else:
                site.daemon.kill()
                site.start()
            return True
        self.trial(kill)


class RefusalTest(ConsortiumTest):
    def test_a_site_without_validation_rows_says_so_before_anything_is_trained(self):
        self.hospitals(2)  # their split knows train and test only
        text = plan_yaml().replace("loss: bce", "loss: bce, early_stopping: {metric: log_loss, patience: 2}")

        done = self.consortium.wait_job(self.consortium.submit(text))

        # The first refusal leaves too few sites: the job need not wait for the second.
        self.assertEqual(done["state"], "failed")
        reasons = [site["reason"] for site in done["sites"] if site["participation"] == "refused"]
        self.assertTrue(reasons)
        for reason in reasons:
            self.assertIn("datasets.demo-v1.split.valid", reason)


if __name__ == "__main__":
    unittest.main(verbosity=2)
