"""The storage daemon: chunk engine and chain replication."""

import os

# gRPC's core writes to stderr in a format of its own, and tells of every connection that ends. It reads this when it
# is imported, so it is set before any module of this package can do that.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
