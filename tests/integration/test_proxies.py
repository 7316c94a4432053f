"""Hospital proxies: enrolment, sessions, transfers and renewals through a real one, and a sentence for each that does not work.

The proxy is tinyproxy (Debian's tinyproxy-bin), and squid too where it is installed; neither is started as a service.
"""

import contextlib
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import unittest

import harness
from harness import ConsortiumTest, Failed, plan_yaml, run, wait_until

USER, PASSWORD = "radiology", "Korrekt-Pferd-8"


class Tinyproxy:
    program = shutil.which("tinyproxy", path="/usr/bin:/usr/sbin:/bin:/sbin")

    def __init__(self, folder, ports, login=True, idle_s=600):
        self.folder = pathlib.Path(folder)
        self.port = harness.free_ports(1)[0]
        self.log = self.folder / "proxy.log"
        self.configure(ports, login, idle_s)
        self.process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self.answers, "the proxy to listen")

    def configure(self, ports, login, idle_s):
        lines = [f"Port {self.port}", "Listen 127.0.0.1", "Allow 127.0.0.1", f"Timeout {idle_s}", f'LogFile "{self.log}"',
                 "LogLevel Connect", "MaxClients 50"] + [f"ConnectPort {port}" for port in ports]
        if login:
            lines.append(f"BasicAuth {USER} {PASSWORD}")
        self.configuration = self.folder / "tinyproxy.conf"
        self.configuration.write_text("\n".join(lines) + "\n")

    def command(self):
        return [self.program, "-d", "-c", self.configuration]

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def tunnels(self, port):
        """How often somebody was connected to that port."""
        return len(re.findall(rf"CONNECT localhost:{port} HTTP/1", self.log.read_text(errors="replace")))

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Squid(Tinyproxy):
    program = shutil.which("squid", path="/usr/bin:/usr/sbin:/bin:/sbin")

    def configure(self, ports, login, idle_s):
        users = self.folder / "users"
        users.write_text(f"{USER}:{run(['openssl', 'passwd', '-apr1', PASSWORD]).stdout}")
        self.log.touch()
        for path in (self.folder, users, self.log):  # squid gives up root's rights
            shutil.chown(path, "proxy")
        rule = "known" if login else "all"
        self.configuration = self.folder / "squid.conf"
        self.configuration.write_text(f"""http_port 127.0.0.1:{self.port}
auth_param basic program /usr/lib/squid/basic_ncsa_auth {users}
acl known proxy_auth REQUIRED
acl sites port {' '.join(map(str, ports))}
http_access deny !sites
http_access allow {rule}
http_access deny all
access_log stdio:{self.log} combined
cache_log {self.folder}/cache.log
pid_filename {self.folder}/squid.pid
coredump_dir {self.folder}
cache deny all
cache_mem 8 MB
read_timeout {idle_s} seconds
shutdown_lifetime 0 seconds
hosts_file /etc/hosts
workers 1
""")

    def command(self):
        return [self.program, "-N", "-f", self.configuration]

    def stop(self):
        with contextlib.suppress(ValueError):
            self.process.terminate()
        self.process.wait()

    def tunnels(self, port):
        # A line stands there once the tunnel is closed.
        return len(re.findall(rf'"CONNECT localhost:{port} HTTP/1\.\d" 200', self.log.read_text(errors="replace")))


class Babbler:
    """Answers everything with the same bytes, or with nothing."""

    def __init__(self, answer):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.recv(4096)
                if self.answer is None:
                    self.open.append(connection)
                    continue
                connection.sendall(self.answer)
                connection.close()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.open:
            connection.close()


class ProxyTest(ConsortiumTest):
    proxy_kind = Tinyproxy
    server_options = ("certificate_life: 10s",)

    def proxy(self, **options):
        if self.proxy_kind.program is None:
            self.skipTest(f"not run: {self.proxy_kind.__name__.lower()} is not installed")
        folder = self.folder / "proxy"
        folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)
        options.setdefault("ports", [self.consortium.port, self.consortium.enrolment_port])
        proxy = self.proxy_kind(folder, **options)
        self.addCleanup(proxy.stop)
        return proxy

    def login_file(self, text=f"{USER}:{PASSWORD}\n", mode=0o600):
        path = self.folder / "login"
        path.write_text(text)
        path.chmod(mode)
        return path

    def join_command(self, site, port, login=None):
        site.join_file.write_text(self.consortium.server("token", "new", site.name).stdout)
        words = ["join", site.join_file, "--proxy", f"127.0.0.1:{port}"]
        return words + (["--proxy-login", login] if login else [])

    def hospital_behind(self, proxy, login):
        """Joins through the proxy and runs; the proxy is where join wrote it."""
        site = self.consortium.site("hospital-2")
        table = self.folder / "demo.csv"
        harness.write_table(table, seed=2)
        site.command(*self.join_command(site, proxy.port, login), "--dataset", f"demo-v1={table}", "--approve", "demo-v1")
        return site.start()

    def test_everything_goes_through_a_proxy_with_a_login_from_a_file(self):
        proxy = self.proxy()
        near, = self.hospitals(1)
        site = self.hospital_behind(proxy, self.login_file())
        self.consortium.wait_connected(site.name)
        seen = set()

        job = self.consortium.submit(plan_yaml(rounds=100000, steps=20))
        wait_until(lambda: self.consortium.job(job)["round"] >= 2, "two rounds")
        wait_until(lambda: site.daemon.text().count("certificate renewed") >= 2, "two renewals")
        reached = self.consortium.job(job)["round"]
        wait_until(lambda: self.consortium.job(job)["round"] > reached + 1, "the job to go on")
        for pid in [site.daemon.process.pid, *site.worker_pids()]:
            seen.add(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() + pathlib.Path(f"/proc/{pid}/environ").read_bytes())
        status = site.command("status", "--json").stdout
        history = self.consortium.job(job)["history"]
        self.consortium.server("job", "cancel", job)
        proxy.stop()
        reason = wait_until(lambda: site.json("status")["reason"], "the site to notice that the proxy is gone")
        wait_until(lambda: "Connection refused" in site.json("status")["reason"], "it to say why")

        self.assertFalse([entry for entry in history if entry["not_folded"]])
        self.assertGreaterEqual(proxy.tunnels(self.consortium.enrolment_port), 1)
        # The session and its transfers, and again with each renewed certificate.
        self.assertGreaterEqual(proxy.tunnels(self.consortium.port), 4)
        self.assertIn(near.name, self.consortium.connected())
        written = site.daemon.text() + status + reason + "".join(map(repr, seen))
        written += "".join(path.read_text(errors="replace") for path in site.folder.rglob("*")
                           if path.is_file() and not path.is_symlink())
        self.assertNotIn(PASSWORD, written)
        self.assertNotIn("cmFkaW9sb2d5Ok", written)  # of the same in base 64

    def says(self, site, *words):
        def reason():
            text = site.command("status", expect=None).stdout
            return text if all(word in text for word in words) else None
        try:
            return wait_until(reason, f"'{site.name}' to say {words}", 30)
        except Failed:
            self.fail(f"expected {words}, found: {site.command('status', expect=None)}")

    def each_fault(self, port, login, *words):
        """At the door and on the way: `join` fails with the sentence, and an agent that has joined says it in its status."""
        stranger = self.consortium.site("newcomer")
        refused = stranger.command(*self.join_command(stranger, port, login), expect=1).stderr
        for word in words:
            self.assertIn(word, refused)
        self.assertFalse((stranger.folder / "site.yaml").exists())

        site = self.consortium.site("mercy").join()
        extra = f"proxy: 127.0.0.1:{port}\n" + (f"proxy_login_file: {login}\n" if login else "")
        site.configure(harness.site_yaml(site.name, self.consortium, extra=extra)).start()
        reason = self.says(site, *words)
        self.assertNotIn(PASSWORD, refused + reason + site.daemon.text())
        begun = time.monotonic()
        self.assertEqual(site.daemon.stop(), 0)
        self.assertLess(time.monotonic() - begun, 15)

    def test_a_wrong_password_is_said(self):
        proxy = self.proxy()
        self.each_fault(proxy.port, self.login_file(f"{USER}:wrong\n"), f"proxy 127.0.0.1:{proxy.port}",
                        "wants a login, or another one")

    def test_a_missing_password_is_said(self):
        proxy = self.proxy()
        self.each_fault(proxy.port, None, f"proxy 127.0.0.1:{proxy.port}", "wants a login, or another one")

    def test_a_proxy_that_refuses_the_port_is_said(self):
        proxy = self.proxy(ports=[443], login=False)
        self.each_fault(proxy.port, None, f"proxy 127.0.0.1:{proxy.port}", "refuses to connect to localhost:", "403")

    def test_a_proxy_without_a_login_needs_none(self):
        proxy = self.proxy(login=False)
        site = self.hospital_behind(proxy, None)
        self.consortium.wait_connected(site.name)


@unittest.skipIf(Squid.program is None, "not run: squid is not installed")
class SquidTest(ProxyTest):
    proxy_kind = Squid


class BadProxyTest(ProxyTest):
    """What no proxy of Debian does."""

    test_everything_goes_through_a_proxy_with_a_login_from_a_file = None
    test_a_wrong_password_is_said = None
    test_a_missing_password_is_said = None
    test_a_proxy_that_refuses_the_port_is_said = None
    test_a_proxy_without_a_login_needs_none = None

    def babbler(self, answer):
        babbler = Babbler(answer)
        self.addCleanup(babbler.stop)
        return babbler

    def test_what_answers_but_is_no_proxy_is_said(self):
        babbler = self.babbler(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n")
        self.each_fault(babbler.port, None, f"proxy 127.0.0.1:{babbler.port}", "does not answer with HTTP", "SSH-2.0")

    def test_a_proxy_that_is_down_is_said(self):
        port = harness.free_ports(1)[0]
        self.each_fault(port, None, "proxy", f"127.0.0.1:{port}", "Connection refused")

    def test_a_password_that_others_may_read_is_refused(self):
        port = harness.free_ports(1)[0]
        self.each_fault(port, self.login_file(mode=0o644), "login holds a password", "0644", "chmod 600")

    def test_a_login_without_a_colon_is_refused_and_not_shown(self):
        site = self.consortium.site("newcomer")
        words = self.join_command(site, harness.free_ports(1)[0], self.login_file(f"{PASSWORD}\n"))

        refused = site.command(*words, expect=1).stderr

        self.assertIn("the first line must be user:password", refused)
        self.assertNotIn(PASSWORD, refused)


if __name__ == "__main__":
    unittest.main(verbosity=2)
