"""`consilium-client doctor` beside real daemons: what it says when all is well, and of what only a coordinator can tell."""

import contextlib
import json
import re
import shutil
import socket
import threading
import time
import unittest

import harness
from harness import CLIENT, ConsortiumTest, plan_yaml, run, wait_until


class SlowLine:
    """A line to the coordinator that lets so many bytes a second pass, each way."""

    def __init__(self, port, bytes_a_second):
        self.target, self.rate = port, bytes_a_second
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = [self.listener]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                self.open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, source, target):
        part = self.rate // 20
        with contextlib.suppress(OSError):
            while data := source.recv(part):
                target.sendall(data)
                time.sleep(len(data) / self.rate)  # this is the line's slowness, not a wait for something
            target.shutdown(socket.SHUT_WR)

    def close(self):
        for item in self.open:
            item.close()


def doctor(site, expect=0, folder=None):
    answer = run([CLIENT, "doctor", "--state", folder or site.folder, "--json"], expect=expect)
    return json.loads(answer.stdout)["findings"]


def of(findings, identifier):
    return [finding for finding in findings if finding["id"] == identifier]


class DoctorTest(ConsortiumTest):
    def test_a_healthy_site_is_found_healthy(self):
        site, _ = self.hospitals(2)

        findings = doctor(site)
        text = run([CLIENT, "doctor", "--state", site.folder]).stdout

        found = {finding["id"] for finding in findings}
        for identifier in ("configuration.ok", "identity.ok", "keys.ok", "certificate.ok", "address.ok", "connection.ok", "tls.ok",
                           "coordinator.ok", "clock.ok", "bandwidth.ok", "worker.ok", "data.ok"):
            self.assertIn(identifier, found)
        self.assertIn("the newest that the coordinator has issued", text)
        self.assertRegex(text, r"a model of 100 MB takes about \d+ s to come")
        self.assertRegex(text, r"demo-v1: 60 rows, 0 dropped; train 40, valid 0, test 20")

    def test_an_old_copy_of_the_state_folder_is_told_that_its_certificate_was_replaced(self):
        site = self.consortium.site("mercy").join()
        harness.write_table(site.folder / "demo.csv", seed=1)
        site.configure(harness.site_yaml(site.name, self.consortium))
        copy = self.folder / "copy"
        shutil.copytree(site.folder, copy)
        site.join_file.write_text(self.consortium.server("token", "new", site.name, "--rejoin").stdout)
        site.command("join", site.join_file)

        findings = doctor(site, expect=6, folder=copy)

        self.assertEqual(len(of(findings, "certificate.replaced")), 1)
        self.assertIn("--rejoin", of(findings, "certificate.replaced")[0]["action"])
        self.assertFalse(of(doctor(site), "certificate.replaced"))

    def test_a_revoked_site_is_told_so(self):
        site = self.consortium.site("mercy").join()
        harness.write_table(site.folder / "demo.csv", seed=1)
        site.configure(harness.site_yaml(site.name, self.consortium))
        self.consortium.server("site", "revoke", site.name, "--reason", "key stolen")

        findings = doctor(site, expect=6)

        self.assertIn("revoked: key stolen", of(findings, "coordinator.denies")[0]["found"])

    def test_plans_that_wait_are_held_against_the_policy_and_the_data(self):
        site, _ = self.hospitals(2)
        site.daemon.stop()
        site.configure(harness.site_yaml(site.name, self.consortium, approve=False))
        rows = (site.folder / "demo.csv").read_text().splitlines()
        rows[4] = rows[4].replace(rows[4].split(",")[1], "high", 1)
        rows[9] = rows[9].replace(rows[9].split(",")[1], "high", 1)
        rows[11] = "," + rows[11].split(",", 1)[1]
        (site.folder / "demo.csv").write_text("\n".join(rows) + "\n")
        site.start()
        self.consortium.wait_connected(site.name)
        job = self.consortium.submit(plan_yaml())
        wait_until(lambda: site.json("plan", "list"), "the plan to arrive")

        running = doctor(site, expect=6)
        site.daemon.stop()
        stopped = doctor(site, expect=6)

        for findings in (running, stopped):
            self.assertIn(f"job '{job}': the policy approves nothing by itself", of(findings, "plan.waits")[0]["found"])
            cells = [finding for finding in of(findings, "data.cells") if "for plan" in finding["found"]]
            self.assertEqual(cells[0]["found"],
                             "demo-v1 for plan 'demo': not a number: pressure 2, first in line 5")
            self.assertEqual(cells[0]["level"], "fail")
            self.assertTrue([finding for finding in of(findings, "data.ok")
                             if "rows have a missing value: age 1, first in line 12" in finding["found"]])
            self.assertNotIn("high", json.dumps(findings))

    def test_a_column_that_the_plan_uses_and_the_table_lacks_is_named(self):
        site, _ = self.hospitals(2)
        site.daemon.stop()
        site.configure(harness.site_yaml(site.name, self.consortium, approve=False))
        table = (site.folder / "demo.csv").read_text()
        (site.folder / "demo.csv").write_text(table.replace("pressure", "trestbps", 1))
        site.start()
        self.consortium.wait_connected(site.name)
        self.consortium.submit(plan_yaml())
        wait_until(lambda: site.json("plan", "list"), "the plan to arrive")

        findings = doctor(site, expect=6)

        self.assertEqual(of(findings, "data.column")[0]["found"],
                         "demo-v1 for plan 'demo': no column 'pressure', which the plan names")

    def test_a_slow_line_is_found_with_its_rate(self):
        site = self.consortium.site("mercy").join()
        harness.write_table(site.folder / "demo.csv", seed=1)
        line = SlowLine(self.consortium.port, bytes_a_second=24_000)
        self.addCleanup(line.close)
        site.configure(harness.site_yaml(site.name, self.consortium).replace(f":{self.consortium.port}", f":{line.port}"))

        slow = of(doctor(site), "bandwidth.slow")

        rates = re.fullmatch(r"(\d+) KB/s up, (\d+) KB/s down: a model of 100 MB takes about (\d+) s to come, its update (\d+) s to go",
                             slow[0]["found"])
        for rate in rates.groups()[:2]:
            self.assertTrue(12 <= int(rate) <= 36, slow[0]["found"])

    def test_a_site_probes_the_line_only_so_often(self):
        site = self.consortium.site("mercy").join()
        harness.write_table(site.folder / "demo.csv", seed=1)
        site.configure(harness.site_yaml(site.name, self.consortium))

        for _ in range(20):
            refused = of(doctor(site), "bandwidth.unmeasured")
            if refused:
                break

        self.assertIn("probed the line 60 times within ten minutes", refused[0]["found"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
