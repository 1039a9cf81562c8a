"""The committed code of the control plane is what its .proto says, and the records convert both ways."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from fs_common import control_pb2, control_pb2_grpc
from fs_common.control_records import routing_message, routing_record
from fs_common.errors import Code, EmberError
from fs_common.records.routing import (
    Chain,
    ChainTable,
    ChainTarget,
    NodeInfo,
    NodeState,
    PublicState,
    Routing,
)

ROOT = Path(__file__).parents[2]
PROTO = "fs_common/control.proto"


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="needs grpcio-tools")
def test_the_generated_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    """Messages and services are compared, not the text, which differs between releases of the generator."""
    made = tmp_path / "control.binpb"
    arguments = ["-I", str(ROOT), "--include_imports", f"--descriptor_set_out={made}", PROTO]
    done = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (expected,) = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    committed = descriptor_pb2.FileDescriptorProto.FromString(control_pb2.DESCRIPTOR.serialized_pb)
    expected.ClearField("source_code_info")
    for message in (expected, *expected.message_type):
        for field in getattr(message, "field", ()):
            field.ClearField("json_name")  # the descriptor set spells out what generated code leaves to be derived
    assert committed == expected, "run the command at the head of fs_common/control.proto"


def test_the_stubs_call_every_method_as_it_is_declared() -> None:
    """Names, directions and messages of the generated stubs, against the descriptor."""
    made: dict[str, tuple[bool, bool, Any]] = {}

    class Channel:
        def __getattr__(self, kind: str) -> Callable[..., None]:
            asks, answers = (part == "stream" for part in kind.split("_"))

            def make(path: str, response_deserializer: Any, **_: Any) -> None:
                made[path] = (asks, answers, response_deserializer)

            return make

    services = control_pb2.DESCRIPTOR.services_by_name
    for service in services.values():
        getattr(control_pb2_grpc, f"{service.name}Stub")(Channel())
        servicer = getattr(control_pb2_grpc, f"{service.name}Servicer")
        for method in service.methods:
            assert callable(getattr(servicer, method.name)), method.full_name
            asks, answers, answer = made.pop(f"/{service.full_name}/{method.name}")
            assert (asks, answers) == (method.client_streaming, method.server_streaming), method.full_name
            expected = getattr(control_pb2, method.output_type.name)
            assert answer(b"").DESCRIPTOR is expected.DESCRIPTOR, method.full_name
    assert not made, "nothing is called that is not declared"
    typed = (ROOT / "fs_common" / "control_pb2.pyi").read_text()
    for name in (*control_pb2.DESCRIPTOR.message_types_by_name, *control_pb2.DESCRIPTOR.enum_types_by_name):
        assert f"class {name}(" in typed


def test_the_proto_file_declares_what_the_generated_code_has() -> None:
    """Read as text: without the generator, a forgotten run of it shows, too."""
    text = re.sub(r"//[^\n]*", "", (ROOT / PROTO).read_text())
    declared = {
        name: {(field, int(number)) for field, number in re.findall(r"(\w+) = (\d+);", body)}
        for name, body in re.findall(r"(?:message|enum) (\w+) \{([^}]*)\}", text)
    }
    descriptor = control_pb2.DESCRIPTOR
    generated = {
        message.name: {(field.name, field.number) for field in message.fields}
        for message in descriptor.message_types_by_name.values()
    } | {
        enum.name: {(value.name, value.number) for value in enum.values}
        for enum in descriptor.enum_types_by_name.values()
    }
    assert declared == generated, "run the command at the head of fs_common/control.proto"
    calls = re.findall(r"rpc (\w+)\((?:stream )?(\w+)\) returns \((?:stream )?(\w+)\)", text)
    assert set(calls) == {
        (method.name, method.input_type.name, method.output_type.name)
        for service in descriptor.services_by_name.values()
        for method in service.methods
    }


def test_every_call_is_documented() -> None:
    lines = (ROOT / PROTO).read_text().splitlines()
    calls = [number for number, line in enumerate(lines) if line.startswith("  rpc ")]
    bare = [lines[number].strip() for number in calls if not lines[number - 1].startswith("  // ")]
    assert calls and not bare


def test_routing_converts_both_ways_with_every_field() -> None:
    routing = Routing(
        version=2**40,
        cluster="prod",
        nodes=[
            NodeInfo(1, "10.0.0.1", 9710, NodeState.UP, 10**15, 10**14, "0.1.0"),
            NodeInfo(2, "::1", 65535, NodeState.FAILED),
            NodeInfo(3, "host", 1, NodeState.LEFT),
        ],
        chains=[Chain(1, 2**33, [ChainTarget(101, 1, state) for state in PublicState]), Chain(2, 1, [])],
        tables=[ChainTable(1, 2, [1, 2])],
        replicas=3,
    )
    message = routing_message(routing)
    assert routing_record(message) == routing
    assert routing_record(control_pb2.Routing.FromString(message.SerializeToString())) == routing


@pytest.mark.parametrize("field", ["node", "target"])
def test_a_state_of_a_newer_release_is_a_clean_error(field: str) -> None:
    message = control_pb2.Routing(version=1)
    if field == "node":
        message.nodes.add(node=1).state = 77
    else:
        message.chains.add(chain=1).targets.add(target=101).state = 77
    with pytest.raises(EmberError, match=f"{field} state 77") as refused:
        routing_record(message)
    assert refused.value.code is Code.INVALID


def test_clients_do_not_load_grpc() -> None:
    """A client process may fork; gRPC's threads would not survive it."""
    code = "import sys, fs_client; print([name for name in sys.modules if name.split('.')[0] in ('grpc', 'google')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"
