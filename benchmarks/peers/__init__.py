"""An EmberFS mount beside what a user would otherwise mount: `python -m benchmarks.peers`."""
