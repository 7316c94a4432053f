"""Enrolment, renewal, revocation: who may speak, proved with real daemons and with clients of another make."""

import json
import os
import pathlib
import re
import subprocess
import time
import unittest

import harness
from harness import CLIENT, ConsortiumTest, plan_yaml, run, site_yaml, wait_until
from relay import Relay


def serials(site):
    """Serial number of the certificate the site has now."""
    pem = next(path for path in sorted((site.folder / "keys").iterdir()) if b"BEGIN CERTIFICATE" in path.read_bytes()
               and path.name != "authority.crt")
    return run(["openssl", "x509", "-noout", "-serial", "-in", pem]).stdout.strip()


class EnrolmentTest(ConsortiumTest):
    def test_a_token_admits_one_site_once(self):
        site = self.consortium.site("mercy").join()
        thief = self.consortium.site("thief")

        refused = thief.command("join", site.join_file, expect=1)

        self.assertIn("token", refused.stderr)
        states = {entry["site"]: entry["state"] for entry in self.consortium.server_json("site", "list")}
        self.assertEqual(states, {"mercy": "enrolled"})

    def test_operator_and_site_read_the_same_words_of_the_authority(self):
        site = self.consortium.site("mercy")
        other = run([harness.SERVER, "init", "--state", self.folder / "other", "--name", "Other", "--address", "localhost"])
        site.join_file.write_text(self.consortium.server("token", "new", "mercy").stdout)

        joined = site.command("join", site.join_file)
        again = json.loads(site.command("join", site.join_file, "--json").stdout)

        words = re.search(r"(?:[a-z]{5}-){5}[a-z]{5}", joined.stdout).group()
        self.assertEqual(words, self.consortium.words)
        self.assertEqual(words, again["authority"])
        self.assertNotIn(words, other.stdout)

    def test_a_lost_answer_costs_nothing(self):
        site = self.consortium.site("mercy").join()
        first = serials(site)
        keys = {path.name: path.read_bytes() for path in (site.folder / "keys").iterdir()}
        lost = [path for path in (site.folder / "keys").iterdir()
                if b"BEGIN CERTIFICATE" in path.read_bytes() and b"PRIVATE" not in path.read_bytes()]
        for path in lost:
            path.unlink()

        site.command("join", site.join_file)

        self.assertEqual(serials(site), first)
        for name, content in keys.items():
            if b"PRIVATE" in content:
                self.assertEqual((site.folder / "keys" / name).read_bytes(), content)

    def test_an_expired_token_is_refused_with_its_date(self):
        site = self.consortium.site("mercy")
        site.join_file.write_text(self.consortium.server("token", "new", "mercy", "--valid", "1s").stdout)
        time.sleep(1.2)  # the token's life is wall time of another process

        refused = site.command("join", site.join_file, expect=1)

        self.assertRegex(refused.stderr, r"expired")

    def test_a_token_for_another_site_is_refused(self):
        site = self.consortium.site("mercy")
        text = self.consortium.server("token", "new", "mercy").stdout
        site.join_file.write_text(re.sub(r"(?m)^site: mercy$", "site: general", text))

        refused = site.command("join", site.join_file, expect=1)

        self.assertIn("mercy", refused.stderr + self.consortium.daemon.text())

    def test_joining_works_through_files_alone(self):
        site = self.consortium.site("island")
        site.join_file.write_text(self.consortium.server("token", "new", "island").stdout)
        request, answer = self.folder / "request", self.folder / "answer"
        site.command("join", site.join_file, "--request", request)
        answer.write_text(self.consortium.server("token", "answer", request).stdout)
        site.command("join", site.join_file, "--answer", answer)
        self.assertNotIn("PRIVATE", request.read_text() + answer.read_text())

        harness.write_table(site.folder / "demo.csv", seed=1)
        site.configure(harness.site_yaml(site.name, self.consortium)).start()

        self.consortium.wait_connected("island")

    def test_private_keys_are_readable_by_their_owner_only_and_a_loose_one_is_refused(self):
        site = self.consortium.site("mercy").join()
        secrets = [path for path in (site.folder / "keys").iterdir() if b"PRIVATE" in path.read_bytes()]
        self.assertGreaterEqual(len(secrets), 2)
        for path in secrets:
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)

        secrets[0].chmod(0o644)
        refused = run([CLIENT, "run", "--state", site.folder], expect=1)

        self.assertIn("644", refused.stderr)


class HealthTest(ConsortiumTest):
    def health(self, site, expect):
        done = site.command("status", "--healthy", expect=expect)
        return done.stdout + done.stderr

    def test_healthy_means_in_the_federation_and_the_reason_is_given_when_not(self):
        site = self.consortium.site("mercy")
        self.assertIn("consilium-client join", self.health(site, expect=1))
        site.join().configure(site_yaml(site.name, self.consortium))
        self.assertIn("does not run", self.health(site, expect=3))
        site.start()
        self.consortium.wait_connected(site.name)
        self.assertIn("in the federation: mercy attends", self.health(site, expect=0))

        self.consortium.server("site", "revoke", site.name)
        wait_until(lambda: not site.json("status")["connected"], "the site to notice")

        self.assertIn("revoked", self.health(site, expect=1))


class TwoCommandsTest(ConsortiumTest):
    def test_two_commands_at_each_site_lead_to_a_finished_job(self):
        sites = [self.consortium.site(name) for name in ("north", "south")]
        for site in sites:
            site.join_file.write_text(self.consortium.server("token", "new", site.name).stdout)
        job = self.consortium.submit(plan_yaml(rounds=2, invite="[north, south]"))
        for seed, site in enumerate(sites):
            table = self.folder / f"{site.name} table.csv"
            harness.write_table(table, seed=seed)

            site.command("join", site.join_file, "--dataset", f"demo-v1={table}", "--approve", "demo-v1")
            site.start()

        done = self.consortium.wait_job(job)
        self.assertEqual(done["state"], "complete", done["reason"])
        self.assertEqual(len(done["history"][-1]["folded"]), 2)

    def test_what_join_cannot_put_into_site_yaml_is_refused_before_the_token_is_spent(self):
        site = self.consortium.site("mercy")
        site.join_file.write_text(self.consortium.server("token", "new", "mercy").stdout)
        table = self.folder / "table.csv"
        harness.write_table(table, seed=1)
        for words, sentence in (
                (["--dataset", f"demo v1={table}"], "demo v1"),
                (["--dataset", "demo-v1"], "expected NAME=FILE"),
                (["--dataset", "demo-v1=/nowhere.csv"], "/nowhere.csv"),
                (["--dataset", f"demo-v1={table}", "--dataset", f"demo-v1={table}"], "demo-v1"),
                (["--approve", "demo-v1"], "expected the name of a --dataset"),
                (["--proxy-login", table], "without --proxy"),
                (["--proxy", "nonsense"], "nonsense")):
            refused = site.command("join", site.join_file, *words, expect=1)
            self.assertIn(sentence, refused.stderr)
            self.assertFalse((site.folder / "keys").exists(), words)

        site.command("join", site.join_file, "--dataset", f"demo-v1={table}")
        site.command("join", site.join_file, "--dataset", f"demo-v1={table}")  # the same again is the same
        other = site.command("join", site.join_file, "--dataset", f"other-v1={table}", expect=1)
        self.assertIn("is there already and is not changed", other.stderr)


class RevocationTest(ConsortiumTest):
    def test_revocation_ends_streams_within_five_seconds_and_the_next_call_is_refused(self):
        site, other = self.hospitals(2)

        begun = time.monotonic()
        self.consortium.server("site", "revoke", site.name, "--reason", "key stolen")
        wait_until(lambda: site.name not in self.consortium.connected(), "the stream to end", 5)
        self.assertLessEqual(time.monotonic() - begun, 5)
        reason = wait_until(lambda: site.json("status")["reason"], "the site to know why")

        self.assertIn("revoked", reason)
        self.assertNotIn(site.name, self.consortium.connected())
        self.assertIn(other.name, self.consortium.connected())
        self.consortium.server("token", "new", site.name, expect=1)

    def test_revocation_ends_a_running_upload_within_five_seconds(self):
        relay = Relay(self.consortium.port, rate=300_000)
        self.addCleanup(relay.stop)
        near, far = self.hospitals(2, start=False)
        near.start()
        far.configure(harness.site_yaml(far.name, self.consortium).replace(f":{self.consortium.port}", f":{relay.port}")).start()
        self.consortium.wait_connected(near.name, far.name)
        # 2 MB: some seven seconds up.
        self.consortium.submit(plan_yaml(rounds=1, steps=1, minimum=1).replace("{kind: logistic_regression}",
                                                                              "{kind: mlp, hidden: [700, 700]}"))
        wait_until(lambda: relay.bytes["up"] > 400_000, "the upload to run")

        begun = time.monotonic()
        self.consortium.server("site", "revoke", far.name)
        answered = time.monotonic() - begun
        wait_until(lambda: re.search(r"step of a task failed.*revoked", far.daemon.text()), "the upload to end", 5 - answered)
        upload_s = time.monotonic() - begun
        wait_until(lambda: "revoked" in far.json("status")["reason"], "the session to end", 5 - upload_s)
        session_s = time.monotonic() - begun
        keys = far.folder / "keys"
        refused = run(["python3", pathlib.Path(__file__).with_name("python_client.py"), "health", "--target",
                       f"localhost:{self.consortium.port}", "--authority", keys / "authority.crt", "--cert", keys / "tls.pem",
                       "--key", keys / "tls.pem"], expect=1)
        print(f"\nrevoked: the upload ended within {upload_s:.2f} s, the session within {session_s:.2f} s", flush=True)

        self.assertLessEqual(session_s, 5)
        self.assertIn("revoked", refused.stdout + refused.stderr)

    def test_a_site_comes_back_with_a_rejoin_token_and_keeps_its_transcript(self):
        site, _ = self.hospitals(2)
        job = self.consortium.submit(plan_yaml(rounds=1))
        self.consortium.wait_job(job, states=("complete",))
        before = (site.folder / "audit" / "transcript.jsonl").read_text()
        self.consortium.server("site", "revoke", site.name)
        wait_until(lambda: site.name not in self.consortium.connected(), "the stream to end", 5)
        site.daemon.stop()

        site.join_file.write_text(self.consortium.server("token", "new", site.name, "--rejoin").stdout)
        site.command("join", site.join_file)
        site.start()

        self.consortium.wait_connected(site.name)
        self.assertTrue((site.folder / "audit" / "transcript.jsonl").read_text().startswith(before))


    def test_a_rejoin_ends_what_the_replaced_key_has_open(self):
        site, _ = self.hospitals(2)
        restored = harness.Site(self.consortium, site.name)  # the hospital on a new machine; who has the old one?
        restored.folder = self.folder / "restored"
        restored.join_file.write_text(self.consortium.server("token", "new", site.name, "--rejoin").stdout)
        self.assertIn(site.name, self.consortium.connected())

        restored.command("join", restored.join_file)

        wait_until(lambda: site.name not in self.consortium.connected(), "the old machine's stream to end", 5)
        reason = wait_until(lambda: site.json("status")["reason"], "the old machine to know why")
        self.assertIn("replaced", reason)


class RenewalTest(ConsortiumTest):
    """Certificates that live for seconds. CONSILIUM_TEST_RENEWALS=… (default 20) renewals of sites."""

    server_options = ("certificate_life: 12s",)
    PLAN = dict(rounds=100, steps=60, minimum=4, deadline="1h")

    def renewals(self):
        return sum(site.daemon.text().count("certificate renewed") for site in self.consortium.sites.values())

    def own_renewals(self):
        return self.consortium.daemon.text().count("renewed the coordinator's certificate")

    def test_renewals_of_all_sites_and_of_the_coordinator_change_nothing_in_running_jobs(self):
        self.hospitals(4)
        wanted = int(os.environ.get("CONSILIUM_TEST_RENEWALS", "20"))
        seen, own, jobs, rounds, models = 0, self.own_renewals(), 0, 0, set()
        while seen < wanted:
            before = self.renewals()
            job = self.consortium.submit(plan_yaml(**self.PLAN))
            done = self.consortium.wait_job(job)
            seen += self.renewals() - before
            jobs, rounds = jobs + 1, rounds + len(done["history"])
            self.assertEqual(done["state"], "complete", done["reason"])
            self.assertFalse([entry for entry in done["history"] if entry["not_folded"]])
            models.add(self.consortium.model_hash(job))
        own = self.own_renewals() - own
        # From now on certificates live long, and the same plan is run without any renewal.
        self.consortium.daemon.stop()
        self.consortium.add_server_options("certificate_life: 7d")
        self.consortium.start()
        wait_until(lambda: all(site.json("status")["certificate_expires_ms"] > (time.time() + 86400) * 1000
                               for site in self.consortium.sites.values()), "long certificates everywhere")
        self.consortium.wait_connected(*self.consortium.sites)
        before = self.renewals()
        job = self.consortium.submit(plan_yaml(**self.PLAN))
        self.assertEqual(self.consortium.wait_job(job)["state"], "complete")
        print(f"\n{seen} renewals of sites and {own} of the coordinator under {jobs} jobs with {rounds} rounds: none dropped", flush=True)

        self.assertEqual(self.renewals(), before)
        self.assertGreaterEqual(own, 2)
        self.assertEqual(models, {self.consortium.model_hash(job)})


class StrangerTest(ConsortiumTest):
    def client(self, *words, expect=0):
        return run(["python3", pathlib.Path(__file__).with_name("python_client.py"), *words], expect=expect)

    def test_a_client_of_another_make_is_served_with_a_certificate_and_refused_without(self):
        site = self.consortium.site("mercy").join()
        keys = site.folder / "keys"
        target = ["--target", f"localhost:{self.consortium.port}", "--authority", keys / "authority.crt"]
        identity = self.identity(keys)

        healthy = self.client("health", *target, *identity)
        self.client("health", *target, expect=1)

        self.assertIn("SERVING", healthy.stdout)

    def identity(self, keys):
        bundles = [path for path in keys.iterdir() if b"BEGIN CERTIFICATE" in path.read_bytes() and path.name != "authority.crt"]
        secrets = [path for path in keys.iterdir() if b"PRIVATE" in path.read_bytes() and path.name != "signing.key"]
        return ["--cert", bundles[0], "--key", secrets[0]]


if __name__ == "__main__":
    unittest.main(verbosity=2)
