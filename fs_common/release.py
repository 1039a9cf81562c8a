"""The release this source tree is: shown by `emberfs --version` and told to the manager by every node.

The same as `version` in `pyproject.toml`, which a test compares.
"""

RELEASE = "0.1.0"
