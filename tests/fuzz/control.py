"""Messages of the control plane with any values, and bytes that are no messages: answered or refused."""

import asyncio
from typing import Any

import grpc
import grpc.aio

from fs_common import control_pb2 as pb
from tests.fuzz.requests import no_defects
from tests.fuzz.values import BYTES, FLOATS, INTEGERS, NEGATIVE, TEXTS, Values

CALL_S = 2.0
ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""Not UNKNOWN and not INTERNAL: those are what a defect of the servicer becomes."""


def message(values: Values, descriptor: Any, depth: int = 0) -> Any:
    """One of this type; each field is set with a chance, repeated ones several times."""
    from google.protobuf import message_factory

    made = message_factory.GetMessageClass(descriptor)()
    chance = values.chance
    for field in descriptor.fields:
        if chance.random() < 0.3 or depth > 4:
            continue
        if field.is_repeated:
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                continue
            many = [_value(values, field, depth) for _ in range(chance.choice((0, 1, 2, 2, 40)))]
            getattr(made, field.name).extend(many)
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(message(values, field.message_type, depth + 1))
        else:
            setattr(made, field.name, _value(values, field, depth))
    return made


def _value(values: Values, field: Any, depth: int) -> Any:
    chance = values.chance
    match field.cpp_type:
        case field.CPPTYPE_MESSAGE:
            return message(values, field.message_type, depth + 1)
        case field.CPPTYPE_STRING:
            texts = (*TEXTS, "storage", "meta")
            return chance.choice(BYTES if field.type == field.TYPE_BYTES else texts)
        case field.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case field.CPPTYPE_ENUM:
            return chance.choice([value.number for value in field.enum_type.values] + [77])
        case field.CPPTYPE_DOUBLE | field.CPPTYPE_FLOAT:
            return chance.choice(FLOATS)
    bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
    signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    picked = chance.choice(values.known if chance.random() < 0.5 else INTEGERS + NEGATIVE)
    return min(max(picked, least), most)


async def fuzz_control_plane(seed: int, count: int) -> None:
    """Every method of every service, with messages and with bytes that are none."""
    from tests.manager.test_control_plane import Stub, managing

    values = Values(seed)
    services = list(pb.DESCRIPTOR.services_by_name.values())
    async with no_defects(), managing() as manager:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{manager.port}") as channel:
            for _ in range(count):
                method = values.chance.choice([method for service in services for method in service.methods])
                await _call(channel, method, values)
            assert (await Stub(channel).GetRouting(pb.GetRoutingRequest(), timeout=CALL_S)) is not None


async def _call(channel: Any, method: Any, values: Values) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    garbage = values.chance.random() < 0.1
    asked = [
        values.chance.randbytes(values.chance.randrange(200))
        if garbage
        else message(values, method.input_type).SerializeToString()
        for _ in range(values.chance.choice((1, 1, 3)) if method.client_streaming else 1)
    ]
    status = grpc.StatusCode.OK
    try:
        async with asyncio.timeout(CALL_S):
            if method.client_streaming:
                call = channel.stream_stream(path)(iter(asked))
                async for _ in call:
                    pass
            elif method.server_streaming:
                call = channel.unary_stream(path)(asked[0])
                await call.read()
                call.cancel()
            else:
                await channel.unary_unary(path)(asked[0])
    except TimeoutError:
        return
    except grpc.aio.AioRpcError as error:
        status = error.code()
        # gRPC's own word for a stream that is ended while its caller writes.
        core = error.details() == "Internal error from Core"
        assert status in ALLOWED or core, f"{path}: {status} {error.details()} {asked!r}"
