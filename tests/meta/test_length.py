"""fsync and close: the length rules at the head of `fs_meta.ops.sessions`. truncate: its steps and races."""

import errno

import pytest

from fs_common.errors import Code, EmberError
from fs_common.limits import FILE_SIZE_MAX
from fs_common.records.meta import OpenReply, User
from fs_meta.ops.sessions import ROUNDS_MAX
from tests.meta.world import CHUNK, World, fails, world
from tests.support import run


async def _file(w: World, length: int = 0) -> OpenReply:
    """A file open for writing; `length` bytes of it are written and settled."""
    opened = await w.create_open(b"f")
    if length:
        await _write(w, opened, length)
        await w.fsync(opened.attributes.inode, opened.session, length)
    return opened


async def _write(w: World, opened: OpenReply, end: int) -> None:
    layout = opened.attributes.layout
    assert layout is not None
    w.chunks.write(opened.attributes.inode, layout, end)


def test_a_hint_grows_the_file_and_asks_nobody() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w)
            inode, session = opened.attributes.inode, opened.session
            seen = await w.fsync(inode, session, 100)
            assert seen.length == 100 and seen.mtime_ns == seen.ctime_ns > opened.attributes.mtime_ns
            assert (await w.fsync(inode, session, 50)).length == 100
            assert (await w.close(inode, session, 200)).length == 200
            assert await w.table(b"S") == [] and w.chunks.measured == []
            assert (await w.stat(b"f")).length == 200

    run(body())


def test_no_hint_leaves_length_and_times() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 10)
            before = await w.stat(b"f")
            assert await w.fsync(opened.attributes.inode, opened.session) == before
            assert await w.close(opened.attributes.inode, opened.session) == before

    run(body())


def test_the_writers_mtime_is_taken() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w)
            inode, session = opened.attributes.inode, opened.session
            assert (await w.fsync(inode, session, 5, mtime_ns=12345)).mtime_ns == 12345
            assert (await w.close(inode, session, mtime_ns=23456)).mtime_ns == 23456

    run(body())


def test_a_file_is_sparse_from_its_first_hole_until_it_is_cut_to_nothing() -> None:
    """Told by a writer, made by a truncate, or possible where storage had to be asked for the length."""

    async def body() -> None:
        async with world() as w:
            opened = await _file(w)
            inode, session = opened.attributes.inode, opened.session
            assert opened.attributes.layout is not None
            chunk = opened.attributes.layout.chunk_size

            async def truncated(length: int) -> bool:
                return (await w.truncate(inode, length)).sparse

            assert not (await w.fsync(inode, session, 5 * chunk)).sparse
            assert (await w.fsync(inode, session, 6 * chunk, sparse=True)).sparse
            assert (await w.fsync(inode, session, 7 * chunk)).sparse
            assert (await w.stat(b"f")).sparse
            assert [await truncated(length) for length in (1, 0, chunk - 1, 2 * chunk - 2, 3 * chunk - 2, 1, 0)] == [
                True, False, False, False, True, True, False,
            ]  # fmt: skip
            await _write(w, opened, 3 * chunk)
            assert (await w.close(inode, session, exact=True)).sparse

    run(body())


def test_a_writers_date_is_the_ctime_too_if_its_clock_can_be_believed() -> None:
    """What was shown on its machine before stays; and who looks for changes by ctime finds each."""

    async def body() -> None:
        async with world() as w:
            opened = await _file(w)
            inode, session = opened.attributes.inode, opened.session

            async def ctime_ns(wrote_ns: int) -> int:
                seen = await w.fsync(inode, session, 5, mtime_ns=wrote_ns)
                assert seen.mtime_ns == wrote_ns
                return seen.ctime_ns

            wrote_ns = w.clock()
            for _ in range(5):
                w.clock()
            assert await ctime_ns(wrote_ns) == wrote_ns
            before = w.clock()
            assert await ctime_ns(wrote_ns) > before, "nothing changes without a later ctime"
            before = w.clock()
            assert before < await ctime_ns(before + 10**12) < before + 10**12, "a clock that runs ahead"
            late_ns = w.clock()
            w.clock.now_ns += 3600 * 10**9
            assert await ctime_ns(late_ns) > late_ns + 3599 * 10**9, "a clock that stays behind"

    run(body())


def test_exact_asks_storage() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w)
            inode, session = opened.attributes.inode, opened.session
            await _write(w, opened, 3 * CHUNK + 5)
            assert (await w.fsync(inode, session, 7, exact=True)).length == 3 * CHUNK + 5
            await _write(w, opened, 4 * CHUNK)
            assert (await w.close(inode, session, exact=True)).length == 4 * CHUNK
            assert w.chunks.measured == [inode, inode]

    run(body())


def test_asking_never_shortens_a_file() -> None:
    """Grown by truncate, it ends in a hole that no chunk tells of."""

    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 10)
            inode = opened.attributes.inode
            await w.truncate(inode, 5000)
            assert (await w.fsync(inode, opened.session, exact=True)).length == 5000

    run(body())


def test_a_hint_of_before_a_cut_does_not_grow_the_file() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 1000)
            inode, session = opened.attributes.inode, opened.session
            cut = await w.truncate(inode, 10)
            assert (cut.length, cut.truncate_version) == (10, 1)
            assert (await w.fsync(inode, session, 1000)).length == 10
            assert w.chunks.measured == [inode]
            assert (await w.fsync(inode, session, 5)).length == 10
            assert w.chunks.measured == [inode], "an old hint within the file needs no answer"
            await _write(w, opened, 700)
            assert (await w.close(inode, session, 700)).length == 700, "what was written after the cut counts"

    run(body())


def test_a_hint_of_the_new_version_is_believed_again() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 1000)
            inode = opened.attributes.inode
            await w.truncate(inode, 10)
            assert (await w.fsync(inode, opened.session, 50, truncate_version=1)).length == 50
            assert w.chunks.measured == []

    run(body())


def test_hints_that_cannot_be() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w)
            inode, session = opened.attributes.inode, opened.session
            with fails(errno.EINVAL):
                await w.fsync(inode, session, 5, truncate_version=1)
            for end in (CHUNK * 2**32 + 1, FILE_SIZE_MAX):
                with fails(errno.EFBIG):
                    await w.close(inode, session, end)
            assert len(await w.table(b"S")) == 1

    run(body())


def test_only_a_session_may_settle() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w)
            inode, session = opened.attributes.inode, opened.session
            other = await w.create_open(b"other")
            for wrong in (b"x" * 16, other.session, b""):
                with fails(errno.EBADF):
                    await w.fsync(inode, wrong, 5)
                with fails(errno.EBADF):
                    await w.close(inode, wrong, 5)
            await w.close(inode, session)
            with fails(errno.EBADF):
                await w.close(inode, session)
            assert (await w.stat(b"f")).length == 0

    run(body())


def test_a_truncate_between_the_question_and_its_transaction_asks_again() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 1000)
            inode, session = opened.attributes.inode, opened.session

            async def cut() -> None:
                await w.truncate(inode, 10)

            w.chunks.after_step.append(cut)
            assert (await w.fsync(inode, session, 1000, exact=True)).length == 10
            assert w.chunks.measured == [inode, inode]

    run(body())


def test_storage_that_does_not_answer_fails_an_exact_close_and_keeps_the_session() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w)
            inode, session = opened.attributes.inode, opened.session
            w.chunks.unreachable = True
            with fails(errno.ECONNREFUSED):
                await w.close(inode, session, 5, exact=True)
            assert (await w.fsync(inode, session, 5)).length == 5
            w.chunks.unreachable = False
            await w.close(inode, session, 5, exact=True)

    run(body())


def test_truncate_cuts_chunks_then_the_length() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 3 * CHUNK)
            inode = opened.attributes.inode
            before = await w.stat(b"f")
            seen = await w.truncate(inode, CHUNK + 7)
            assert (seen.length, seen.truncate_version) == (CHUNK + 7, 1)
            assert seen.mtime_ns == seen.ctime_ns > before.mtime_ns
            assert w.chunks.of(inode) == {0: CHUNK, 1: 7}
            await w.truncate(inode, 0)
            assert w.chunks.of(inode) == {}

    run(body())


def test_truncate_grows_by_a_hole() -> None:
    async def body() -> None:
        async with world() as w:
            f = await w.create(b"f")
            seen = await w.truncate(f.inode, 10**12)
            assert (seen.length, seen.truncate_version) == (10**12, 1)
            assert w.chunks.cuts == [] and w.chunks.lengths == {}

    run(body())


def test_truncate_to_the_same_length_cuts_what_the_length_does_not_tell_of() -> None:
    """Of a writer that has not reported, and of one whose session is gone: nobody knows what it has stored."""

    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 100)
            inode = opened.attributes.inode
            await _write(w, opened, 500)  # not reported yet
            await w.truncate(inode, 100)
            assert w.chunks.of(inode) == {0: 100}
            await w.close(inode, opened.session, truncate_version=1)
            await _write(w, opened, 500)
            await w.truncate(inode, 100)
            assert w.chunks.of(inode) == {0: 100}

    run(body())


@pytest.mark.parametrize("length", [0, 100])
def test_truncate_to_the_same_length_marks_times_and_drops_set_id_bits(length: int) -> None:
    """As open with O_TRUNC does, also of an empty file. root keeps the bits, and the version stays: the contents do."""

    async def body() -> None:
        async with world() as w:
            opened = await _file(w, length)
            inode = opened.attributes.inode
            await w.set_attr(b"f", mode=0o6777)
            before = await w.stat(b"f")
            kept = await w.truncate(inode, length)
            assert kept.mode == 0o6777
            assert before.ctime_ns < kept.ctime_ns == kept.mtime_ns
            seen = await w.acting(User(1000, 1000)).truncate(inode, length)
            assert seen.mode == 0o777 and kept.ctime_ns < seen.ctime_ns == seen.mtime_ns
            assert (seen.length, seen.version) == (length, before.version)

    run(body())


def test_a_growing_truncate_cuts_what_a_writer_has_not_reported() -> None:
    """Else growing the file further would show those bytes again."""

    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 100)
            inode = opened.attributes.inode
            await _write(w, opened, 500)  # not reported yet
            await w.truncate(inode, 300)
            assert w.chunks.of(inode) == {0: 300}

    run(body())


@pytest.mark.parametrize(
    ("name", "length", "number"),
    [
        (b"d", 0, errno.EISDIR),
        (b"link", 0, errno.EINVAL),
        (b"f", -1, errno.EINVAL),
        (b"f", CHUNK * 2**32 + 1, errno.EFBIG),
        (b"f", FILE_SIZE_MAX, errno.EFBIG),
    ],
)
def test_what_truncate_refuses(name: bytes, length: int, number: int) -> None:
    async def body() -> None:
        async with world() as w:
            await w.mkdir(b"d")
            await w.symlink(b"link", b"f")
            await w.create(b"f")
            with fails(number):
                await w.truncate((await w.stat(name, follow=False)).inode, length)
            with fails(errno.ESTALE):
                await w.truncate(9999, 0)

    run(body())


def test_truncate_fails_unchanged_when_storage_does_not_answer() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 100)
            before = await w.stat(b"f")
            w.chunks.unreachable = True
            with fails(errno.ECONNREFUSED):
                await w.truncate(opened.attributes.inode, 10)
            assert await w.stat(b"f") == before

    run(body())


def test_a_writer_that_reports_during_the_cut_is_cut_too() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 100)
            inode = opened.attributes.inode

            async def write_and_report() -> None:
                await _write(w, opened, 900)
                await w.fsync(inode, opened.session, 900)

            w.chunks.after_step.append(write_and_report)
            assert (await w.truncate(inode, 10)).length == 10
            assert w.chunks.of(inode) == {0: 10} and len(w.chunks.cuts) == 2

    run(body())


def test_a_writer_that_reports_after_the_truncate_wrote_after_it() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 100)
            inode = opened.attributes.inode

            async def write() -> None:
                await _write(w, opened, 900)

            w.chunks.after_step.append(write)
            assert (await w.truncate(inode, 10)).length == 10
            assert (await w.fsync(inode, opened.session, 900)).length == 900

    run(body())


def test_a_writer_that_never_stops_makes_truncate_busy() -> None:
    async def body() -> None:
        async with world() as w:
            opened = await _file(w, 100)
            inode = opened.attributes.inode

            async def report() -> None:
                await w.fsync(inode, opened.session, 100)

            w.chunks.after_step.extend([report] * ROUNDS_MAX)
            with pytest.raises(EmberError) as caught:
                await w.truncate(inode, 10)
            assert caught.value.code is Code.BUSY
            assert (await w.stat(b"f")).length == 100

    run(body())
