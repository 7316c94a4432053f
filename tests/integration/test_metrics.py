"""GET /metrics of both daemons while a job runs, judged by promtool and read by a real Prometheus where Debian's package
has been unpacked (tests/install); the dashboard and the alerts ask for nothing that is not there."""

import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import unittest
import urllib.parse

import harness
from harness import CLIENT, SERVER, SOURCE, ConsortiumTest, Daemon, Failed, free_ports, plan_yaml, run, wait_until

TOOLS = SOURCE / "build" / "tools" / "usr" / "bin"
MONITORING = SOURCE / "deploy" / "monitoring"
SAMPLE = re.compile(r'^([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)$')


def tool(name):
    found = shutil.which(name) or shutil.which(name, path=TOOLS)
    if not found:
        raise unittest.SkipTest(f"not run: no {name}; tests/install unpacks Debian's package prometheus")
    return found


def request(port, method="GET", path="/metrics"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def samples(text):
    """{(name, ((label, value), ...)): number}; whatever is not of the format is an error."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# HELP ") or line.startswith("# TYPE "):
            continue
        match = SAMPLE.match(line)
        if not match:
            raise Failed(f"no sample: {line}")
        labels = tuple(sorted(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', match.group(2) or "")))
        if (match.group(1), labels) in found:
            raise Failed(f"twice: {line}")
        found[match.group(1), labels] = float(match.group(3))
    return found


def value(page, name, **labels):
    return page.get((name, tuple(sorted(labels.items()))))


def names_in(expression):
    """The metrics that a query asks for."""
    words = re.sub(r'\{[^}]*\}|\[[^]]*\]|"[^"]*"|\bby \([^)]*\)|\bon \([^)]*\)|group_left \([^)]*\)', "", expression)
    return set(re.findall(r"\b(?:consilium|process)_[a-z0-9_]+", words))


def listens_on(pid):
    """Addresses of the TCP sockets that a process listens on."""
    inodes = set()
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(entry)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.append(fields[1].split(":")[0])
    return found


class MetricsTest(ConsortiumTest):
    server_options = ("metrics: 127.0.0.1:0",)

    def port_of(self, daemon):
        return int(wait_until(lambda: re.findall(r"msg=metrics port=(\d+)", daemon.text()), "the port of metrics")[-1])

    def page(self, daemon):
        answer, body = request(self.port_of(daemon))
        self.assertEqual(answer.status, 200, body)
        return body

    def numbers(self, daemon):
        return samples(self.page(daemon))

    def check(self, text):
        checked = subprocess.run([tool("promtool"), "check", "metrics"], input=text, capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""), text)

    def test_what_a_job_does_is_on_both_pages(self):
        first, second = sites = self.hospitals(2, extra="metrics: 127.0.0.1:0")
        job = self.consortium.submit(plan_yaml(rounds=40))

        def in_a_round():
            page = self.numbers(self.consortium.daemon)
            return page if (value(page, "consilium_job_round", job_name=job) or 0) >= 2 else None
        running = wait_until(in_a_round, "round 2")
        self.assertEqual(value(running, "consilium_jobs", state="running"), 1)
        self.assertEqual(value(running, "consilium_job_planned_rounds", job_name=job), 40)
        self.assertGreater(value(running, "consilium_job_last_round_duration_seconds", job_name=job), 0)
        self.assertEqual(self.consortium.wait_job(job)["state"], "complete")

        ended = self.numbers(self.consortium.daemon)
        self.assertEqual(value(ended, "consilium_jobs", state="complete"), 1)
        self.assertIsNone(value(ended, "consilium_job_round", job_name=job))
        self.assertEqual(value(ended, "consilium_sites", state="enrolled"), 2)
        self.assertEqual(value(ended, "consilium_blob_uploads"), 0)
        self.assertGreater(value(ended, "consilium_state_bytes", what="blobs"), 0)
        self.assertGreater(value(ended, "consilium_certificate_left_seconds"), 6 * 86400)
        for site in sites:
            def answered():
                page = self.numbers(site.daemon)
                return page if value(page, "consilium_tasks_open") == 0 else None
            here = wait_until(answered, "every answer")
            self.assertEqual(value(ended, "consilium_site_attending", site=site.name), 1)
            self.assertGreater(value(ended, "consilium_site_certificate_left_seconds", site=site.name), 6 * 86400)
            folded = value(ended, "consilium_site_tasks_total", site=site.name, outcome="folded")
            self.assertGreaterEqual(folded, 40)
            self.assertEqual(value(here, "consilium_tasks_total", outcome="done"), folded)
            self.assertEqual(value(here, "consilium_results_answered_total", verdict="accepted"), folded)
            for here_name, there_name in (("sent", "received"), ("received", "sent")):
                self.assertEqual(value(here, f"consilium_blob_{here_name}_bytes_total"),
                                 value(ended, f"consilium_blob_{there_name}_bytes_total", site=site.name))
            self.assertGreater(value(here, "consilium_blob_sent_bytes_total"), 0)
            self.assertEqual(value(here, "consilium_attending"), 1)
            self.assertEqual(value(here, "consilium_sessions_total"), 1)
            self.assertEqual(value(here, "consilium_worker_starts_total"), 1)
            self.assertEqual(value(here, "consilium_transcript_records"), site.json("status")["transcript_records"])

    def test_a_lost_line_and_a_lost_worker_are_counted(self):
        (site,) = self.hospitals(1, extra="metrics: 127.0.0.1:0")
        job = self.consortium.submit(plan_yaml(rounds=400, steps=200, minimum=1))
        worker = wait_until(site.worker_pids, "a worker")[0]
        wait_until(lambda: value(self.numbers(site.daemon), "consilium_worker_starts_total") == 1, "it to be ready")
        os.kill(worker, 9)
        wait_until(lambda: value(self.numbers(site.daemon), "consilium_worker_losses_total") == 1 and
                   value(self.numbers(site.daemon), "consilium_worker_starts_total") == 2, "the next worker")

        self.consortium.daemon.kill()
        wait_until(lambda: value(self.numbers(site.daemon), "consilium_attending") == 0, "the site to notice")
        self.consortium.start()
        wait_until(lambda: value(self.numbers(site.daemon), "consilium_attending") == 1, "the site to be back")
        self.assertEqual(value(self.numbers(site.daemon), "consilium_sessions_total"), 2)
        self.consortium.server("job", "cancel", job)

    def test_promtool_accepts_both_pages_and_the_alerts(self):
        promtool = tool("promtool")
        (site,) = self.hospitals(1, extra="metrics: 127.0.0.1:0")
        job = self.consortium.submit(plan_yaml(rounds=400, steps=200, minimum=1))
        wait_until(lambda: (value(self.numbers(self.consortium.daemon), "consilium_job_round", job_name=job) or 0) >= 2, "round 2")

        self.check(self.page(self.consortium.daemon))
        self.check(self.page(site.daemon))
        self.consortium.server("job", "cancel", job)
        self.check(self.page(self.consortium.daemon))
        run([promtool, "check", "rules", MONITORING / "alerts.yaml"])
        run([promtool, "test", "rules", MONITORING / "alerts_test.yaml"])

    def test_every_query_has_its_metric_and_every_metric_its_line_in_the_documents(self):
        (site,) = self.hospitals(1, extra="metrics: 127.0.0.1:0")
        job = self.consortium.submit(plan_yaml(rounds=400, steps=200, minimum=1))
        wait_until(lambda: (value(self.numbers(self.consortium.daemon), "consilium_job_round", job_name=job) or 0) >= 2, "round 2")
        exported = {name for name, _ in [*self.numbers(self.consortium.daemon), *self.numbers(site.daemon)]}

        dashboard = json.loads((MONITORING / "dashboard.json").read_text())
        queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        queries += re.findall(r"(?m)^\s+expr: (.*)$", (MONITORING / "alerts.yaml").read_text())
        self.assertGreater(len(queries), 40)
        for query in queries:
            if not query.startswith("up{"):
                self.assertTrue(names_in(query), query)
            self.assertLessEqual(names_in(query), exported, query)
        documented = set(re.findall(r"(?m)^\| `([a-z_]+)", (SOURCE / "docs" / "metrics.md").read_text()))
        self.assertEqual(documented, exported)
        self.consortium.server("job", "cancel", job)

    def test_a_prometheus_reads_both_and_answers_every_query_of_the_dashboard(self):
        prometheus = tool("prometheus")
        (site,) = self.hospitals(1, extra="metrics: 127.0.0.1:0")
        job = self.consortium.submit(plan_yaml(rounds=2000, steps=200, minimum=1))
        (own,) = free_ports(1)
        config = self.folder / "prometheus.yml"
        config.write_text(f"""global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}
rule_files: ["{MONITORING}/alerts.yaml"]
scrape_configs:
  - job_name: consilium
    static_configs:
      - targets: ["127.0.0.1:{self.port_of(self.consortium.daemon)}", "127.0.0.1:{self.port_of(site.daemon)}"]
""")
        daemon = Daemon([prometheus, f"--config.file={config}", f"--storage.tsdb.path={self.folder}/tsdb",
                         f"--web.listen-address=127.0.0.1:{own}"], self.folder / "prometheus.log")
        self.addCleanup(daemon.stop)
        daemon.start()

        def ask(query):
            try:
                _, body = request(own, path="/api/v1/query?" + urllib.parse.urlencode({"query": query}))
                answer = json.loads(body)
            except (OSError, ValueError):
                return []
            self.assertNotEqual(answer["status"], "error", answer)
            return answer["data"]["result"] if answer["status"] == "success" else []

        wait_until(lambda: len(ask("up == 1")) == 2, "both to be scraped")
        wait_until(lambda: ask('consilium_site_tasks_total{outcome="folded"} > 3'), "some rounds")
        dashboard = json.loads((MONITORING / "dashboard.json").read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                wait_until(lambda: ask(target["expr"]), f"an answer to {target['expr']}")
        self.assertTrue(ask(f'consilium_job_round{{job_name="{job}", job="consilium"}}'))
        self.consortium.server("job", "cancel", job)

    def test_only_get_metrics_is_answered_and_nothing_of_the_data_is_on_the_page(self):
        (site,) = self.hospitals(1, extra="metrics: 127.0.0.1:0")
        job = self.consortium.submit(plan_yaml(rounds=3, minimum=1))
        self.consortium.wait_job(job)
        for daemon, folder in ((self.consortium.daemon, self.consortium.state), (site.daemon, site.folder)):
            port = self.port_of(daemon)
            self.assertEqual(request(port, path="/")[0].status, 404)
            answer, _ = request(port, method="POST")
            self.assertEqual((answer.status, answer.getheader("Allow")), (405, "GET"))
            page = self.page(daemon)
            for word in (str(folder), "demo.csv", "pressure", "outcome,", "BEGIN", "loss{"):
                self.assertNotIn(word, page)
            self.assertIn("0100007F", listens_on(daemon.process.pid))

    def test_nobody_listens_where_nothing_is_configured(self):
        (site,) = self.hospitals(1)

        self.assertEqual(listens_on(site.daemon.process.pid), [])

    def test_an_address_that_others_reach_and_a_port_in_use_are_refused_by_name(self):
        (site,) = self.hospitals(1, start=False, extra="metrics: 0.0.0.0:9465")
        refused = run([CLIENT, "run", "--state", site.folder], expect=1)
        self.assertRegex(refused.stderr, r"site\.yaml:\d+:\d+: metrics: found 0\.0\.0\.0:9465, expected .*127\.0\.0\.1")

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            site.configure(harness.site_yaml(site.name, self.consortium, extra=f"metrics: localhost:{port}"))
            refused = run([CLIENT, "run", "--state", site.folder], expect=1)
            self.assertIn(f"another program listens on localhost:{port}", refused.stderr)
            self.consortium.daemon.stop()
            self.consortium.add_server_options(f"metrics: 127.0.0.1:{port}")
            refused = run([SERVER, "run", "--state", self.consortium.state], expect=1)
            self.assertIn(f"another program listens on 127.0.0.1:{port}", refused.stderr)
        self.consortium.add_server_options("metrics: 192.0.2.1:9464")
        refused = run([SERVER, "run", "--state", self.consortium.state], expect=1)
        self.assertRegex(refused.stderr, r"server\.yaml:\d+:\d+: metrics: found 192\.0\.2\.1:9464, expected")


if __name__ == "__main__":
    unittest.main()
