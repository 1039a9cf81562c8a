"""Who may import whom, read from the sources: the folder map (docs/ARCHITECTURE.md) and the purity of cores."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fs_common", "fs_meta", "fs_storage", "fs_client", "emberfs")
SEEN_BY = {
    "fs_common": {"fs_common"},
    "fs_meta": {"fs_common", "fs_meta"},
    "fs_storage": {"fs_common", "fs_storage"},
    "fs_client": {"fs_common", "fs_client"},
    "emberfs": {"fs_common", "fs_client", "emberfs"},
}
"""What of ours each package may import."""

PURE = (
    "fs_common/frames.py",
    "fs_common/wire.py",
    "fs_common/landing.py",
    "fs_common/layout.py",
    "fs_common/checksums.py",
    "fs_common/checksum_combine.py",
    "fs_common/ids.py",
    "fs_common/limits.py",
    "fs_common/checks.py",
    "fs_common/channels.py",
    "fs_common/tls/names.py",
    "fs_common/transports/choice.py",
    "fs_common/transports/rdma/stream.py",
    "fs_common/transports/rdma/plan.py",
    "fs_common/transports/rdma/devices.py",
    "fs_common/chain_words.py",
    "fs_common/cluster_words.py",
    "fs_common/quantities.py",
    "fs_common/routing_changes.py",
    "fs_common/records/*.py",
    "fs_common/security/*.py",
    "fs_storage/craq/*.py",
    "fs_meta/clients.py",
    "fs_meta/pace.py",
    "fs_meta/locks/queues.py",
    "fs_meta/locks/ranges.py",
    "fs_meta/http/history.py",
    "fs_meta/http/shown.py",
    "fs_meta/http/viewers.py",
    "fs_meta/patience.py",
    "fs_meta/kv/journal_format.py",
    "fs_meta/kv/memtable.py",
    "fs_meta/kv/overlay.py",
    "fs_meta/kv/sorted_keys.py",
    "fs_meta/manager/chains.py",
    "fs_meta/manager/designs.py",
    "fs_meta/manager/move_watch.py",
    "fs_meta/manager/moves.py",
    "fs_meta/manager/new_chains.py",
    "fs_meta/manager/placement.py",
    "fs_meta/manager/rebalancing.py",
    "fs_meta/manager/target_ids.py",
    "fs_client/fuse/abi.py",
    "fs_client/fuse/requests.py",
    "fs_client/fuse/answers.py",
    "fs_client/fuse/negotiation.py",
    "fs_client/unsynced.py",
    "fs_client/loader/permutation.py",
    "fs_client/loader/sampler.py",
    "fs_client/loader/packed_format.py",
)
"""Protocol cores: events in, instructions out."""
IMPURE = {"asyncio", "socket", "time", "random", "os", "threading", "secrets", "select", "uvloop", "subprocess"}

OPTIONAL = {
    "torch": ("fs_client/loader", "fs_client/cli/demo_training.py"),
    "fsspec": ("fs_client",),
    "pyverbs": ("fs_common/transports/rdma/bindings",),
    "ibverbs": ("fs_common/transports/rdma/bindings",),
    "fdb": ("fs_meta/kv",),
    "highspy": ("fs_meta/manager/design_solver.py",),
    "lmdb": ("fs_meta/kv", "fs_storage/engine"),
    "structlog": ("fs_common/telemetry.py",),
    "fastapi": ("fs_meta/http",),
    "pydantic": ("fs_meta/http",),
    "starlette": ("fs_meta/http",),
    "uvicorn": ("fs_common/http_server.py", "fs_common/http_connections.py"),
    "h11": ("fs_common/http_connections.py",),
    "prometheus_client": ("fs_common/metrics.py",),
    "cryptography": ("fs_common/tls/making.py",),
}
"""Packages that an installation may be without, and the only places that import each."""


def sources(pattern: str) -> list[Path]:
    return sorted(path for path in ROOT.glob(pattern) if not path.stem.endswith(("_pb2", "_pb2_grpc")))


@cache
def imports(path: Path) -> list[tuple[str, int]]:
    """Full names of what a file imports anywhere in it, with line numbers. Type checking blocks do not count."""
    found: list[tuple[str, int]] = []
    for node in _running(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            found.extend((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
    return found


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that are there when the program runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _running(node)


def test_there_is_something_to_check() -> None:
    for package in PACKAGES:
        assert sources(f"{package}/**/*.py"), package
    for pattern in PURE:
        assert sources(pattern), f"{pattern} names no file: correct the list of pure modules"


@pytest.mark.parametrize("package", PACKAGES)
def test_services_and_clients_meet_in_common_only(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(f"{package}/**/*.py")
        for name, line in imports(path)
        if (top := name.partition(".")[0]) in {*PACKAGES, "benchmarks", "deploy", "tests"}
        and top not in SEEN_BY[package]
    ]
    assert not wrong


@pytest.mark.parametrize("path", [path for pattern in PURE for path in sources(pattern)], ids=lambda p: p.stem)
def test_protocol_cores_are_pure(path: Path) -> None:
    wrong = [f"line {line}: {name}" for name, line in imports(path) if name.partition(".")[0] in IMPURE]
    assert not wrong


@pytest.mark.parametrize("package", OPTIONAL)
def test_optional_packages_are_imported_in_one_place(package: str) -> None:
    wrong = [
        f"{relative}:{line} imports {name}"
        for top in PACKAGES
        for path in sources(f"{top}/**/*.py")
        for name, line in imports(path)
        if name.partition(".")[0] == package
        and not any((relative := path.relative_to(ROOT)).is_relative_to(place) for place in OPTIONAL[package])
    ]
    assert not wrong


BARE_TASKS = {
    "fs_client/cli/copy/engine.py: _work": "ends with the queue; its task group hears of its errors",
    "fs_client/file.py: _end_session_later": "ends when the service was told, or with the client",
    "fs_client/loader/walk.py: _read": "ends with the directory; the walk waits for it",
    "fs_client/routing_cache.py: _watch": "ends when nobody waits for news; who waits next begins another",
    "fs_storage/__main__.py: _acknowledged": "ends with the first lease; the process ends by its error",
    "fs_storage/engine/give_back.py: _run": "ends when nothing is left to give back; its errors fence the store",
}
"""Tasks with a loop in them that are not kept (`fs_common/endless.py`), and who hears of their end."""


def test_endless_tasks_are_kept() -> None:
    """A task that loops and is started bare dies unheard of by the first error nobody expected."""
    found = set()
    for package in PACKAGES:
        for path in sources(f"{package}/**/*.py"):
            tree = ast.parse(path.read_bytes(), str(path))
            loops = {
                node.name
                for node in ast.walk(tree)
                if isinstance(node, ast.AsyncFunctionDef) and any(map(_loops, ast.walk(node)))
            }
            found |= {f"{path.relative_to(ROOT)}: {name}" for name in _started(tree) if name in loops}
    assert "fs_common/endless.py: _kept" in found, "the one that keeps the others is found"
    assert found - {"fs_common/endless.py: _kept"} == set(BARE_TASKS)


def _loops(node: ast.AST) -> bool:
    return isinstance(node, ast.While) and any(isinstance(inner, ast.Await) for inner in ast.walk(node))


def _started(tree: ast.AST) -> Iterator[str]:
    """Names of the coroutine functions whose calls are made tasks of."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Call):
            continue
        if ast.unparse(node.func).rpartition(".")[2] in {"create_task", "ensure_future", "spawn", "_spawn", "submit"}:
            yield ast.unparse(node.args[0].func).rpartition(".")[2]


def test_the_client_imports_no_server_package() -> None:
    """A client installs without the servers' extras."""
    code = (
        "import sys; import fs_common.peers, fs_common.telemetry, fs_common.config, fs_common.buffers;"
        "print([name for name in ('lmdb', 'grpc', 'structlog', 'uvicorn', 'prometheus_client', 'fastapi', 'torch',"
        " 'fsspec') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"
