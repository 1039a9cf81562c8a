"""A client process whose files are compared with what it has put into them.

`python -m tests.storm.files KIND SETTINGS`, started by the storm. KIND `api`: through `fs_client`; `mount`: through the
kernel. One thread, files of its own in a directory of its own: it knows what every byte of them has to be after each
call that has succeeded. A call that fails leaves the file in doubt; then all of it is written again, until that
succeeds, and from then on nothing that was under way may come back.
"""

import contextlib
import errno
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import fs_client
from tests.storm.talk import Orders, say

FILES = 12
LENGTH_MAX = 500_000
TIMEOUT_S = 20.0
RETRY_S = 0.1


class Kernel:
    """The same calls as of `fs_client.FileSystem`, by the kernel."""

    def __init__(self, root: str) -> None:
        self._root = root

    def open(self, path: str, mode: str) -> Any:
        return open(self._root + path, mode, buffering=0)

    def read_file(self, path: str) -> bytes:
        with open(self._root + path, "rb", buffering=0) as file:
            return file.read()

    def mkdir(self, path: str) -> None:
        os.mkdir(self._root + path)

    def unlink(self, path: str) -> None:
        os.unlink(self._root + path)

    def rename(self, source: str, target: str) -> None:
        os.rename(self._root + source, self._root + target)

    def listdir(self, path: str) -> list[str]:
        return os.listdir(self._root + path)

    def fsync(self, file: Any) -> None:
        os.fsync(file)


class Api:
    def __init__(self, fs: fs_client.FileSystem) -> None:
        self._fs = fs
        self.read_file, self.mkdir, self.unlink = fs.read_file, fs.mkdir, fs.unlink
        self.rename, self.listdir = fs.rename, fs.listdir

    def open(self, path: str, mode: str) -> Any:
        return self._fs.open(path, mode, buffering=0)

    def fsync(self, file: Any) -> None:
        file.fsync()


class Worker:
    def __init__(self, place: Kernel | Api, settings: dict[str, Any]) -> None:
        self.place = place
        self.directory = f"/{settings['name']}"
        self.random = random.Random(f"{settings['seed']}/{settings['name']}")
        self.files: dict[str, bytearray] = {}
        """What each has to be."""
        self.doubtful: set[str] = set()
        """A call that changes it has failed."""
        self.gone: set[str] = set()
        self.number = 0

    def step(self) -> None:
        """One operation; raises `OSError` if it failed, and the file is doubtful then."""
        chance = self.random.random()
        if len(self.files) < 3 or (chance < 0.15 and len(self.files) < FILES):
            return self.create()
        path = self.random.choice(list(self.files))
        if path in self.doubtful:
            return self.write_again(path)
        with self.doubt(path):
            if chance < 0.35:
                self.overwrite(path)
            elif chance < 0.5:
                self.append(path)
            elif chance < 0.6:
                self.truncate(path)
            elif chance < 0.66:
                return self.rename(path)
            elif chance < 0.7:
                return self.remove(path)
            else:
                self.compare(path)

    @contextlib.contextmanager
    def doubt(self, path: str) -> Iterator[None]:
        self.doubtful.add(path)
        yield
        self.doubtful.discard(path)

    def create(self) -> None:
        self.number += 1
        path = f"{self.directory}/file-{self.number}"
        self.files[path] = bytearray(self.data())
        with self.doubt(path):
            self.store(path, "xb")

    def data(self) -> bytes:
        kind = self.random.random()
        return self.random.randbytes(self.random.randrange(200 if kind < 0.3 else 70_000 if kind < 0.8 else 200_000))

    def store(self, path: str, mode: str) -> None:
        with self.place.open(path, mode) as file:
            write_all(file, self.files[path])
            self.place.fsync(file)

    def write_again(self, path: str) -> None:
        """Whatever is there now."""
        with self.doubt(path):
            self.store(path, "wb")
            self.compare(path)

    def overwrite(self, path: str) -> None:
        content, data = self.files[path], self.data()
        offset = self.random.randrange(min(len(content), LENGTH_MAX) + 1)
        content[offset : offset + len(data)] = data
        with self.place.open(path, "r+b") as file:
            file.seek(offset)
            write_all(file, data)
            self.sync(file)

    def append(self, path: str) -> None:
        content, data = self.files[path], self.data()
        if len(content) > LENGTH_MAX:
            data = b""
        content += data
        with self.place.open(path, "ab") as file:
            write_all(file, data)
            self.sync(file)

    def sync(self, file: Any) -> None:
        """As a program does that cannot lose it: a mount promises nothing to others when machines lose power."""
        if isinstance(self.place, Kernel) or self.random.random() < 0.5:
            self.place.fsync(file)

    def truncate(self, path: str) -> None:
        content = self.files[path]
        length = self.random.randrange(len(content) + 20_000)
        del content[length:]
        content += bytes(length - len(content))
        with self.place.open(path, "r+b") as file:
            file.truncate(length)
            self.sync(file)

    def rename(self, path: str) -> None:
        """Until it is known to be done: the name is all that may be in doubt."""
        self.number += 1
        new = f"{self.directory}/file-{self.number}"
        until_done(lambda: self.place.rename(path, new), errno.ENOENT)
        self.files[new] = self.files.pop(path)
        self.gone.add(path)

    def remove(self, path: str) -> None:
        until_done(lambda: self.place.unlink(path), errno.ENOENT)
        del self.files[path]
        self.gone.add(path)

    def compare(self, path: str) -> None:
        found = self.place.read_file(path)
        if found != self.files[path]:
            wrong(f"{path}: {difference(found, self.files[path])}")

    def compare_all(self) -> None:
        """Every file, and that no other name is there. Files in doubt are written again first."""
        for path in self.files:
            while path in self.doubtful:
                try:
                    self.write_again(path)
                except OSError as error:
                    refused(error)
            until_done(lambda path=path: self.compare(path))
        names: list[str] = []
        until_done(lambda: names.extend(self.place.listdir(self.directory)))
        wanted = {path.rpartition("/")[2] for path in self.files}
        if set(names) != wanted:
            wrong(f"{self.directory} has {sorted(set(names) ^ wanted)} too few or too many")


def write_all(file: Any, data: bytes | bytearray) -> None:
    view = memoryview(bytes(data))
    while view:
        view = view[file.write(view) :]


def until_done(call: Callable[[], object], done_by: int | None = None) -> None:
    """Again and again until it succeeds. `done_by`: an errno that, after a failure, says that it was done then."""
    failed = False
    while True:
        try:
            call()
            return
        except OSError as error:
            if failed and error.errno == done_by:
                return
            failed = True
            refused(error)


def refused(error: OSError) -> None:
    say("refused", f"{type(error).__name__}: {error}")
    time.sleep(RETRY_S)


def difference(found: bytes, wanted: bytes | bytearray) -> str:
    if len(found) != len(wanted):
        text = f"{len(found)} bytes where {len(wanted)} are right"
    else:
        text = f"of {len(wanted)} bytes"
    wrongs = [at for at in range(min(len(found), len(wanted))) if found[at] != wanted[at]]
    zeros = sum(1 for at in wrongs if not found[at])
    if wrongs:
        text += f", {len(wrongs)} wrong from {wrongs[0]} to {wrongs[-1]} ({zeros} of them zero)"
    return text


def wrong(text: str) -> None:
    say("wrong", text)
    os._exit(3)


def main() -> None:
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    orders = Orders()
    with contextlib.ExitStack() as stack:
        if kind == "api":
            fs = stack.enter_context(fs_client.connect(settings["address"], timeout_s=TIMEOUT_S))
            place: Kernel | Api = Api(fs)
        else:
            place = Kernel(settings["mountpoint"])
        worker = Worker(place, settings)
        until_done(lambda: place.mkdir(worker.directory), errno.EEXIST)
        while not orders.over:
            if orders.paused:
                worker.compare_all()
                say("paused")
                orders.wait()
                continue
            try:
                worker.step()
                say("step")
            except OSError as error:
                refused(error)
        worker.compare_all()
        say("ended")


if __name__ == "__main__":
    main()
