"""MooseFS from Debian: one master, three chunk servers, goal 3. Addresses 127.x are refused by its chunk servers."""

from pathlib import Path

from benchmarks.peers.packages import need_debian
from benchmarks.peers.processes import command, listens, own_address
from benchmarks.peers.system import Peer


def settings(values: dict[str, str | int | Path]) -> str:
    """A configuration file of any of its daemons."""
    return "".join(f"{name} = {value}\n" for name, value in values.items())


class MooseFS(Peer):
    name = "moosefs"
    title = "MooseFS"

    def start_servers(self) -> str:
        need_debian("moosefs-master", "moosefs-chunkserver", "moosefs-client", "moosefs-cli")
        self._address = own_address()
        self._port = self._start_master()
        return command("mfsmaster", "-v").split("\n")[0]

    def _start_master(self) -> int:
        """Its port for clients."""
        data = self.directory / "master"
        data.mkdir()
        (data / "metadata.mfs").write_text("MFSM NEW")
        (self.directory / "exports.cfg").write_text("* / rw,alldirs,maproot=0\n")
        (self.directory / "topology.cfg").touch()
        loggers, servers, clients = (self.ports.take() for _ in range(3))
        configuration = self.directory / "master.cfg"
        common: dict[str, str | int | Path] = {"WORKING_USER": "root", "WORKING_GROUP": "root"}
        configuration.write_text(
            settings(
                common
                | {"DATA_PATH": data}
                | {"EXPORTS_FILENAME": self.directory / "exports.cfg"}
                | {"TOPOLOGY_FILENAME": self.directory / "topology.cfg"}
                | {"MATOML_LISTEN_HOST": self._address, "MATOML_LISTEN_PORT": loggers}
                | {"MATOCS_LISTEN_HOST": self._address, "MATOCS_LISTEN_PORT": servers}
                | {"MATOCL_LISTEN_HOST": self._address, "MATOCL_LISTEN_PORT": clients}
            )
        )
        master = ("mfsmaster", "-f", "-c", str(configuration))
        self.processes.start_until("master", lambda: listens(self._address, clients), *master)
        for i in range(3):
            self._start_chunk_server(i, servers, common)
        return clients

    def _start_chunk_server(self, number: int, master_port: int, common: dict[str, str | int | Path]) -> None:
        data, chunks = self.directory / f"server{number}", self.directory / f"chunks{number}"
        data.mkdir()
        chunks.mkdir()
        port = self.ports.take()
        (self.directory / f"disks{number}.cfg").write_text(f"{chunks}\n")
        configuration = self.directory / f"server{number}.cfg"
        configuration.write_text(
            settings(
                common
                | {"DATA_PATH": data, "HDD_CONF_FILENAME": self.directory / f"disks{number}.cfg"}
                | {"MASTER_HOST": self._address, "MASTER_PORT": master_port}
                | {"CSSERV_LISTEN_HOST": self._address, "CSSERV_LISTEN_PORT": port}
            )
        )
        server = ("mfschunkserver", "-f", "-c", str(configuration))
        self.processes.start_until(f"server{number}", lambda: listens(self._address, port), *server)

    def mount_command(self) -> tuple[str, ...]:
        return "mfsmount", str(self.path), "-f", "-H", self._address, "-P", str(self._port)

    def mounted(self) -> None:
        command("mfssetgoal", "-r", "3", str(self.path))
