"""Bytes that are no message of the control plane: refused, with one word and no line in the log. And answers that are
bytes already.

gRPC's own answer is UNKNOWN, with a traceback in the log for each call: whoever reaches the port, known or not, fills
the disk with a few bytes a time.

Called by: the control plane's server.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

from fs_common.errors import Code, EmberError
from fs_meta.manager.grpc_errors import abort

Stream = Callable[[Any, Any], AsyncGenerator[Any, None]]


class _NoMessage:
    """What a deserializer gives instead of an error."""


_NO_MESSAGE: Final = _NoMessage()


class Decoding(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The last of a server's interceptors: those before it may refuse a call whatever its bytes are."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        decode = _forgiving(handler.request_deserializer)
        encode = _unless_encoded(handler.response_serializer)
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                return grpc.unary_unary_rpc_method_handler(_answering(handler.unary_unary), decode, encode)
            case False, True:
                return grpc.unary_stream_rpc_method_handler(_streaming(handler.unary_stream), decode, encode)
            case True, True:
                return grpc.stream_stream_rpc_method_handler(_both_streaming(handler.stream_stream), decode, encode)
        return handler


def _forgiving(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    from google.protobuf.message import DecodeError

    def forgiving(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _NO_MESSAGE

    return forgiving


def _unless_encoded(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A method may give its answer's bytes, where many get the same."""

    def bytes_of(answer: Any) -> bytes:
        return answer if isinstance(answer, bytes) else encode(answer)

    return bytes_of


def _answering(answer: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def method(request: Any, context: Any) -> Any:
        await _require_message(request, context)
        return await answer(request, context)

    return method


def _streaming(answer: Stream) -> Stream:
    async def method(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        await _require_message(request, context)
        async with contextlib.aclosing(answer(request, context)) as replies:
            async for reply in replies:
                yield reply

    return method


def _both_streaming(
    answer: Stream,
) -> Stream:
    async def messages(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            await _require_message(request, context)
            yield request

    async def method(requests: AsyncIterator[Any], context: Any) -> AsyncGenerator[Any, None]:
        # Closed with the call: what a stream lets go at its end must not wait for the collector.
        async with contextlib.aclosing(answer(messages(requests, context), context)) as replies:
            async for reply in replies:
                yield reply

    return method


async def _require_message(request: Any, context: Any) -> None:
    if request is _NO_MESSAGE:
        await abort(context, EmberError(Code.BAD_BODY, "the request's bytes are no message of this method"))
