"""Sites that find their common patients: rosters, sessions and alignment through real daemons."""

import pathlib
import shutil
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


if __name__ == "__main__":
    unittest.main(verbosity=2)
