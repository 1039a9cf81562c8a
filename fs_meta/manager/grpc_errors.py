"""How the control plane tells errors: the row of the table in the trailing metadata `ember-code`, one line as details.

Called by: the control plane's services.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc

from fs_common.control_records import CODE_METADATA_KEY
from fs_common.errors import Code, EmberError, Retry

_log = logging.getLogger(__name__)
_S = TypeVar("_S")

STATUS_OF_RETRY = {
    Retry.SAFE: grpc.StatusCode.UNAVAILABLE,
    Retry.AFTER_REFRESH: grpc.StatusCode.UNAVAILABLE,
    Retry.MAYBE_APPLIED: grpc.StatusCode.UNAVAILABLE,
    Retry.FINAL: grpc.StatusCode.FAILED_PRECONDITION,
}
_OWN_STATUS = {
    Code.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Code.ACCESS_DENIED: grpc.StatusCode.PERMISSION_DENIED,
}
"""Where gRPC has a word of its own."""


async def abort(context: Any, error: EmberError) -> NoReturn:
    """End the call with the error's row."""
    row = error.code.value
    status = _OWN_STATUS.get(error.code) or STATUS_OF_RETRY[row.retry]
    await context.abort(status, error.message, ((CODE_METADATA_KEY, str(row.number)),))
    raise AssertionError("abort raises")


def answering(answer: Callable[[_S, Any], Awaitable[Any]]) -> Callable[[_S, Any, Any], Awaitable[Any]]:
    """A method of a servicer out of what answers a request: errors of the table are told as such, any other one is a
    defect, of which the caller hears that there is one, and the log what it is."""

    @wraps(answer)
    async def method(self: _S, request: Any, context: Any) -> Any:
        try:
            return await answer(self, request)
        except EmberError as error:
            await abort(context, error)
        except Exception:
            _log.exception("%s failed", answer.__name__)
            await abort(context, EmberError(Code.INTERNAL))

    return method
