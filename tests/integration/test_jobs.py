"""Jobs through real daemons: training, approval by people, bad plans, lost sites, and truthful outcomes."""

import hashlib
import json
import os
import signal
import subprocess
import unittest

import harness
from harness import ConsortiumTest, plan_yaml, wait_until
import read_safetensors

# Of a phase: what a site that is lost costs. A sanitized worker may need longer than three seconds only to start.
SHORT_DEADLINE = f"{max(3, int(harness.PATIENCE_S / 16))}s"


class TrainingTest(ConsortiumTest):
    def test_three_hospitals_train_and_the_model_is_read_by_an_independent_reader(self):
        self.hospitals(3)

        job = self.consortium.submit(plan_yaml(rounds=3))
        done = self.consortium.wait_job(job)

        self.assertEqual(done["state"], "complete", done["reason"])
        self.assertEqual([entry["round"] for entry in done["history"]], [0, 1, 2, 3])
        for entry in done["history"][1:]:
            self.assertEqual(entry["folded"], ["hospital-1", "hospital-2", "hospital-3"])
        evaluated = [entry for entry in done["history"][-1]["evaluations"] if entry["model"] == "global"]
        self.assertEqual({entry["site"] for entry in evaluated}, {None, "hospital-1", "hospital-2", "hospital-3"})
        pooled = next(entry for entry in evaluated if entry["site"] is None)
        self.assertEqual(pooled["metrics"]["accuracy"]["count"], 60)
        self.assertNotIn("auc", {name for name, metric in pooled["metrics"].items() if metric["value"] is not None})

        path = self.folder / "model.safetensors"
        export = json.loads(self.consortium.server("model", "export", job, "--round", "last", "--output", path, "--json").stdout)
        self.assertEqual(hashlib.sha256(path.read_bytes()).hexdigest(), export["sha256"])
        metadata, tensors = read_safetensors.read(path)
        self.assertEqual({name: (dtype, shape) for name, dtype, shape, _ in tensors},
                         {"linear.weight": ("F32", [1, 4]), "linear.bias": ("F32", [1])})
        self.assertEqual(metadata["consilium.round"], "3")

    def test_the_same_plan_again_gives_the_same_model(self):
        self.hospitals(2)

        first = self.consortium.submit(plan_yaml())
        self.consortium.wait_job(first, states=("complete",))
        second = self.consortium.submit(plan_yaml())
        self.consortium.wait_job(second, states=("complete",))

        self.assertNotEqual(first, second)
        self.assertEqual(self.consortium.model_hash(first), self.consortium.model_hash(second))

    def test_watch_ends_with_the_job_and_its_exit_code(self):
        self.hospitals(2)

        path = self.folder / "plan.yaml"
        path.write_text(plan_yaml())
        watched = self.consortium.server("job", "submit", path, "--watch")

        self.assertIn("complete", watched.stdout)
        self.assertIn("round 3: 2 folded", watched.stdout)
        self.assertEqual(self.consortium.server("job", "watch", "demo", "--json").stdout.count('"state":"complete"'), 1)


class ApprovalTest(ConsortiumTest):
    def test_a_plan_waits_for_the_hash_that_a_person_saw(self):
        first, second = self.hospitals(2)
        first.configure(harness.site_yaml(first.name, self.consortium, approve=False))
        first.daemon.stop()
        first.start()
        self.consortium.wait_connected(first.name)

        job = self.consortium.submit(plan_yaml(minimum=2))
        entry = wait_until(lambda: next((plan for plan in first.json("plan", "list") if plan["job"] == job), None), "the offer")
        self.assertEqual(entry["decision"], "pending")
        self.assertEqual(self.consortium.job(job)["state"], "waiting")
        shown = first.command("plan", "show", job).stdout
        self.assertIn(entry["plan_sha256"], shown)
        first.command("plan", "approve", "sha256:" + "0" * 64, expect=1)
        first.command("plan", "approve", "sha256:" + entry["plan_sha256"])

        self.assertEqual(self.consortium.wait_job(job)["state"], "complete")

    def test_a_refusal_is_shown_with_its_reason_and_the_job_is_not_called_complete(self):
        sites = self.hospitals(3)
        sites[0].configure(harness.site_yaml(sites[0].name, self.consortium, approve=False))
        sites[0].daemon.stop()
        sites[0].start()
        self.consortium.wait_connected(sites[0].name)

        job = self.consortium.submit(plan_yaml(minimum=2))
        entry = wait_until(lambda: next((plan for plan in sites[0].json("plan", "list") if plan["job"] == job), None), "the offer")
        sites[0].command("plan", "refuse", "sha256:" + entry["plan_sha256"], "--reason", "not in our ethics vote")
        done = self.consortium.wait_job(job)

        self.assertEqual(done["state"], "partial")
        refused = next(site for site in done["sites"] if site["site"] == sites[0].name)
        self.assertEqual(refused["participation"], "refused")
        self.assertIn("ethics", refused["reason"])
        self.assertEqual(self.consortium.server("job", "watch", job, expect=4).returncode, 4)

    def test_a_bad_plan_is_refused_with_line_and_column(self):
        self.hospitals(2)

        refused = self.consortium.submit(plan_yaml().replace("rounds: 3", "rounds: 0"), expect=1)

        self.assertRegex(refused.stdout + refused.stderr, r"plan\.yaml:\d+:\d+: .*rounds.*found 0")
        self.assertEqual(self.consortium.server_json("job", "list"), [])

    def test_a_plan_for_data_that_a_site_does_not_have_is_refused_there(self):
        self.hospitals(2)

        job = self.consortium.submit(plan_yaml().replace("demo-v1", "other-v1"))
        done = self.consortium.wait_job(job)

        self.assertEqual(done["state"], "failed")
        self.assertIn("other-v1", json.dumps(done["sites"]))

    def test_a_column_that_is_not_there_is_named_at_the_site_and_fails_the_job(self):
        sites = self.hospitals(2)

        job = self.consortium.submit(plan_yaml().replace("pressure", "cholesterol"))
        done = self.consortium.wait_job(job)

        self.assertEqual(done["state"], "failed")
        self.assertIn("cholesterol", sites[0].daemon.text() + json.dumps(done))


class LostSiteTest(ConsortiumTest):
    def test_a_site_that_never_comes_back_makes_the_job_partial_and_is_named(self):
        sites = self.hospitals(3)
        job = self.consortium.submit(plan_yaml(rounds=400, steps=200, minimum=2, deadline=SHORT_DEADLINE))
        wait_until(lambda: self.consortium.job(job)["round"] >= 2, "round 2")

        sites[2].daemon.kill()
        wait_until(lambda: any(entry["not_folded"] for entry in self.consortium.job(job)["history"]), "a round without it")
        without = next(entry for entry in self.consortium.job(job)["history"] if entry["not_folded"])
        self.consortium.server("job", "cancel", job)

        self.assertEqual([entry["site"] for entry in without["not_folded"]], ["hospital-3"])
        self.assertEqual(self.consortium.job(job)["state"], "cancelled")

    def test_a_required_site_that_is_lost_fails_the_round_instead_of_a_silent_success(self):
        sites = self.hospitals(3)
        job = self.consortium.submit(plan_yaml(rounds=400, steps=200, minimum=2, deadline=SHORT_DEADLINE, require="[hospital-3]"))
        wait_until(lambda: self.consortium.job(job)["round"] >= 2, "round 2")

        sites[2].daemon.kill()

        def end_or_pause():
            found = self.consortium.job(job)
            return found if found["state"] in ("failed", "paused") else None

        # Lost within a round, the round fails; lost between two, the next one does not open.
        done = wait_until(end_or_pause, "the round to fail or the next one not to open")
        self.assertIn("hospital-3", done["reason"])

    def test_a_cancelled_job_stops_at_the_sites(self):
        sites = self.hospitals(2)
        job = self.consortium.submit(plan_yaml(rounds=5000, steps=500))
        wait_until(lambda: self.consortium.job(job)["round"] >= 1, "round 1")

        self.consortium.server("job", "cancel", job, "--reason", "wrong label rule")
        wait_until(lambda: not any(site.json("status")["task"] for site in sites), "the sites to be idle")

        self.assertEqual(self.consortium.server("job", "watch", job, expect=5).returncode, 5)
        self.assertIn("wrong label rule", self.consortium.job(job)["reason"])


class TranscriptTest(ConsortiumTest):
    def test_everything_that_left_is_a_record_and_no_row_is(self):
        sites = self.hospitals(2)
        job = self.consortium.submit(plan_yaml(rounds=2))
        self.consortium.wait_job(job, states=("complete",))

        lines = (sites[0].folder / "audit" / "transcript.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]

        self.assertEqual([record["index"] for record in records], list(range(len(records))))
        sent = [record for record in records if record["kind"] == "update_sent"]
        self.assertGreaterEqual(len(sent), 2)
        blobs = {entry["sha256"] for entry in sent}
        self.assertEqual(len(blobs), len(sent))
        self.assertTrue(any(record["kind"] == "plan_decision" for record in records))
        self.assertNotIn(str(self.folder), "\n".join(lines))
        row = (sites[0].folder / "demo.csv").read_text().splitlines()[1]
        self.assertNotIn(row, "\n".join(lines))


class MemoryTest(ConsortiumTest):
    @unittest.skipIf("asan" in str(harness.BUILD) or "tsan" in str(harness.BUILD), "a sanitizer's memory is not ours")
    def test_idle_daemons_are_small(self):
        site, = self.hospitals(1)

        def resident_kib(pid):
            with open(f"/proc/{pid}/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

        self.assertLessEqual(resident_kib(self.consortium.daemon.process.pid), 25 * 1024)
        self.assertLessEqual(resident_kib(site.daemon.process.pid), 30 * 1024)


if __name__ == "__main__":
    unittest.main(verbosity=2)
