"""The error table is part of the protocol: numbers, errnos and retry classes never change."""

import errno
import os
import pickle

import pytest

from fs_common.errors import Code, EmberError, Retry, code_of, to_os_error

GOLDEN = {
    "PEER_GONE": (1, errno.ECONNRESET, Retry.MAYBE_APPLIED),
    "UNREACHABLE": (2, errno.ECONNREFUSED, Retry.SAFE),
    "TIMED_OUT": (3, errno.ETIMEDOUT, Retry.MAYBE_APPLIED),
    "BAD_FRAME": (4, errno.EPROTO, Retry.FINAL),
    "BAD_BODY": (5, errno.EPROTO, Retry.FINAL),
    "TOO_LARGE": (6, errno.EMSGSIZE, Retry.FINAL),
    "UNKNOWN_METHOD": (7, errno.ENOSYS, Retry.FINAL),
    "VERSION_MISMATCH": (8, errno.EPROTONOSUPPORT, Retry.FINAL),
    "WRONG_CLUSTER": (9, errno.EXDEV, Retry.FINAL),
    "BUSY": (10, errno.EAGAIN, Retry.SAFE),
    "CLOSING": (11, errno.ESHUTDOWN, Retry.SAFE),
    "INTERNAL": (12, errno.EIO, Retry.MAYBE_APPLIED),
    "CANCELLED": (13, errno.ECANCELED, Retry.MAYBE_APPLIED),
    "UNAUTHENTICATED": (14, errno.EACCES, Retry.FINAL),
    "PASS_REFUSED": (15, errno.EACCES, Retry.AFTER_REFRESH),
    "PERMIT_NEEDED": (16, errno.EACCES, Retry.AFTER_REFRESH),
    "NOT_FOUND": (100, errno.ENOENT, Retry.FINAL),
    "EXISTS": (101, errno.EEXIST, Retry.FINAL),
    "NOT_DIRECTORY": (102, errno.ENOTDIR, Retry.FINAL),
    "IS_DIRECTORY": (103, errno.EISDIR, Retry.FINAL),
    "NOT_EMPTY": (104, errno.ENOTEMPTY, Retry.FINAL),
    "NAME_TOO_LONG": (105, errno.ENAMETOOLONG, Retry.FINAL),
    "INVALID": (106, errno.EINVAL, Retry.FINAL),
    "LOOP": (107, errno.ELOOP, Retry.FINAL),
    "TOO_MANY_LINKS": (108, errno.EMLINK, Retry.FINAL),
    "NOT_PERMITTED": (109, errno.EPERM, Retry.FINAL),
    "ACCESS_DENIED": (110, errno.EACCES, Retry.FINAL),
    "STALE": (111, errno.ESTALE, Retry.FINAL),
    "BAD_SESSION": (112, errno.EBADF, Retry.FINAL),
    "FILE_TOO_LARGE": (113, errno.EFBIG, Retry.FINAL),
    "CROSS_DEVICE": (114, errno.EXDEV, Retry.FINAL),
    "ROOT_DIRECTORY": (115, errno.EBUSY, Retry.FINAL),
    "KV_CONFLICT": (200, errno.EAGAIN, Retry.SAFE),
    "KV_MAYBE_COMMITTED": (201, errno.EIO, Retry.MAYBE_APPLIED),
    "KV_FULL": (202, errno.ENOSPC, Retry.FINAL),
    "CHUNK_NOT_FOUND": (300, errno.ENOENT, Retry.FINAL),
    "CHAIN_UNKNOWN": (301, errno.EIO, Retry.AFTER_REFRESH),
    "CHAIN_VERSION": (302, errno.EIO, Retry.AFTER_REFRESH),
    "NOT_HEAD": (303, errno.EIO, Retry.AFTER_REFRESH),
    "NOT_SERVING": (304, errno.EIO, Retry.AFTER_REFRESH),
    "CHAIN_BROKEN": (305, errno.EIO, Retry.MAYBE_APPLIED),
    "CHECKSUM": (306, errno.EIO, Retry.SAFE),
    "NO_XATTR": (116, errno.ENODATA, Retry.FINAL),
    "XATTR_TOO_LARGE": (117, errno.E2BIG, Retry.FINAL),
    "NOT_SUPPORTED": (118, errno.EOPNOTSUPP, Retry.FINAL),
    "WOULD_BLOCK": (119, errno.EAGAIN, Retry.FINAL),
    "DEADLOCK": (120, errno.EDEADLK, Retry.FINAL),
    "NO_DEVICE": (121, errno.ENXIO, Retry.FINAL),
    "XATTR_NAME": (122, errno.ERANGE, Retry.FINAL),
    "TOO_MANY_LOCKS": (123, errno.ENOLCK, Retry.FINAL),
    "LOCK_LOST": (124, errno.EIO, Retry.FINAL),
    "NO_SPACE": (307, errno.ENOSPC, Retry.FINAL),
    "DISK_FAILED": (308, errno.EIO, Retry.SAFE),
    "UPDATE_STALE": (309, errno.EIO, Retry.FINAL),
    "UPDATE_MISSING": (310, errno.EIO, Retry.SAFE),
    "REPLICAS_DIFFER": (311, errno.EIO, Retry.MAYBE_APPLIED),
    "WRITES_LOST": (312, errno.EIO, Retry.FINAL),
    "NEEDS_WHOLE": (313, errno.EIO, Retry.SAFE),
    "CHAIN_LOST": (314, errno.EIO, Retry.AFTER_REFRESH),
    "NODE_UNKNOWN": (400, errno.ENOENT, Retry.FINAL),
    "CLUSTER_NOT_READY": (401, errno.EAGAIN, Retry.SAFE),
    "NODE_TAKEN": (402, errno.EBUSY, Retry.SAFE),
    "NOT_MANAGER": (403, errno.EAGAIN, Retry.SAFE),
}
"""A new row is added here when it is added there; a row that is here is never changed."""


def test_the_table_is_what_peers_know() -> None:
    table = {code.name: (code.value.number, code.value.errno, code.value.retry) for code in Code}
    for name, row in GOLDEN.items():
        assert table.get(name) == row, f"{name} is known to peers as it was"
    assert set(table) == set(GOLDEN), "every row is pinned"


def test_numbers_and_names_are_unique() -> None:
    assert len({code.value.number for code in Code}) == len(list(Code))
    assert len({id(code) for code in Code.__members__.values()}) == len(Code.__members__), "no two equal rows"
    assert all(code.value.name == code.name for code in Code)
    assert all(code.value.advice for code in Code)


def test_numbers_find_their_rows_and_unknown_ones_are_a_defect_of_the_peer() -> None:
    assert all(code_of(code.value.number) is code for code in Code)
    assert code_of(99_999) is Code.INTERNAL


def test_an_error_says_what_happened_and_to_what() -> None:
    error = EmberError(Code.NOT_FOUND, "no such name", b"/a/b")
    assert str(error) == "no such name: b'/a/b' [NOT_FOUND]"
    assert (error.errno, error.filename, error.retry) == (errno.ENOENT, b"/a/b", Retry.FINAL)
    assert str(EmberError(Code.BUSY)) == "back off and retry [BUSY]"
    assert isinstance(error, OSError)


@pytest.mark.parametrize("error", [EmberError(Code.NOT_HEAD, "not the head"), EmberError(Code.EXISTS, "taken", "/a")])
def test_an_error_survives_pickling(error: EmberError) -> None:
    """Loader workers send them to their parent."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is EmberError
    assert (copy.code, str(copy), copy.filename, copy.errno) == (error.code, str(error), error.filename, error.errno)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code.NOT_FOUND, FileNotFoundError),
        (Code.EXISTS, FileExistsError),
        (Code.NOT_DIRECTORY, NotADirectoryError),
        (Code.IS_DIRECTORY, IsADirectoryError),
        (Code.ACCESS_DENIED, PermissionError),
        (Code.UNREACHABLE, ConnectionRefusedError),
        (Code.TIMED_OUT, TimeoutError),
        (Code.NO_SPACE, OSError),
    ],
)
def test_posix_programs_get_the_exception_they_expect(code: Code, expected: type[OSError]) -> None:
    original = EmberError(code, "words")
    error = to_os_error(original, "/path")
    assert type(error) is expected
    assert (error.errno, error.filename) == (code.value.errno, "/path")
    assert error.__cause__ is original
    assert to_os_error(original).filename is None


def test_strerror_begins_with_the_words_of_the_system() -> None:
    """Scripts and people match `[Errno 2] No such file or directory: '/a'`."""
    missing = to_os_error(EmberError(Code.NOT_FOUND, "no b'a' in directory 1"), "/a")
    assert str(missing) == "[Errno 2] No such file or directory: '/a'"
    wrong = to_os_error(EmberError(Code.INVALID, "stripe 0 is less than 1"), "/d")
    assert str(wrong) == "[Errno 22] Invalid argument: stripe 0 is less than 1: '/d'"
    nowhere = to_os_error(EmberError(Code.NOT_FOUND, "directory 7 was removed"))
    assert str(nowhere) == "[Errno 2] No such file or directory: directory 7 was removed"
    said = to_os_error(EmberError(Code.ACCESS_DENIED, "Permission denied: it may be listed, not searched"), "/d")
    assert said.strerror == "Permission denied: it may be listed, not searched"


@pytest.mark.parametrize("code", Code)
def test_no_error_hides_what_happened(code: Code) -> None:
    error = to_os_error(EmberError(code, "words"))
    assert error.strerror == f"{os.strerror(code.value.errno)}: words"
    assert isinstance(error.__cause__, EmberError) and error.__cause__.message == "words"
