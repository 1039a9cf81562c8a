"""Frames over RDMA: headers by SEND and RECV, payload by one-sided READ and WRITE. See docs/concurrency/rdma.md."""
