"""What EmberFS costs, each figure beside its limit measured in the same run. `python -m benchmarks --help`."""
