"""Sites that find their common patients: rosters, sessions and alignment through real daemons."""

import contextlib
import csv
import os
import pathlib
import random
import re
import shutil
import signal
import threading
import time
import unittest

import harness
from harness import wait_until


class RosterTest(harness.ConsortiumTest):
    """Who the others are is decided by people at each site, not by the coordinator."""

    def roster(self, site):
        return site.json("roster", "show")

    def states(self, site):
        return {member["site"]: member["state"] for member in self.roster(site)["members"]}

    def test_people_approve_a_roster_and_everybody_sees_who_did(self):
        one, two = self.hospitals(2)
        wait_until(lambda: set(self.states(one)) == {"hospital-1", "hospital-2"}, "the roster of both")
        shown = self.roster(one)
        self.assertEqual({"hospital-1": "new", "hospital-2": "new"}, self.states(one))
        self.assertEqual(shown["roster"], self.roster(two)["roster"])

        wrong = one.command("roster", "approve", "sha256:" + 64 * "0", expect=1)
        self.assertIn(shown["roster"], wrong.stderr)
        one.command("roster", "approve", shown["roster"])

        self.assertEqual({"hospital-1": "approved", "hospital-2": "approved"}, self.states(one))
        wait_until(lambda: [member["has_approved"] for member in self.roster(two)["members"]] == [True, False],
                   "site two to hear of the approval")
        text = one.command("roster", "show").stdout
        self.assertIn("approved      this one", text)

    def test_a_site_that_comes_later_and_a_key_that_changes_are_shown(self):
        one, two = self.hospitals(2)
        wait_until(lambda: len(self.states(one)) == 2, "the roster of both")
        one.command("roster", "approve", self.roster(one)["roster"])
        fingerprint = {member["site"]: member["fingerprint"] for member in self.roster(one)["members"]}["hospital-2"]

        three = self.consortium.site("hospital-3").join()
        wait_until(lambda: self.states(one).get("hospital-3") == "new", "the new site to be shown")

        # The authority gives the second hospital's name to somebody who has another key.
        two.daemon.stop()
        join_file = self.consortium.server("token", "new", two.name, "--rejoin").stdout
        shutil.rmtree(two.folder / "keys")
        two.join_file.write_text(join_file)
        two.command("join", two.join_file)
        wait_until(lambda: self.states(one)["hospital-2"] == "CHANGED", "the other key to be shown")
        changed = {member["site"]: member for member in self.roster(one)["members"]}["hospital-2"]
        self.assertEqual(fingerprint, changed["approved_fingerprint"])
        self.assertNotEqual(fingerprint, changed["fingerprint"])
        self.assertIn("another key", one.daemon.text())

    def test_an_approval_survives_kills_of_agent_and_coordinator(self):
        one, two = self.hospitals(2)
        wait_until(lambda: len(self.states(one)) == 2, "the roster of both")
        one.command("roster", "approve", self.roster(one)["roster"])
        wait_until(lambda: self.roster(two)["members"][0]["has_approved"], "site two to hear of the approval")

        one.daemon.kill()
        two.daemon.kill()
        self.consortium.daemon.kill()
        self.consortium.start()
        one.start()
        two.start()
        self.consortium.wait_connected(one.name, two.name)

        self.assertEqual({"hospital-1": "approved", "hospital-2": "approved"}, self.states(one))
        wait_until(lambda: self.roster(two)["members"][0]["has_approved"], "site two to hear of the approval again")



def person(number):
    """Fields that no other number has; the same at every site."""
    return {"given": f"Anna{number % 97}", "family": f"Meier{number}", "birth_date": f"19{number % 90 + 10}-0{number % 9 + 1}-1{number % 9}",
            "sex": "f" if number % 2 else "m", "postcode": f"{10000 + number % 80000}"}


def write_persons(path, numbers):
    """One row for each number, in this order; the site's own patient number tells the test who it was."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "given", "family", "birth_date", "sex", "postcode"])
        for row, number in enumerate(numbers):
            fields = person(number)
            writer.writerow([f"{row}:{number}", *(fields[name] for name in ("given", "family", "birth_date", "sex", "postcode"))])


ONE_KEY = "[[given, family, birth_date]]"
SIX_KEYS = ("[[given, family, birth_date], [family, birth_date, postcode], [given, birth_date, postcode], [family, birth_date, sex], "
            "[given, family, postcode], [family, birth_year, postcode, sex]]")


def alignment_plan(sites, leader, name="cohort", cohort="all", minimum=0, patients=1000, keys=ONE_KEY, mutual=True, study="test-2026",
                   deadline="5m"):
    mutual_text = "" if mutual else ", mutual: false"
    return f"""plan: {name}
federation: vertical
sites: {{invite: [{', '.join(sites)}], approval: 7d, deadline: {deadline}}}
dataset: {{name: persons-v1, kind: identities}}
alignment: {{study: {study}, leader: {leader}, cohort: {cohort}, minimum: {minimum}, patients: {patients}{mutual_text},
            keys: {keys}}}
"""


def alignment_site(site, consortium, policy="minimum: 0, sessions: {day: 1000}", extra="threads: 1"):
    return f"""site: {site}
coordinator: localhost:{consortium.port}
{extra}
datasets:
  persons-v1: {{table: persons.csv, split: {{by: patient, patient: patient}}}}
policy:
  approve: [{{dataset: persons-v1}}]
  alignment: {{{policy}}}
"""


class AlignmentTest(harness.ConsortiumTest):
    """Sites with tables of persons; what comes out is compared with the join that only the test can do."""

    def hospitals_with(self, tables, policy="minimum: 0, sessions: {day: 1000}", approve=True):
        sites = []
        for name, numbers in tables.items():
            site = self.consortium.site(name).join()
            write_persons(site.folder / "persons.csv", numbers)
            site.configure(alignment_site(name, self.consortium, policy)).start()
            sites.append(site)
        self.consortium.wait_connected(*tables)
        if approve:
            self.approve_rosters(sites)
        return sites

    def approve_rosters(self, sites):
        for site in sites:
            wait_until(lambda: len(site.json("roster", "show")["members"]) == len(self.consortium.sites), "the whole roster")
            site.command("roster", "approve", site.json("roster", "show")["roster"])

    def cohort(self, name, job):
        """{row of the study: number of the person} at this site; None where there is no cohort."""
        path = self.consortium.site(name).folder / "personal" / job / "cohort.csv"
        if not path.exists():
            return None
        with open(path, newline="") as file:
            return {int(row["row"]): int(row["patient"].split(":")[1]) for row in csv.DictReader(file)}

    def expected(self, tables, leader, needed):
        others = [set(numbers) for name, numbers in tables.items() if name != leader]
        return {number for number in set(tables[leader]) if sum(number in other for other in others) >= needed}

    def check(self, tables, leader, job, needed=None):
        """Every site has exactly the rows of the cohort that it holds, and a row is the same person everywhere."""
        expected = self.expected(tables, leader, needed or len(tables) - 1)
        rows = self.cohort(leader, job)
        self.assertEqual(expected, set(rows.values()))
        self.assertEqual(len(expected), len(rows))
        for name, numbers in tables.items():
            here = set(numbers)
            self.assertEqual({row: number for row, number in rows.items() if number in here}, self.cohort(name, job), name)
        return rows

    def run_plan(self, plan, state="complete", patience_s=None):
        name = self.consortium.submit(plan)
        job = self.consortium.wait_job(name, patience_s=patience_s)
        self.assertEqual(state, job["state"], job["reason"])
        return job

    def secrets_left(self, job):
        left = []
        for site in self.consortium.sites.values():
            left += [str(path) for path in (site.folder / "keys" / "sessions").glob("*") if path.name == job]
            left += [str(path) for path in (site.folder / "personal" / job).glob("*") if path.name != "cohort.csv"]
        return left

    def test_two_sites_find_their_common_patients(self):
        tables = {"clinic": list(range(0, 300)), "mercy": list(range(200, 600))}
        random.Random(1).shuffle(tables["clinic"])
        self.hospitals_with(tables)

        job = self.run_plan(alignment_plan(tables, "mercy"))

        rows = self.check(tables, "mercy", job["job"])
        self.assertNotEqual([rows[row] for row in sorted(rows)], sorted(rows.values()))
        wait_until(lambda: not self.secrets_left(job["job"]), f"secrets to be wiped: {self.secrets_left(job['job'])}")
        self.assertEqual(100, job["history"][-1]["evaluations"][0]["metrics"]["patients"]["value"])

    def test_up_to_five_sites_with_both_rules_and_every_kind_of_overlap(self):
        base = {"a-lab": range(0, 90), "b-clinic": range(30, 120), "c-mercy": range(60, 150), "d-registry": range(80, 200),
                "e-imaging": range(85, 300)}
        random_of = random.Random(7)
        tables = {}
        for name, numbers in base.items():
            rows = list(numbers) + list(numbers)[:5]  # duplicates: the first row stands for the person
            tail = rows[len(numbers):]
            rows = rows[:len(numbers)]
            random_of.shuffle(rows)
            tables[name] = rows + tail
        self.hospitals_with(tables)
        names = list(tables)
        for index, (count, leader, cohort, needed, keys) in enumerate([
                (3, "b-clinic", "all", None, ONE_KEY), (4, "d-registry", "{any: 1}", 1, ONE_KEY),
                (5, "a-lab", "all", None, ONE_KEY), (5, "c-mercy", "{any: 2}", 2, ONE_KEY)]):
            with self.subTest(sites=count, cohort=cohort):
                part = {name: tables[name] for name in names[:count]}
                job = self.run_plan(alignment_plan(part, leader, name=f"cohort-{index}", cohort=cohort, keys=keys, study=f"s-{index}"))
                self.check(part, leader, job["job"], needed)

    def test_a_dry_run_counts_the_own_table_and_asks_nobody(self):
        site = self.consortium.site("clinic").join()
        write_persons(site.folder / "persons.csv", [*range(20), 5, 6])
        with open(site.folder / "persons.csv", "a") as file:
            file.write("x,Anna,,,f,10115\ny,Berta,Maier,1980-02-30,f,10115\n")
        site.configure(alignment_site("clinic", self.consortium))
        self.consortium.daemon.stop()
        plan = self.folder / "cohort.yaml"
        plan.write_text(alignment_plan(["clinic", "mercy"], "mercy", keys="[[given, family, birth_date], [family, sex]]"))

        counts = site.json("align", plan, "--dry-run")

        self.assertEqual((24, 2), (counts["rows"], counts["duplicates"]))
        self.assertEqual(21, counts["patients"])
        self.assertEqual(2 * 128, counts["points"])
        self.assertEqual([22, 23], [kind["present"] for kind in counts["kinds"]])
        fields = {field["field"]: field for field in counts["fields"]}
        self.assertEqual((1, 1, 25), (fields["family"]["missing"], fields["birth_date"]["unreadable"],
                                      fields["birth_date"]["first_unreadable_line"]))
        text = site.command("align", plan, "--dry-run").stdout
        self.assertIn("21 with at least one key of their own", text)
        self.assertNotIn("Berta", text)
        self.assertIn("--dry-run", site.command("align", plan, expect=1).stderr)

    def test_eight_sites(self):
        tables = {f"site-{letter}": list(range(10 * index, 200 - 5 * index)) for index, letter in enumerate("abcdefgh")}
        self.hospitals_with(tables)

        job = self.run_plan(alignment_plan(tables, "site-c"))

        self.check(tables, "site-c", job["job"])

    @unittest.skipUnless("CONSILIUM_ALIGN_LOG2" in os.environ, "not run: CONSILIUM_ALIGN_LOG2 says how many patients, 18 or 20")
    def test_as_many_patients_as_asked_for(self):
        count = 2 ** int(os.environ["CONSILIUM_ALIGN_LOG2"])
        sites = int(os.environ.get("CONSILIUM_ALIGN_SITES", "2"))
        tables = {f"site-{index}": list(range(index * count // 4, index * count // 4 + count)) for index in range(sites)}
        for numbers in tables.values():
            random.Random(len(numbers)).shuffle(numbers)
        self.hospitals_with(tables, policy="minimum: 0, tokens: {session: 100000000, month: 1000000000}")

        job = self.run_plan(alignment_plan(tables, "site-1", patients=count, cohort="{any: 1}"), patience_s=3600)

        self.check(tables, "site-1", job["job"], 1)

    def test_none_one_and_all_in_common(self):
        shapes = {"none": (range(0, 40), range(50, 90)), "one": (range(0, 40), range(39, 90)), "all": (range(0, 40), range(0, 40)),
                  "empty": (range(0, 40), range(0, 0))}
        sites = self.hospitals_with({"clinic": [0], "mercy": [0]})
        for word, (one, two) in shapes.items():
            with self.subTest(overlap=word):
                tables = {"clinic": list(one), "mercy": list(two)}
                for site in sites:
                    write_persons(site.folder / "persons.csv", tables[site.name])
                job = self.run_plan(alignment_plan(tables, "clinic", name=word, study=word))
                self.check(tables, "clinic", job["job"])

    def test_with_six_kinds_of_key_misspelt_patients_are_found(self):
        tables = {"clinic": list(range(0, 60)), "mercy": list(range(30, 100))}
        self.hospitals_with(tables)
        path = self.consortium.site("mercy").folder / "persons.csv"
        text = path.read_text()
        self.assertIn("Meier40,", text)
        path.write_text(text.replace("Meier40,", "Maier40,").replace("Meier41,", "Meyer41,"))

        job = self.run_plan(alignment_plan(tables, "clinic", keys=SIX_KEYS))

        self.check(tables, "clinic", job["job"])

    def test_below_the_minimum_nothing_is_released(self):
        tables = {"clinic": list(range(0, 100)), "mercy": list(range(81, 200))}  # 19 in common
        self.hospitals_with(tables, policy="minimum: 20, sessions: {day: 100}")

        job = self.run_plan(alignment_plan(tables, "mercy", minimum=20), state="failed")

        self.assertIn("20", job["reason"])
        self.assertNotIn("19", job["reason"])
        for name in tables:
            self.assertIsNone(self.cohort(name, job["job"]))
        wait_until(lambda: not self.secrets_left(job["job"]), "secrets to be wiped")

        tables["mercy"] = list(range(80, 200))
        write_persons(self.consortium.site("mercy").folder / "persons.csv", tables["mercy"])
        again = self.run_plan(alignment_plan(tables, "mercy", minimum=20, name="again", study="again"))
        self.check(tables, "mercy", again["job"])

    def test_a_plan_may_tell_the_other_party_nothing(self):
        tables = {"clinic": list(range(0, 50)), "mercy": list(range(20, 80))}
        self.hospitals_with(tables)

        job = self.run_plan(alignment_plan(tables, "mercy", mutual=False))

        self.assertEqual(self.expected(tables, "mercy", 1), set(self.cohort("mercy", job["job"]).values()))
        self.assertIsNone(self.cohort("clinic", job["job"]))

    def test_the_same_question_is_answered_from_the_stored_result(self):
        tables = {"clinic": list(range(0, 60)), "mercy": list(range(20, 80))}
        sites = self.hospitals_with(tables, policy="minimum: 0, sessions: {day: 2}")
        first = self.run_plan(alignment_plan(tables, "mercy"))
        rows = self.check(tables, "mercy", first["job"])
        # One patient more: whoever asks again does not learn whether it is in.
        write_persons(sites[0].folder / "persons.csv", tables["clinic"] + [61])

        for index in range(3):  # and it costs nothing
            again = self.run_plan(alignment_plan(tables, "mercy", name=f"again-{index}", patients=900 + index))
            self.assertEqual(rows, self.cohort("mercy", again["job"]))
            self.assertEqual(self.cohort("clinic", first["job"]), self.cohort("clinic", again["job"]))
            self.assertEqual(len(rows), again["history"][-1]["evaluations"][0]["metrics"]["patients"]["value"])

        other = self.run_plan(alignment_plan(tables, "mercy", name="other", study="other"))
        tables["clinic"] += [61]
        self.check(tables, "mercy", other["job"])
        over = self.run_plan(alignment_plan(tables, "mercy", name="third", study="third"), state="failed")
        self.assertIn("2 alignments began here in the last 24 hours, the policy allows 2", over["reason"])

    def test_a_site_refuses_what_its_policy_does_not_allow(self):
        tables = {"clinic": list(range(0, 100)), "mercy": list(range(50, 150))}
        cases = [("minimum: 0, peers: [registry]", "policy.alignment.peers does not list it"),
                 ("minimum: 0, modes: [pattern]", "two_party"),
                 ("minimum: 30", "policy.alignment.minimum is 30"),
                 ("minimum: 0, tokens: {session: 500}", "the policy allows 500 a session")]
        sites = self.hospitals_with(tables)
        for index, (policy, sentence) in enumerate(cases):
            with self.subTest(policy=policy):
                sites[0].daemon.stop()
                sites[0].configure(alignment_site("clinic", self.consortium, policy)).start()
                self.consortium.wait_connected("clinic", "mercy")
                job = self.run_plan(alignment_plan(tables, "mercy", name=f"refused-{index}"), state="failed")
                reasons = " ".join(site["reason"] for site in job["sites"])
                self.assertIn(sentence, reasons)

    def test_a_list_larger_than_declared_is_refused(self):
        tables = {"clinic": list(range(0, 700)), "mercy": list(range(50, 150))}
        self.hospitals_with(tables)
        job = self.run_plan(alignment_plan(tables, "mercy", patients=100), state="failed")
        self.assertIn("the plan's cohort and this site's policy allow", job["reason"])
        self.assertIsNone(self.cohort("mercy", job["job"]))

    def test_a_month_has_so_many_points(self):
        tables = {"clinic": list(range(0, 100)), "mercy": list(range(50, 150))}  # 168 points each, padded
        self.hospitals_with(tables, policy="minimum: 0, sessions: {day: 100}, tokens: {session: 2000, month: 400}")
        for index in range(2):
            self.check(tables, "mercy", self.run_plan(alignment_plan(tables, "mercy", name=f"job-{index}", study=f"{index}"))["job"])
        third = self.run_plan(alignment_plan(tables, "mercy", name="third", study="third"), state="failed")
        self.assertIn("336 points left this site in the last 30 days, 168 more are too many: the policy allows 400", third["reason"])

    def test_a_second_key_for_a_site_and_an_added_site_are_refused(self):
        tables = {"clinic": list(range(0, 60)), "mercy": list(range(20, 80))}
        clinic, mercy = self.hospitals_with(tables)
        known = {member["site"]: member["fingerprint"] for member in mercy.json("roster", "show")["members"]}["clinic"]

        # The authority issues a certificate for the clinic's name to another machine, which signs with its own key.
        clinic.daemon.stop()
        shutil.rmtree(clinic.folder / "keys")
        clinic.join_file.write_text(self.consortium.server("token", "new", "clinic", "--rejoin").stdout)
        clinic.command("join", clinic.join_file)
        clinic.start()
        self.consortium.wait_connected("clinic", "mercy")
        self.approve_rosters([clinic])  # the intruder believes everybody
        job = self.run_plan(alignment_plan(tables, "mercy"), state="failed")
        other = {member["site"]: member["fingerprint"] for member in clinic.json("roster", "show")["members"]}["clinic"]
        self.assertNotEqual(known, other)
        self.assertIn(known, job["reason"] + mercy.daemon.text())
        self.assertIn(other, job["reason"] + mercy.daemon.text())
        self.assertIsNone(self.cohort("mercy", job["job"]))
        self.assertEqual([], list((mercy.folder / "personal").glob("*/list-*")))

        # A hospital that nobody knows.
        stranger = self.consortium.site("stranger").join()
        write_persons(stranger.folder / "persons.csv", range(100))
        stranger.configure(alignment_site("stranger", self.consortium)).start()
        self.consortium.wait_connected("stranger")
        self.approve_rosters([stranger])
        with_stranger = {"mercy": tables["mercy"], "stranger": list(range(100))}
        job = self.run_plan(alignment_plan(with_stranger, "stranger", name="stranger"), state="failed")
        self.assertIn("is not in the roster that site 'mercy' approved", job["reason"])
        self.assertIsNone(self.cohort("stranger", job["job"]))

    def memory(self):
        """What the coordinator has in memory now, messages under way included; b"" where a sanitizer maps terabytes."""
        process = pathlib.Path(f"/proc/{self.consortium.daemon.process.pid}")
        if int(re.search(r"VmSize:\s+(\d+)", (process / "status").read_text()).group(1)) > 100 * 2**20:
            return b""
        found = []
        with open(process / "mem", "rb", buffering=0) as memory:
            for line in (process / "maps").read_text().splitlines():
                start, end, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
                if rights.startswith("rw") and "[vv" not in line:
                    with contextlib.suppress(OSError):
                        memory.seek(int(start, 16))
                        found.append(memory.read(int(end, 16) - int(start, 16)))
        return b"".join(found)

    def test_what_the_coordinator_holds_says_nothing_about_anybody(self):
        tables = {"clinic": list(range(0, 400)), "mercy": list(range(200, 600)), "registry": list(range(100, 500))}
        sites = self.hospitals_with(tables)
        held, known, memories = {}, set(), []
        name = self.consortium.submit(alignment_plan(tables, "mercy"))

        def look():
            for path in (self.consortium.state / "blobs").rglob("*"):
                with contextlib.suppress(OSError):
                    if path not in held and path.is_file():
                        held[path] = path.read_bytes()
            for site in sites:  # points and tags, as the workers have them
                for path in [*site.folder.glob("personal/*/list-*"), *site.folder.glob("tasks/*/task/list-*")]:
                    with contextlib.suppress(OSError):
                        content = path.read_bytes()
                        width = 12 if len(content) < 32 + 400 * 32 else 32
                        known.update(content[at:at + width] for at in range(32, len(content) - width, 40 * width))
            job = self.consortium.job(name)
            return job if job["state"] in ("complete", "failed") else None

        has_ended = threading.Event()

        def remember():
            while len(memories) < 15 and not has_ended.is_set():
                memories.append(self.memory())

        watcher = threading.Thread(target=remember)
        watcher.start()
        try:
            job = wait_until(look, "the alignment to end", 120)
        finally:
            has_ended.set()
            watcher.join()
        look()
        self.assertEqual("complete", job["state"], job["reason"])
        everything = b"".join(held.values())
        for path in (self.consortium.state / "db").iterdir():
            everything += path.read_bytes()
        self.assertGreater(len(everything), 3 * 400 * 32)
        self.assertGreater(len(known), 20)
        for number in (0, 150, 250, 399, 450, 599):
            for word in person(number).values():
                if len(word) > 4:
                    self.assertNotIn(word.encode(), everything)
        for point in known:
            self.assertNotIn(point, everything)
        self.assertNotIn(b"CSALIGN1", everything)
        for memory in memories:
            self.assertTrue(not memory or (name.encode() in memory and b"registry" in memory))
            for word in (b"Meier", b"CSALIGN1", *known):
                self.assertNotIn(word, memory)
        for path, content in held.items():  # some were just being begun
            self.assertTrue(b"csseal1\n".startswith(content[:8]), f"{path} is not sealed")

    def test_an_agent_dies_at_each_place_where_a_session_changes(self):
        tables = {"clinic": list(range(0, 150)), "mercy": list(range(50, 250))}
        sites = self.hospitals_with(tables)
        # Saved: the own secret, the peer's key, its terms. The leader seals its list, then an answer.
        places = ["agent.session.save=kill@1", "agent.session.save=kill@2", "agent.session.save=kill@3", "agent.alignment.spend=kill@1",
                  "agent.parcel.seal=kill@1", "agent.parcel.open=kill@1", "agent.result.stored=kill@2", "agent.upload.recorded=kill@1"]
        for index, place in enumerate(places):
            with self.subTest(place=place):
                victim = sites[index % 2]
                victim.daemon.stop()
                victim.start(CONSILIUM_FAILPOINTS=place)
                self.consortium.wait_connected(*tables)
                name = self.consortium.submit(alignment_plan(tables, "mercy", name=f"place-{index}", study=place))
                wait_until(lambda: not victim.daemon.is_running(), f"the agent to die at {place}")
                victim.start()
                job = self.consortium.wait_job(name)
                self.assertEqual("complete", job["state"], job["reason"])
                self.check(tables, "mercy", name)

    def test_random_kills_of_everybody_give_the_same_cohort(self):
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        tables = {"clinic": list(range(0, 3000)), "mercy": list(range(1000, 4000)), "registry": list(range(500, 3500))}
        sites = self.hospitals_with(tables)
        name = self.consortium.submit(alignment_plan(tables, "mercy", patients=4000, keys=SIX_KEYS))
        kills = 0
        while kills < 12:
            if self.consortium.job(name)["state"] in ("complete", "failed", "partial"):
                break
            victim = chance.choice(["coordinator", "agent", "agent", "worker", "worker"])
            site = chance.choice(sites)
            if victim == "coordinator":
                self.consortium.daemon.kill()
                self.consortium.start()
            elif victim == "agent":
                site.daemon.kill()
                site.start()
            else:
                pids = site.worker_pids()
                if not pids:
                    continue
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            kills += 1
            until = time.monotonic() + chance.random() * 0.4
            wait_until(lambda: time.monotonic() > until, "the next kill")
        job = self.consortium.wait_job(name, patience_s=240)
        self.assertEqual("complete", job["state"], f"seed {seed}, {kills} kills: {job['reason']}")
        self.check(tables, "mercy", job["job"])
        print(f"seed {seed}: {kills} kills", end=" ", flush=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
