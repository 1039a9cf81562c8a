"""The whole storage side in one process, from one seed: manager, replicas, clients, networks, disks, clocks.

`python -m tests.sim --seeds N`; what it proves, and how to replay a failure: `docs/TESTING.md`.
"""
