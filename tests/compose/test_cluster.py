"""The compose cluster for real, in an engine of its own: a user's tree and a training loop go on while containers die,
lose their network and their disks, and nothing is left on the machine afterwards.

One story, told in one test: each step needs what the one before has left. Prints how long each step took (`-s`).
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose import guard, tools
from tests.compose.engine import BASE, IMAGE, ROOT, Engine, running

pytestmark = [pytest.mark.system, pytest.mark.slow]

WORKLOAD = Path(__file__).with_name("workload.py")
MONITORING = ROOT / "deploy" / "monitoring"
FILES = 400
STOP = "/tmp/stop"
CAP_SYS_ADMIN = 1 << 21
DEVICE = "/dev/fuse"
STORAGE = ("storage-1", "storage-2", "storage-3", "storage-4")
UP_S = 180.0


class Steps:
    """How long each took."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def done(self, what: str) -> None:
        now = time.monotonic()
        print(f"{now - self._last:7.1f} s  {what}", flush=True)
        self._last = now


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    try:
        with running() as made:
            # A target that is away is replaced after so long: more than a container takes that comes back.
            made.environment |= {
                "EMBERFS_REPLACE_LOST_AFTER_MS": "25000",
                "EMBERFS_HEALTH_INTERVAL": "1s",
                "EMBERFS_HTTP_PORT": "0",
            }
            yield made
    except tools.Missing as reason:
        pytest.skip(f"no containers here: {reason}")


def status(engine: Engine) -> dict[str, Any]:
    found = json.loads(engine.inside("client", "emberfs", "status", "--json", code=None))
    assert isinstance(found, dict)
    return found


def up(engine: Engine) -> None:
    try:
        engine.compose("up", "--detach", "--wait", "--no-build")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{engine.compose('logs', '--tail', '20')}") from None


def is_whole(engine: Engine, nodes: set[int]) -> bool:
    """Whether every chain has three replicas that serve, all on these nodes."""
    chains = status(engine)["chains"]
    return bool(chains) and all(
        len(chain["targets"]) == 3
        and all(target["state"] == "serving" and target["node"] in nodes for target in chain["targets"])
        for chain in chains
    )


def require_confined(engine: Engine) -> None:
    """Every container has what it needs and no more, as its process sees it."""
    for service in ("meta", *STORAGE, "mount", "client"):
        found = json.loads(engine.docker("inspect", engine.container(service)))[0]["HostConfig"]
        mounts = service == "mount"
        assert not found["Privileged"] and found["ReadonlyRootfs"], service
        published = {binding["HostIp"] for port in (found["PortBindings"] or {}).values() for binding in port}
        assert published == ({"127.0.0.1"} if service == "meta" else set()), service
        assert [device["PathOnHost"] for device in found["Devices"] or []] == ([DEVICE] if mounts else []), service
        lines = engine.inside(service, "cat", "/proc/1/status").splitlines()
        process = {name: words.split() for name, _, words in (line.partition(":") for line in lines)}
        assert int(process["CapBnd"][0], 16) == (CAP_SYS_ADMIN if mounts else 0), service
        assert int(process["CapEff"][0], 16) == 0, service
        assert process["Uid"] == ["9700"] * 4, service
        assert process["NoNewPrivs"] == ["0" if mounts else "1"], service
        assert engine.inside(service, "sh", "-c", "touch /x 2>&1", code=None).endswith("Read-only file system\n")


def require_secrets(engine: Engine) -> None:
    """Each has its own token; nobody without one is let in; none is in the image, an environment or a command line."""
    secrets = set()
    for service, kinds in (("meta", "first"), ("storage-1", "storage"), ("mount", "mount"), ("client", "client")):
        files = engine.inside(service, "find", "/tokens", "-type", "f").split()
        assert len(files) == (3 if service == "meta" else 1), (service, files)
        secrets |= set(engine.inside(service, "sh", "-c", f"cat /tokens/{kinds}/*token").split())
    assert len(secrets) == 4 and all(secret.startswith("ember.") for secret in secrets)
    told = engine.docker("history", "--no-trunc", IMAGE)
    for service in ("meta", *STORAGE, "mount", "client"):
        told += engine.docker("inspect", engine.container(service))
        told += engine.inside(service, "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '")
    told += engine.compose("logs")
    assert not [secret for secret in secrets if secret.rpartition(".")[2] in told]
    refused = engine.inside("client", "env", "EMBERFS_TOKEN_FILE=", "emberfs", "ls", "ember:/", code=1)
    assert refused == ""


def require_reached(engine: Engine) -> None:
    """Prometheus' targets give figures, and the page is on the host's loopback address."""
    lists = re.findall(r"targets: (\[.*\])", (MONITORING / "prometheus.yml").read_text())
    addresses = [address for each in lists for address in json.loads(each)]
    assert "mount:9703" in addresses
    script = (
        "import sys, urllib.request as u\n"
        "for address in sys.argv[1:]: print('emberfs_info' in u.urlopen(f'http://{address}/metrics').read().decode())"
    )
    found = engine.inside("client", "python3", "-c", script, *addresses)
    assert found.split() == ["True"] * 6
    address = engine.compose("port", "meta", "9702").strip()
    with urllib.request.urlopen(f"http://{address}/", timeout=30) as page:
        assert page.status == 200 and b"<html" in page.read().lower()


def speaks_tls(engine: Engine) -> None:
    """The overlay: only who knows the authority is let in, and new certificates cut nobody off. After `down` and
    `up` everything is there again."""
    engine.files.append(ROOT / "deploy" / "docker-compose.tls.yml")
    up(engine)
    engine.inside("mount", "cp", "/etc/passwd", "/mnt/ember/passwd")
    engine.compose("run", "--rm", "--no-TTY", "certs", "rotate")
    engine.inside("mount", "cmp", "/etc/passwd", "/mnt/ember/passwd")
    # On a machine that builds images meanwhile a handshake may take longer than the second that a connection has.
    engine.inside("client", "bash", "-c", "until emberfs cp ember:/passwd /tmp/passwd; do sleep 0.5; done")
    engine.inside("client", "cmp", "/etc/passwd", "/tmp/passwd")
    engine.inside("client", "env", "EMBERFS_TLS_CA=", "emberfs", "ls", "ember:/", code=1)
    engine.compose("down")
    up(engine)
    engine.inside("mount", "cmp", "/etc/passwd", "/mnt/ember/passwd")
    engine.compose("down", "--volumes")


def stopped(engine: Engine, process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    """What a workload that was told to stop has said."""
    output, errors = process.communicate(timeout=120)
    if process.returncode:
        pytest.fail(output[-200:] + errors + engine.compose("logs", "--timestamps", "--no-color", "--tail", "80"))
    return [json.loads(line) for line in output.splitlines()]


def test_the_cluster_outlives_what_happens_to_its_containers(engine: Engine) -> None:
    steps = Steps()
    engine.docker("import", "--change", 'CMD ["python3"]', str(tools.base_image()), BASE)
    steps.done("base image")
    engine.compose("build", "--quiet")
    steps.done("image")
    up(engine)
    steps.done("up, green")
    require_confined(engine)
    require_secrets(engine)
    steps.done("nobody has more than it needs, or sees a secret that is not its own")
    require_reached(engine)
    steps.done("figures are collected where Prometheus looks, and the page is there")

    engine.inside("mount", "python3", "-", "tree", "/tmp/tree", str(FILES), stdin=WORKLOAD)
    engine.inside("mount", "cp", "-r", "/tmp/tree", "/mnt/ember/tree")
    engine.inside("mount", "python3", "-", "check", "/mnt/ember/tree", str(FILES), stdin=WORKLOAD)
    steps.done(f"a tree of {FILES} files copied in and read back")

    inside = [*engine.compose_words(), "exec", "--no-TTY"]
    training = engine.start(*inside, "client", "python3", "-", "train", "/tree", STOP, stdin=WORKLOAD)
    writing = engine.start(*inside, "mount", "python3", "-", "write", "/mnt/ember/written", STOP, stdin=WORKLOAD)
    with training, writing:
        try:
            hurt(engine, steps)
        finally:
            for service in ("client", "mount"):
                engine.inside(service, "touch", STOP, code=None)
        epochs, written = stopped(engine, training), stopped(engine, writing)
    assert len(epochs) >= 2 and all(epoch["samples"] == FILES for epoch in epochs)
    assert epochs[-1]["loss"] < epochs[0]["loss"] / 2
    count = written[-1]["written"]
    assert count > 0
    steps.done(f"{len(epochs)} epochs and {count} files, {written[-1]['slowest_s']} s the slowest, were not disturbed")

    engine.inside("mount", "python3", "-", "check", "/mnt/ember/tree", str(FILES), stdin=WORKLOAD)
    engine.inside("mount", "python3", "-", "check", "/mnt/ember/written", str(count), stdin=WORKLOAD)
    engine.inside("client", "python3", "-", "check-api", "/tree", str(FILES), stdin=WORKLOAD)
    engine.inside("client", "python3", "-", "check-api", "/written", str(count), stdin=WORKLOAD)
    steps.done("every byte is right, by the mount and by the API")
    engine.compose("run", "--rm", "--no-TTY", "admin", "targets", "forget", "4")
    engine.compose("run", "--rm", "--no-TTY", "admin", "fsck")
    engine.inside("client", "emberfs", "status")
    steps.done("healthy, and every chunk where it belongs")

    engine.compose("stop")
    for service in ("meta", *STORAGE[:3], "mount"):
        state = json.loads(engine.docker("inspect", engine.container(service)))[0]["State"]
        assert state["ExitCode"] == 0, (service, state)  # 137: it did not end by itself in the time that it has
    engine.compose("down", "--volumes")
    steps.done("down, each in order")
    speaks_tls(engine)
    steps.done("up with TLS, certificates rotated, down, up with its data, down")
    assert engine.docker("ps", "--all", "--quiet") == ""
    assert engine.docker("volume", "ls", "--quiet") == ""
    assert engine.docker("network", "ls", "--quiet", "--filter", "type=custom") == ""


def hurt(engine: Engine, steps: Steps) -> None:
    """Kill one, cut another off, bring both back; take a third away for good; restart the metadata server."""
    everybody = {1, 2, 3, 4}
    engine.docker("kill", engine.container("storage-1"))
    engine.docker("network", "disconnect", "emberfs-test_cluster", engine.container("storage-2"))
    engine.wait(
        lambda: {node["node"] for node in status(engine)["nodes"] if node["state"] != "up"} == {1, 2}, "both are missed"
    )
    steps.done("one killed and one cut off: both are missed")
    engine.docker("network", "connect", "--alias", "storage-2", "emberfs-test_cluster", engine.container("storage-2"))
    engine.docker("start", engine.container("storage-1"))
    engine.wait(lambda: is_whole(engine, everybody), "both are back and filled up")
    steps.done("both back: whole again")

    engine.compose("kill", "storage-4")
    engine.compose("rm", "--force", "storage-4")
    engine.docker("volume", "rm", "emberfs-test_storage-4")
    engine.wait(lambda: is_whole(engine, {1, 2, 3}), "the others have taken over what storage-4 had")
    steps.done("one gone with its disk: whole again without it")

    engine.compose("restart", "meta")
    engine.wait(
        lambda: engine.inside("client", "emberfs", "ls", "ember:/", code=None).split() == ["tree", "written"], ""
    )
    steps.done("metadata server restarted")


def test_an_engine_ends_with_whoever_made_it(engine: Engine) -> None:
    """Also with one that was killed: a test run that is cancelled leaves nothing."""
    script = (
        "from tests.compose.engine import running\n"
        "with running() as engine:\n"
        "    engine.docker('network', 'create', 'left')\n"
        "    print(engine.folder, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        other = Engine(Path(owner.stdout.readline().strip()))
        assert other.folder.is_dir() and guard.processes_of(other.folder)
        os.kill(owner.pid, signal.SIGKILL)
    engine.wait(lambda: not other.leftovers(), "the engine of a killed owner is gone", 60.0)
