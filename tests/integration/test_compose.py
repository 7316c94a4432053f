#!/usr/bin/env python3
"""docker-compose.yml for real: builds the images, starts the consortium, and compares its model with the same job without containers.

    tests/integration/test_compose.py [--compiled] [--compose 'docker compose']

Without --compiled the images take the programs of $CONSILIUM_BUILD (build/dev); with it they compile them, as a user's do (minutes
more). The engine is the one that runs, else one of its own for the time of the test (Debian's docker.io and docker-compose; root).
The base image is $CONSILIUM_BASE, else Debian 12 from a registry, else made by debootstrap from this machine's own mirror.
Everything it made is removed at the end. Prints rows for BENCHMARKS.md. Exit code 77: this machine cannot run it, and why.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import harness
from harness import Consortium, SOURCE, wait_until

DEBIAN = "bookworm"
HOSPITALS = ["north", "east", "south", "west"]
FIVE = ["coordinator", *HOSPITALS]
USER = 10001
JOB_LIMIT_S = max(60.0, harness.PATIENCE_S)  # the goal; more only where the machine is known to be busy
RESIDENT_LIMIT_MB = 1000
COORDINATOR_LIMIT_MB = 60
DISK_NEEDED_GB = 8


class CannotRun(Exception):
    """This machine lacks something; a sentence."""


def say(text):
    print(text, flush=True)


def check(condition, sentence):
    if not condition:
        raise harness.Failed(sentence)
    say(f"  ok: {sentence}")


class Engine:
    """The docker that runs, or one of our own under `folder`."""

    def __init__(self, folder, compose):
        self.folder = folder
        self.environment = dict(os.environ)
        self.daemon = None
        self.docker = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else shutil.which("docker")
        if not self.docker:
            raise CannotRun("docker is not installed (tests/install containers)")
        if compose:
            self.compose = compose.split()
        elif shutil.which("docker-compose"):
            self.compose = ["/usr/bin/docker-compose" if os.path.exists("/usr/bin/docker-compose") else "docker-compose"]
        elif self.run("compose", "version", expect=None).returncode == 0:
            self.compose = [self.docker, "compose"]
        else:
            raise CannotRun("neither docker-compose nor the compose plugin is installed (tests/install containers)")
        if self.run("info", expect=None).returncode != 0:
            self.start_own()
        driver = self.output("info", "--format", "{{.Driver}}")
        if driver == "vfs":
            raise CannotRun("this file system gives the engine no overlay: every layer would be a copy")
        root = self.output("info", "--format", "{{.DockerRootDir}}")
        if os.path.isdir(root) and shutil.disk_usage(root).free < DISK_NEEDED_GB * 1e9:
            raise CannotRun(f"{root} has less than {DISK_NEEDED_GB} GB free")

    def start_own(self):
        if os.geteuid() != 0 or not shutil.which("dockerd"):
            raise CannotRun("no docker daemon answers, and starting one needs root and dockerd (tests/install containers)")
        socket = self.folder / "docker.sock"
        log = self.folder / "dockerd.log"
        # The images are built on this machine's network as it is; the consortium gets a bridge of its own, and nothing is forwarded.
        command = ["dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "--pidfile",
                   self.folder / "dockerd.pid", "--host", f"unix://{socket}", "--bridge", "none", "--ip-forward=false",
                   "--default-address-pool", "base=10.213.0.0/16,size=24"]
        self.leaves_tables = "DOCKER" in self.tables()
        with open(log, "wb") as handle:
            self.daemon = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=handle, stderr=handle)
        self.environment["DOCKER_HOST"] = f"unix://{socket}"
        while self.run("info", expect=None).returncode != 0:
            if self.daemon.poll() is not None:
                lines = log.read_text(errors="replace").strip().splitlines()
                raise CannotRun(f"dockerd does not start here: {lines[-1][-300:] if lines else 'it said nothing'}")
            time.sleep(0.1)

    def tables(self):
        return subprocess.run(["iptables-save"], capture_output=True, text=True).stdout if shutil.which("iptables-save") else ""

    def stop(self):
        if not self.daemon:
            return
        if self.daemon.poll() is None:
            self.daemon.terminate()
            self.daemon.wait(60)
        for line in reversed(pathlib.Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(str(self.folder)):
                subprocess.run(["umount", "-l", line.split()[1]], capture_output=True)
        if not self.leaves_tables:
            self.remove_tables()

    def remove_tables(self):
        """The packet filter as it was: without the chains that dockerd leaves, and without the rules that lead to them."""
        chains = []
        for line in self.tables().splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":DOCKER"):
                chains.append((table, line[1:].split()[0]))
            elif line.startswith("-A") and "DOCKER" in line:
                subprocess.run(["iptables", "-t", table, "-D", *line.split()[1:]], capture_output=True)
        for table, chain in chains:
            subprocess.run(["iptables", "-t", table, "-F", chain], capture_output=True)
        for table, chain in chains:
            subprocess.run(["iptables", "-t", table, "-X", chain], capture_output=True)

    def command(self, words, expect=0, timeout=900, **options):
        environment = {**self.environment, **options.pop("environment", {})}
        try:
            done = subprocess.run([str(word) for word in words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  timeout=timeout, env=environment, **options)
        except subprocess.TimeoutExpired:
            raise harness.Failed(f"{' '.join(map(str, words))}: did not end within {timeout:.0f} s") from None
        if expect is not None and done.returncode != expect:
            raise harness.Failed(f"{' '.join(map(str, words))}\n  exit code {done.returncode}, expected {expect}\n"
                                 f"  {done.stdout[-3000:]}\n  {done.stderr[-3000:]}")
        return done

    def run(self, *words, expect=0, **options):
        return self.command([self.docker, *words], expect, **options)

    def output(self, *words, **options):
        return self.run(*words, **options).stdout.strip()

    def inspect(self, name, form):
        return json.loads(self.output("inspect", "--format", "{{json " + form + "}}", name))


# ---- the base image ----

def host_apt(root):
    """This machine's own way to Debian's packages, for the builds: its mirrors and what apt knows of the network."""
    targets = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages"],
                             capture_output=True, text=True, check=True).stdout.splitlines()
    sources = sorted({tuple(line.split("|")) for line in targets if line.split("|")[1].startswith(DEBIAN)})
    main = [source for source in sources if source[1] == DEBIAN and source[2] == "main"]
    if not main:
        raise CannotRun(f"this machine's apt has no mirror of Debian's {DEBIAN}")
    settings = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    wanted = re.findall(r'(?m)^Acquire::(?:https?|Check|Retries)[^\n]* "[^"\n]+";$', settings)
    apt = root / "etc" / "apt"
    (apt / "apt.conf.d").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(apt / "sources.list.d", ignore_errors=True)
    (apt / "sources.list").write_text("".join(f"deb {uri} {release} {component}\n" for uri, release, component in sources))
    (apt / "apt.conf.d" / "99host").write_text("\n".join(wanted) + "\n")
    authorities = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
    if any(uri.startswith("https:") for uri, _, _ in sources) and authorities.exists():
        (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
        shutil.copy(authorities, root / "etc/ssl/certs")
    return main[0][0]


def make_base(engine, folder, tag, label):
    """A Debian 12 under `tag`, with a label that all layers upon it inherit."""
    root = folder / "base"
    given = os.environ.get("CONSILIUM_BASE")
    origin = given
    if not given:
        with contextlib.suppress(harness.Failed):  # no registry, or none that answers in time
            engine.run("pull", "-q", f"debian:{DEBIAN}-slim", timeout=30)
            origin = f"debian:{DEBIAN}-slim"
    if origin:
        root.mkdir()
        lines = [f"FROM {origin}", f"LABEL {label}"]
        if not given:
            host_apt(root)
            lines.append("COPY etc /etc")
        (root / "Dockerfile").write_text("\n".join(lines) + "\n")
        engine.run("build", "-q", "-t", tag, root)
        return origin
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise CannotRun("no registry is in reach, and debootstrap needs root and its package (tests/install containers)")
    mirror = host_apt(folder / "apt")
    done = subprocess.run(["debootstrap", "--variant=minbase", DEBIAN, str(root), mirror], capture_output=True, text=True)
    if done.returncode != 0:
        raise harness.Failed(f"debootstrap: {done.stdout[-2000:]} {done.stderr[-2000:]}")
    for cache in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
        shutil.rmtree(root / cache)
        (root / cache).mkdir()
    (root / "var/cache/apt/archives/partial").mkdir()
    host_apt(root)
    # As in the image of the registry: no waiting for the disk, no manuals.
    (root / "etc/dpkg/dpkg.cfg.d/image").write_text("force-unsafe-io\npath-exclude /usr/share/doc/*\npath-exclude /usr/share/man/*\n")
    (root / "etc/apt/apt.conf.d/image").write_text('Acquire::Languages "none";\n')
    archive = folder / "base.tar"
    subprocess.run(["tar", "-C", root, "--one-file-system", "-cf", archive, "."], check=True)
    engine.run("import", "--change", f"LABEL {label}", archive, tag)
    archive.unlink()
    shutil.rmtree(root)
    return "debootstrap"


# ---- the consortium ----

class Project:
    def __init__(self, engine, folder, compiled):
        self.engine = engine
        self.name = f"consilium-test-{os.getpid()}"
        self.label = f"consilium.test={os.getpid()}"
        self.base = f"{self.name}-base:latest"
        self.tag = f"test-{os.getpid()}"
        # The network of the machine while building: the builds need its mirror, whatever stands before it.
        override = folder / "build.yml"
        services = ["coordinator", "data", "operator", *HOSPITALS]
        override.write_text(json.dumps({"services": {name: {"build": {"network": "host"}} for name in services}}))
        self.environment = {"CONSILIUM_BASE": self.base, "CONSILIUM_TAG": self.tag, "COMPOSE_DOCKER_CLI_BUILD": "0",
                            "CONSILIUM_PROGRAMS": "compiled" if compiled else "given"}
        self.files = ["-f", SOURCE / "docker-compose.yml", "-f", override, "--project-directory", SOURCE]

    def compose(self, *words, expect=0, **options):
        return self.engine.command([*self.engine.compose, "-p", self.name, *self.files, *words], expect,
                                   environment=self.environment, **options)

    def container(self, service):
        return self.engine.output("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.name}", "--filter",
                                  f"label=com.docker.compose.service={service}")

    def inside(self, service, *words, expect=0):
        done = self.engine.run("exec", self.container(service), *words, expect=expect)
        return done.stdout + done.stderr

    def server(self, *words):
        return self.inside("coordinator", "consilium-server", *words)

    def connected(self):
        return {entry["site"] for entry in json.loads(self.server("site", "list", "--json")) if entry["connected"]}

    def remove(self):
        self.engine.run("rm", "-fv", "mercy-" + self.tag, expect=None)
        self.compose("down", "-v", "--remove-orphans", "-t", "2", expect=None)
        self.engine.run("volume", "rm", "mercy-state-" + self.tag, expect=None)
        images = [f"consilium-{name}:{self.tag}" for name in ("coordinator", "client", "demo")]
        self.engine.run("rmi", "-f", *images, expect=None)
        self.engine.run("image", "prune", "-f", "--filter", f"label={self.label}", expect=None)
        self.engine.run("rmi", "-f", self.base, expect=None)


@contextlib.contextmanager
def given_programs(compiled):
    """The programs of $CONSILIUM_BUILD, stripped, where the Dockerfile looks for them; one test at a time."""
    if compiled:
        yield
        return
    folder = SOURCE / "build" / "programs"
    folder.mkdir(parents=True, exist_ok=True)
    with open(SOURCE / "build" / "programs.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for program in (harness.SERVER, harness.CLIENT, harness.WORKER, harness.CLIENT.with_name("consilium-aligner")):
            subprocess.run(["strip", "-o", folder / program.name, program], check=True)
        try:
            yield
        finally:
            shutil.rmtree(folder)


def build(project, compiled):
    with given_programs(compiled):
        for service in ("coordinator", "north", "data"):
            begun = time.monotonic()
            project.compose("build", service, timeout=1800)
            say(f"  built {service}: {time.monotonic() - begun:.0f} s")


def sizes(engine, project):
    size = {name: engine.inspect(image, ".Size") / 1e6 for name, image in (
        ("base", project.base), ("coordinator", f"consilium-coordinator:{project.tag}"), ("client", f"consilium-client:{project.tag}"))}
    beyond = size["coordinator"] - size["base"]
    say(f"  base {size['base']:.0f} MB, coordinator {size['coordinator']:.0f} MB, client {size['client']:.0f} MB")
    check(beyond <= COORDINATOR_LIMIT_MB, f"the coordinator's image is {beyond:.0f} MB beyond its base (at most {COORDINATOR_LIMIT_MB})")
    libraries = engine.output("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", f"consilium-coordinator:{project.tag}",
                              "-c", "find / -xdev -name 'libtorch*' | wc -l")
    check(libraries == "0", "the coordinator's image has no libtorch")
    return size


class Resident(threading.Thread):
    """The largest resident sizes of the five containers' processes: daemons, and workers apart."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.roots = pids
        self.done = threading.Event()
        self.daemons_kb = self.workers_kb = self.workers_private_kb = 0

    def sample(self):
        parents, daemons, workers, private = {}, 0, 0, 0
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    text = pathlib.Path(entry.path, "stat").read_text()
                    parents[int(entry.name)] = int(text.rsplit(")", 1)[1].split()[1])
        for pid in parents:
            above = pid
            while above > 1 and above not in self.roots:
                above = parents.get(above, 0)
            if above not in self.roots:
                continue
            with contextlib.suppress(OSError):
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                numbers = dict(re.findall(r"(?m)^(VmRSS|RssAnon):\s+(\d+)", status))
                if "consilium-worke" in status.split("\n")[0]:
                    workers += int(numbers.get("VmRSS", 0))
                    private += int(numbers.get("RssAnon", 0))
                else:
                    daemons += int(numbers.get("VmRSS", 0))
        self.daemons_kb = max(self.daemons_kb, daemons)
        self.workers_kb = max(self.workers_kb, workers)
        self.workers_private_kb = max(self.workers_private_kb, private)

    def run(self):
        while not self.done.wait(0.05):
            self.sample()


def first_job(engine, project):
    begun = time.monotonic()
    project.compose("up", "-d", "--no-build")
    resident = Resident({engine.inspect(project.container(name), ".State.Pid") for name in FIVE})
    resident.start()
    try:
        code = int(engine.output("wait", project.container("operator"), timeout=2 * JOB_LIMIT_S))
        took = time.monotonic() - begun
        logs = engine.output("logs", project.container("operator"))
        check(code == 0 and "demo  complete" in logs, "the operator's container ends with 0: the job is complete")
    except harness.Failed:
        for service in (*FIVE, "data", "operator"):
            shown = engine.run("logs", "--tail", "20", project.container(service))
            say(f"---- {service}\n{shown.stdout}{shown.stderr}")
        raise
    finally:
        resident.done.set()
        resident.join()
    check(took <= JOB_LIMIT_S, f"from docker-compose up to the finished job: {took:.1f} s (at most {JOB_LIMIT_S:.0f})")
    total = (resident.daemons_kb + resident.workers_private_kb) / 1000
    check(0 < resident.daemons_kb and total <= RESIDENT_LIMIT_MB,
          f"resident: daemons {resident.daemons_kb / 1000:.0f} MB, workers {resident.workers_kb / 1000:.0f} MB, of these "
          f"{resident.workers_private_kb / 1000:.0f} MB not mapped from files (daemons and these at most {RESIDENT_LIMIT_MB})")
    return took, resident


def confined(engine, project):
    for service in FIVE:
        container = project.container(service)
        host = engine.inspect(container, ".HostConfig")
        check(host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
              and any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
              and not any("unconfined" in option for option in host["SecurityOpt"])
              and engine.inspect(container, ".Config.User").split(":")[0] == str(USER),
              f"{service}: not root, read-only, no capability")
        status = project.inside(service, "cat", "/proc/1/status")
        check(re.search(r"CapBnd:\s+0+\n", status) and re.search(r"NoNewPrivs:\s+1", status) and re.search(r"Seccomp:\s+2", status)
              and f"Uid:\t{USER}" in status, f"{service}: the kernel says so too")
        check("Read-only" in project.inside(service, "touch", "/usr/x", expect=1), f"{service}: cannot write beside its volumes")
        networks = list(engine.inspect(container, ".NetworkSettings.Networks"))
        check(networks == [f"{project.name}_consortium"] and not host["PortBindings"], f"{service}: is on the consortium's network only")
    check(engine.inspect(f"{project.name}_consortium", ".Internal"), "that network leads nowhere else")
    sites = json.loads(project.server("site", "list", "--json"))
    check(len(sites) == 4 and len({site["confinement"] for site in sites}) == 1 and
          {"seccomp", "no_new_privs"} <= {word.strip() for word in sites[0]["confinement"].split(",")},
          f"the workers were confined inside: {sites[0]['confinement']}")
    return sites[0]["confinement"]


def healthy(engine, project):
    def all_healthy():
        return all(engine.inspect(project.container(name), ".State.Health.Status") == "healthy" for name in FIVE)

    wait_until(all_healthy, "all five containers to be healthy")
    log = engine.inspect(project.container("north"), ".State.Health.Log")
    check("in the federation: north attends" in log[-1]["Output"], "five containers are healthy, and that means: in the federation")


def without_containers(engine, project, folder):
    """The same plan, tables, sites and programs, as plain processes: its model's hash, and the confinement of its workers."""
    programs = folder / "programs"
    programs.mkdir()
    for service, names in (("coordinator", ["consilium-server"]), ("north", ["consilium-client", "consilium-worker"])):
        for name in names:
            engine.run("cp", f"{project.container(service)}:/usr/bin/{name}", programs / name)
    harness.SERVER, harness.CLIENT, harness.WORKER = (programs / f"consilium-{name}" for name in ("server", "client", "worker"))
    engine.run("cp", f"{project.container('operator')}:/results/.", folder / "results")
    consortium = Consortium(folder)
    try:
        consortium.start()
        for name in HOSPITALS:
            site = consortium.site(name).join()
            engine.run("cp", f"{project.container(name)}:/site/.", site.folder)
            text = (site.folder / "site.yaml").read_text()
            site.configure(text.replace("coordinator:8443", f"localhost:{consortium.port}"))
            site.start()
        consortium.wait_connected(*HOSPITALS)
        job = consortium.submit((folder / "results" / "plan.yaml").read_text())
        state = consortium.wait_job(job)["state"]
        check(state == "complete", "the same job without containers is complete")
        return consortium.model_hash(job), consortium.server_json("site", "list")[0]["confinement"]
    finally:
        consortium.stop()


def health_has_a_reason(engine, project):
    engine.run("kill", project.container("coordinator"))
    try:
        wait_until(lambda: engine.run("exec", project.container("east"), "consilium-client", "status", "--healthy",
                                      expect=None).returncode == 1, "the hospital to notice")
        reason = project.inside("east", "consilium-client", "status", "--healthy", expect=1)
        check("not in the federation: east does not reach coordinator:8443:" in reason, "without the coordinator a hospital is not "
              "healthy, and says why")
    finally:
        engine.run("start", project.container("coordinator"))


def fifth_hospital(engine, project, folder):
    """Two commands at the site, as in docs/containers.md, from the operator's token to the first round; meanwhile others restart."""
    site = folder / "mercy"
    engine.run("cp", f"{project.container('north')}:/site/.", site)
    (site / "site.yaml").write_text((site / "site.yaml").read_text().replace("site: north", "site: mercy"))
    wait_until(lambda: set(HOSPITALS) <= project.connected(), "the hospitals to come back")
    (site / "site.join").write_text(project.server("token", "new", "mercy"))
    for path in (site, *site.iterdir()):
        if os.geteuid() == 0:
            os.chown(path, USER, USER)
        path.chmod(0o755 if path.is_dir() else 0o644)
    common = ["-v", f"{site}:/site:ro", "-v", f"mercy-state-{project.tag}:/var/lib/consilium", "--read-only", "--cap-drop", "ALL",
              "--security-opt", "no-new-privileges", "--network", f"{project.name}_consortium"]
    image = f"consilium-client:{project.tag}"

    words = engine.output("run", "--rm", *common, image, "join", "/site/site.join")
    engine.run("run", "-d", "--name", f"mercy-{project.tag}", *common, image)

    check("telephone" in words, "the first command joins, and names the words to compare")
    wait_until(lambda: "mercy" in project.connected(), "the fifth hospital to attend")
    plan = (folder / "results" / "plan.yaml").read_text().replace("plan: demo", "plan: again").replace("minimum: 4", "minimum: 5")
    (folder / "again.yaml").write_text(plan)
    with open(folder / "again.yaml") as handle:
        done = subprocess.run([engine.docker, "exec", "-i", project.container("coordinator"), "consilium-server", "job", "submit",
                               "/dev/stdin"], stdin=handle, capture_output=True, text=True, env=engine.environment)
    check(done.returncode == 0, f"a plan is submitted through docker exec {done.stderr.strip()}")
    for name in ("west", "coordinator"):
        engine.run("kill", project.container(name))
        engine.run("start", project.container(name))

    def ended():
        shown = engine.run("exec", project.container("coordinator"), "consilium-server", "job", "show", "again", "--json", expect=None)
        job = json.loads(shown.stdout) if shown.returncode == 0 else {"state": "unknown"}
        return job if job["state"] in ("complete", "partial", "failed", "cancelled") else None

    job = wait_until(ended, "the second job to end", 3 * harness.PATIENCE_S)
    check(job["state"] == "complete" and job["folded_everywhere"] == 5 and all("mercy" in entry["folded"] for entry in job["history"]),
          "two commands at a fifth hospital, and it is in every round of a job that outlives kills of two containers")


def alignment(engine, project, folder):
    """deploy/demo/align, as the README has it; the rows of every hospital are the same persons."""
    command = [*engine.compose, "-p", project.name, *project.files]
    engine.command([SOURCE / "deploy" / "demo" / "align", *command], environment=project.environment)
    engine.run("cp", f"{project.container('data')}:/usr/share/consilium/demo/persons.d/truth.csv", folder / "truth.csv")
    truth = {tuple(line.split(",")[:2]): line.split(",")[2] for line in (folder / "truth.csv").read_text().splitlines()}
    cohorts = {}
    for site in HOSPITALS:
        lines = project.inside(site, "cat", "/var/lib/consilium/personal/cohort/cohort.csv").splitlines()[1:]
        cohorts[site] = {line.split(",")[0]: truth[site, line.split(",")[2].strip('"')] for line in lines}
    north = cohorts["north"]
    right = sum(all(cohort.get(row) == person for cohort in cohorts.values()) for row, person in north.items())
    check(len(north) > 800 and right >= 0.99 * len(north) and all(cohort.keys() == north.keys() for cohort in cohorts.values()),
          f"four hospitals find {len(north)} common patients, {right} of them right")


def up_again(engine, project, expected):
    shown = project.compose("run", "--rm", "-T", "operator", "sha256sum", "/results/model.safetensors").stdout
    check(shown[:64] == expected, "docker-compose run shows the results volume")
    project.compose("up", "-d", "--no-build")
    code = int(engine.output("wait", project.container("operator"), timeout=120))
    jobs = sorted(job["job"] for job in json.loads(project.server("job", "list", "--json")))
    check(code == 0 and jobs == ["again", "cohort", "demo"], "docker-compose up again does nothing twice")


def test(folder, arguments):
    engine = project = None
    try:
        engine = Engine(folder / "engine", arguments.compose)
        say(f"engine {engine.output('version', '--format', '{{.Server.Version}}')}, "
            f"{engine.command([*engine.compose, 'version']).stdout.splitlines()[0]}")
        project = Project(engine, folder, arguments.compiled)
        begun = time.monotonic()
        origin = make_base(engine, folder, project.base, project.label)
        say(f"  base image ({origin}): {time.monotonic() - begun:.0f} s")
        build(project, arguments.compiled)
        size = sizes(engine, project)
        took, resident = first_job(engine, project)
        confinement = confined(engine, project)
        healthy(engine, project)
        expected, expected_confinement = without_containers(engine, project, folder)
        found = subprocess.run(["sha256sum", folder / "results" / "model.safetensors"], capture_output=True, text=True).stdout[:64]
        check(found == expected, f"the model in the results volume is the same job's without containers: sha256:{found}")
        check(confinement == expected_confinement, "the confinement of the workers is the same inside and outside")
        health_has_a_reason(engine, project)
        fifth_hospital(engine, project, folder)
        alignment(engine, project, folder)
        up_again(engine, project, expected)
        say("\n| what | figure | goal |\n|---|---|---|\n"
            f"| from `docker-compose up` (images built) to the finished job | {took:.1f} s | ≤ 60 s |\n"
            f"| five containers, resident: daemons | {resident.daemons_kb / 1000:.0f} MB | ≤ 1 GB, with the next row |\n"
            f"| four workers, resident, not mapped from files | {resident.workers_private_kb / 1000:.0f} MB | |\n"
            f"| four workers, resident, libtorch included (shared pages counted four times) | {resident.workers_kb / 1000:.0f} MB | |\n"
            f"| coordinator's image beyond its base | {size['coordinator'] - size['base']:.0f} MB | ≤ 60 MB |\n"
            f"| client's image beyond its base (libtorch and what it needs) | {size['client'] - size['base']:.0f} MB | |")
    finally:
        if project:
            project.remove()
        if engine:
            engine.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiled", action="store_true", help="the images compile the programs")
    parser.add_argument("--compose", help="the compose command, as one word (docker-compose, else the plugin)")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cs-compose-", dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "engine").mkdir()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        test(folder, arguments)
    except CannotRun as reason:
        say(f"not run: {reason}")
        return 77
    except harness.Failed as problem:
        say(f"FAILED: {problem}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
