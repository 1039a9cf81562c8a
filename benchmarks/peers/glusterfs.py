"""GlusterFS from Debian: one glusterd, a `replica 3` volume of three bricks.

Its command line goes through a socket in the scratch directory. Bricks ask glusterd on its default port whatever it
listens on, so it cannot have another; hosts by 127.x are refused.
"""

from pathlib import Path

from benchmarks.peers.packages import need_debian
from benchmarks.peers.processes import command, listens, own_address, stop_by_file
from benchmarks.peers.system import Peer

GLUSTERD_PORT = 24007
_BRICK_PORTS = 60
_VOLUME = "peers"


def management_volume(directory: Path, address: str, first_port: int) -> str:
    """The configuration of glusterd."""
    options = {
        "working-directory": directory / "work",
        "run-directory": directory / "run",
        "glusterd-sockfile": directory / "glusterd.socket",
        "transport-type": "socket",
        "transport.socket.listen-port": GLUSTERD_PORT,
        "transport.socket.bind-address": address,
        "base-port": first_port,
        "max-port": first_port + _BRICK_PORTS,
    }
    lines = [f"    option {name} {value}" for name, value in options.items()]
    return "\n".join(["volume management", "    type mgmt/glusterd", *lines, "end-volume", ""])


class GlusterFS(Peer):
    name = "glusterfs"
    title = "GlusterFS"

    def start_servers(self) -> str:
        need_debian("glusterfs-server", "glusterfs-client")
        self._address = own_address()
        for name in ("work", "run", "brick0", "brick1", "brick2"):
            (self.directory / name).mkdir()
        configuration = self.directory / "glusterd.vol"
        configuration.write_text(management_volume(self.directory, self._address, self.ports.take()))
        log = str(self.processes.log("glusterd"))
        self.processes.start_until(
            "glusterd",
            lambda: listens(self._address, GLUSTERD_PORT) and (self.directory / "glusterd.socket").exists(),
            *("glusterd", "-N", "-f", str(configuration), "-p", str(self.directory / "glusterd.pid"), "-l", log),
        )
        bricks = [f"{self._address}:{self.directory}/brick{i}" for i in range(3)]
        self._gluster("volume", "create", _VOLUME, "replica", "3", *bricks, "force")
        self._gluster("volume", "start", _VOLUME)
        return command("glusterd", "--version").split("\n")[0]

    def _gluster(self, *arguments: str) -> None:
        options = (f"--glusterd-sock={self.directory}/glusterd.socket", f"--log-file={self.directory}/cli.log")
        command("gluster", "--mode=script", *options, *arguments)

    def mount_command(self) -> tuple[str, ...]:
        log = str(self.directory / "client.log")
        return (
            "glusterfs",
            "-N",
            f"--volfile-server={self._address}",
            f"--volfile-id={_VOLUME}",
            "-l",
            log,
            str(self.path),
        )

    def stop(self) -> None:
        super().stop()
        # glusterd is gone and starts none of them again; they are daemons, known by their files alone.
        for path in (self.directory / "run").rglob("*.pid"):
            stop_by_file(path)
