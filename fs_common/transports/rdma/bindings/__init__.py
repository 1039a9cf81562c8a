"""Which binding of libibverbs is used. Nothing of one is imported before `load` is called.

`EMBERFS_RDMA_BINDING` names it (`pyverbs`, `ibverbs`); without, pyverbs where it can be imported, as it comes with the
system's libraries, else ibverbs. The one loaded first stays.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator

from fs_common.transports.rdma.verbs import Binding, VerbsError

VARIABLE = "EMBERFS_RDMA_BINDING"
NAMES = ("pyverbs", "ibverbs")
"""In order of preference."""

FORK_UNNEEDED = 2
"""`IBV_FORK_UNNEEDED`"""

_loaded: dict[str, Binding] = {}


def load(name: str | None = None) -> Binding:
    """The binding of that name; None: the one that the environment names, or the first that works.

    Raises `VerbsError`: there is none, or the named one cannot be imported; its message says what to install.
    """
    named = name or os.environ.get(VARIABLE) or None
    if named is not None and named not in NAMES:
        raise VerbsError(f"{VARIABLE}={named}: the bindings are {' and '.join(NAMES)}")
    reasons = []
    for candidate in NAMES if named is None else (named,):
        if candidate in _loaded:
            return _loaded[candidate]
        if importlib.util.find_spec(candidate) is None:
            reasons.append(f"{candidate} is not installed")
            continue
        try:
            binding = _import(candidate)
        except Exception as error:
            # A package that is there for other libraries than this machine's fails with whatever its loader says.
            reasons.append(f"{candidate} cannot be used: {error}")
            continue
        _loaded[candidate] = binding
        return binding
    advice = "install the system's python3-pyverbs, or pip install 'emberfs[rdma]'"
    raise VerbsError(f"no binding of verbs: {'; '.join(reasons)}; {advice}")


def _import(name: str) -> Binding:
    with _root_logger_as_it_was():
        module = importlib.import_module(f"fs_common.transports.rdma.bindings.{name}")
        binding: Binding = module.make()
    # Before any memory is registered. Kernels since 5.12 copy pinned pages for a child. On earlier ones a parent that
    # writes to one after a fork has another page than the device; there, children are to be without registered pages.
    # To ask for that where it is not needed takes them from all children all the same: findings/rdma_fork_init.sh.
    library = ctypes.CDLL("libibverbs.so.1")
    if library.ibv_is_fork_initialized() != FORK_UNNEEDED:
        library.ibv_fork_init()
    return binding


@contextlib.contextmanager
def _root_logger_as_it_was() -> Iterator[None]:
    """The import of pyverbs gives the root logger a handler of its own, and its level."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
