"""What processes did between two readings of their counters."""

from fs_client.top import meta_rates, storage_rates


def test_a_storage_daemon() -> None:
    before = {"reads": 100, "bytes_read": 4096, "rpc_read_chunks_calls": 10, "rpc_read_chunks_ns": 10_000_000}
    after = {
        "reads": 300,
        "bytes_read": 4096 + 2_000_000,
        "rpc_read_chunks_calls": 20,
        "rpc_read_chunks_ns": 40_000_000,
        "updates": 8,
        "updates_in_flight": 3,
        "bytes_resynced": 10,
        "bytes_mended": 30,
        "updates_failed": 2,
    }
    rates = storage_rates(before, after, 2.0)
    assert (rates.reads, rates.read_bytes, rates.read_ms) == (100.0, 1_000_000.0, 3.0)
    assert (rates.updates, rates.update_ms, rates.in_flight) == (4.0, None, 3)
    assert (rates.resync_bytes, rates.errors, rates.slow) == (20.0, 1.0, 0.0)


def test_one_that_has_started_anew_did_what_it_counts_now() -> None:
    rates = storage_rates({"reads": 1_000_000}, {"reads": 50}, 5.0)
    assert rates.reads == 10.0


def test_a_metadata_server() -> None:
    before = {"rpc_stat_calls": 5, "rpc_create_calls": 1}
    after = {
        "rpc_stat_calls": 25,
        "rpc_stat_errors": 4,
        "rpc_stat_ns": 20_000_000,
        "rpc_create_calls": 11,
        "rpc_create_ns": 40_000_000,
        "rpc_hello_calls": 900,
        "slow_operations": 2,
    }
    rates = meta_rates(before, after, 2.0)
    assert (rates.looks, rates.changes, rates.refused, rates.mean_ms, rates.slow) == (10.0, 5.0, 2.0, 2.0, 1.0)
