"""What EmberFS raises: built-in `OSError`s with errno and filename, as `os` does, whose cause is an `EmberError`.

`EmberError.code` is a `Code`, for programs that have to tell apart what has the same errno.
"""

from fs_common.errors import Code, EmberError, Retry

__all__ = ["Code", "EmberError", "Retry"]
