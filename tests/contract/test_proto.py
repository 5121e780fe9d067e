"""The generated stubs are those of the .proto beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from cipherscore.proto.inference import grpc_service_pb2
from cipherscore.proto.v1 import cipherscore_pb2

ROOT = Path(__file__).parents[2]
SOURCES = {
    "cipherscore/proto/v1/cipherscore.proto": cipherscore_pb2,
    "cipherscore/proto/inference/grpc_service.proto": grpc_service_pb2,
}


@pytest.mark.parametrize("source", SOURCES)
def test_stubs_are_fresh(tmp_path: Path, source: str) -> None:
    pytest.importorskip("grpc_tools")
    target = tmp_path / "set"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I.",
            f"--descriptor_set_out={target}",
            source,
        ],
        cwd=ROOT,
        check=True,
    )
    fresh = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[0]
    stored = descriptor_pb2.FileDescriptorProto()
    SOURCES[source].DESCRIPTOR.CopyToProto(stored)
    # Newer compilers write the default json_name out, older ones do not.
    for file in (fresh, stored):
        _without_json_names(file.message_type)
    assert fresh == stored, "the stubs are stale; run `make proto`"


def test_every_method_is_in_the_grpc_stubs() -> None:
    from cipherscore.proto.v1 import cipherscore_pb2_grpc

    methods = cipherscore_pb2.DESCRIPTOR.services_by_name["CipherScore"].methods_by_name
    assert set(methods) == {
        name for name in vars(cipherscore_pb2_grpc.CipherScoreServicer) if name[0].isupper()
    }


def _without_json_names(messages: object) -> None:
    for message in messages:  # type: ignore[attr-defined]
        for field in message.field:
            field.ClearField("json_name")
        _without_json_names(message.nested_type)
