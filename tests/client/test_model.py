"""Random operations on files against byte arrays, on a cluster that fails now and then."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fs_client
from fs_client import FileSystem
from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from tests.client.fake_cluster import CHUNK, FakeCluster

PLACES = st.one_of(
    st.integers(0, 6 * CHUNK),
    st.builds(lambda index, by: max(index * CHUNK + by, 0), st.integers(0, 5), st.integers(-2, 2)),
)
SIZES = st.one_of(
    st.integers(0, 100),
    st.integers(0, 3 * CHUNK),
    st.builds(lambda count, by: max(count * CHUNK + by, 0), st.integers(0, 2), st.integers(-2, 2)),
)
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), PLACES, SIZES),
    st.tuples(st.just("truncate"), PLACES, st.just(0)),
    st.tuples(st.just("read"), PLACES, SIZES),
    st.tuples(st.just("flush"), st.just(0), st.just(0)),
)
TROUBLES = [*[None] * 16, Code.BUSY, Code.CHAIN_BROKEN, Code.CHECKSUM, Code.NOT_SERVING]


@pytest.fixture
def two_replicas() -> Iterator[tuple[FakeCluster, FileSystem]]:
    with FakeCluster(nodes=4, replicas=2, stripe=4).running() as cluster:
        with fs_client.connect(cluster.address, timeout_s=20) as fs:
            yield cluster, fs


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    operations=st.lists(OPERATIONS, max_size=20),
    stripe=st.integers(1, 4),
    buffering=st.sampled_from([-1, 0, 5000]),
    seed=st.integers(0, 2**32),
)
def test_files_are_byte_arrays(
    two_replicas: tuple[FakeCluster, FileSystem],
    operations: list[tuple[str, int, int]],
    stripe: int,
    buffering: int,
    seed: int,
) -> None:
    cluster, fs = two_replicas
    chooser = random.Random(seed)

    def trouble(item: object) -> EmberError | None:
        code = chooser.choice(TROUBLES)
        return None if code is None else EmberError(code, "trouble")

    for daemon in cluster.storage.values():
        daemon.read_fault = daemon.update_fault = trouble
        daemon.lost_replies = chooser.choice([0, 0, 1])
    model = bytearray()
    if fs.exists("/f"):
        fs.unlink("/f")
    layout = Layout(chunk_size=CHUNK, stripe=stripe)
    with fs.open("/f", "x+b", buffering=buffering, layout=layout) as file:
        for kind, place, size in operations:
            if kind == "write":
                data = chooser.randbytes(size)
                file.seek(place)
                assert file.write(data) == size
                if data:
                    model.extend(bytes(max(place + size - len(model), 0)))
                    model[place : place + size] = data
            elif kind == "truncate":
                assert file.truncate(place) == place
                del model[place:]
                model.extend(bytes(place - len(model)))
            elif kind == "read":
                file.seek(place)
                assert file.read(size) == model[place : place + size]
            else:
                file.flush()
        assert file.seek(0, 2) == len(model)
    assert fs.stat("/f").st_size == len(model)
    assert fs.read_file("/f") == model


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ranges=st.lists(st.tuples(st.integers(0, 2), PLACES, SIZES), max_size=30), own_buffer=st.booleans())
def test_ranges_are_slices(
    two_replicas: tuple[FakeCluster, FileSystem], ranges: list[tuple[int, int, int]], own_buffer: bool
) -> None:
    cluster, fs = two_replicas
    chooser = random.Random(len(ranges))
    for daemon in cluster.storage.values():
        daemon.lost_replies = 0
        daemon.read_fault = lambda item: None
        daemon.update_fault = lambda item: None
    contents = [random.Random(number).randbytes(number * 2 * CHUNK + number * 77) for number in range(3)]
    if not fs.exists("/c2"):
        for number, data in enumerate(contents):
            fs.write_file(f"/c{number}", data)
    for daemon in cluster.storage.values():
        daemon.read_fault = lambda item: (
            EmberError(Code.DISK_FAILED, "now and then") if chooser.random() < 0.05 else None
        )
    refs = [fs.ref(f"/c{number}") for number in range(3)]
    into = bytearray(sum(size for _, _, size in ranges)) if own_buffer else None
    views = fs.read_ranges([(refs[number], place, size) for number, place, size in ranges], into)
    expected = [contents[number][place : place + size] for number, place, size in ranges]
    assert [bytes(view) for view in views] == expected
    if into is not None:
        position = 0
        for data, (_, _, size) in zip(expected, ranges, strict=True):
            assert into[position : position + size] == data + bytes(size - len(data))
            position += size
