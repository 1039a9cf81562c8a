"""`with refused(Code.X):` the block raises the error with that code."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fs_common.errors import Code, EmberError


@contextmanager
def refused(code: Code) -> Iterator[pytest.ExceptionInfo[EmberError]]:
    with pytest.raises(EmberError) as caught:
        yield caught
    assert caught.value.code is code, caught.value
