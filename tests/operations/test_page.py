"""The commands of docs/OPERATIONS.md, "Step by step", run as they are written, one block after the other.

They run in namespaces of their own, in which the machines of the page are addresses of one: the page's paths, ports and
addresses are its own there, and nothing of it is left. Each block begins with a comment `<!-- run -->` in the page.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "OPERATIONS.md"
ALL_S = 400
SHOWN = 150
"""Lines of the output that a failure shows."""
SANDBOX = """
set -euo pipefail
mount --make-rprivate /
ip link set lo up
for number in 10 11 12 13 14; do ip address add 192.0.2.$number/32 dev lo; done
mount -t tmpfs tmpfs /var
mount -t tmpfs tmpfs /run
cp "$BLOCKS" /run/blocks
mkdir -p /run/etc /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work /etc
mkdir -p /etc/emberfs
mkdir /var/lib /var/log /var/backups /run/bin /run/tmp
case "$CHECKOUT" in
    /tmp/*) ;; # it would be hidden
    *) mount --bind /run/tmp /tmp ;;
esac
printf '#!/bin/sh\\nexec %s %s "$@"\\n' "$PYTHON" "$SYSTEMCTL" >/run/bin/systemctl
printf '#!/bin/sh\\nexec %s -m fs_client.cli "$@"\\n' "$PYTHON" >/run/bin/emberfs
# The interpreter of the tests may be where other users cannot go: all run as root here.
printf '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n' >/run/bin/runuser
chmod +x /run/bin/*
export PATH=/run/bin:/usr/sbin:/sbin:$PATH
. /run/blocks
"""

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
        reason="only root has namespaces of its own to run the page in",
    ),
]


def blocks() -> list[tuple[str, str]]:
    """(heading, commands) in the page's order."""
    found, heading = [], ""
    for part in re.finditer(
        r"^### ([^\n]+)$|^<!-- run -->\n```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    ):
        if part[1]:
            heading = part[1]
        else:
            found.append((heading, part[2]))
    return found


def test_the_page_has_what_an_operator_does() -> None:
    headings = [heading for heading, _ in blocks()]
    for word in (
        "Start",
        "Grow",
        "Lose a disk",
        "Lose a machine",
        "Back up",
        "Restore",
        "Upgrade",
        "Rotate tokens",
        "Begin with TLS",
    ):
        assert any(heading.startswith(word) for heading in headings), word


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    script = tmp_path / "blocks.sh"
    script.write_text(
        "\n".join(f'echo "=== {heading}"\nset -x\n{text}\n{{ set +x; }} 2>/dev/null' for heading, text in blocks())
    )
    environment = dict(
        os.environ,
        PYTHON=sys.executable,
        PYTHONPATH=str(ROOT),
        SYSTEMCTL=str(Path(__file__).with_name("systemctl.py")),
        EMBERFS_UNITS=str(ROOT / "deploy" / "systemd"),
        BLOCKS=str(script),
        CHECKOUT=str(ROOT),
    )
    # The namespace of processes ends with its first one, and everything in it with that.
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    result = subprocess.run(
        [*command, "bash", "-c", SANDBOX],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=ALL_S,
    )
    (tmp_path / "output").write_text(result.stdout)
    assert result.returncode == 0, "\n".join(result.stdout.splitlines()[-SHOWN:])
