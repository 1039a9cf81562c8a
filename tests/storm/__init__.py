"""The storm: a cluster of real processes that is killed, stopped, cut off and robbed of its power while clients use it.

`python -m tests.storm --minutes 10 --seed 1` is one run; `docs/TESTING.md` has its options.
"""
