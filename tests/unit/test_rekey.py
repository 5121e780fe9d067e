from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cipherscore.errors import DataError, IntegrityError, RegistryError
from cipherscore.rekeymap import RekeyMap
from export.rekey import rekey
from registry import Registry, Version
from tests.support import registry_samples as samples
from tests.support.registry_samples import FIELDS, KEY_ID, NAME, token

NEW = "4e5f6071"
WEIGHTS = np.arange(12, dtype=np.float32)


def model() -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [12])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [12])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node], "g", [value], [result], [numpy_helper.from_array(WEIGHTS, "w")]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(
        made,
        {"key_id": KEY_ID, "vocabulary_digest": samples.vocabulary().digest, "seed": "7"},
    )
    return made.SerializeToString()


def rekey_map() -> RekeyMap:
    # One level more than the vocabulary knows: the owner's map covers the whole schema.
    fields = {
        f: {token(KEY_ID, f, i): token(NEW, f, i) for i in range(n + 1)} for f, n in FIELDS.items()
    }
    return RekeyMap("demo", KEY_ID, NEW, fields)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def source(registry: Registry) -> Version:
    return registry.register(NAME, {**samples.files(model()), "report.md": b"#"}, samples.record())


def test_the_model_is_the_same_under_new_tokens(registry: Registry, source: Version) -> None:
    renewed = registry.verify(rekey(registry, source.tag, rekey_map()).tag)
    assert renewed.stage.value == "candidate"
    assert renewed.record == replace(
        source.record,
        key_id=NEW,
        parent=source.tag,
        vocabulary_digest=renewed.vocabulary().digest,
    )
    old, new = source.vocabulary(), renewed.vocabulary()
    assert new.key_id == NEW
    for field, column in old.tokens.items():
        translated = tuple(rekey_map().fields[field][t] for t in column)
        assert new.tokens[field] == translated  # same columns, though no longer sorted
    assert renewed.read("report.md") == b"#"

    before, after = (onnx.load_from_string(v.read("model.onnx")) for v in (source, renewed))
    properties = {entry.key: entry.value for entry in after.metadata_props}
    assert properties == {"key_id": NEW, "vocabulary_digest": new.digest, "seed": "7"}
    del before.metadata_props[:], after.metadata_props[:]
    assert before.SerializeToString(deterministic=True) == after.SerializeToString(
        deterministic=True
    )
    assert after.ir_version == 8


def test_rotating_back_gives_the_first_model_again(registry: Registry, source: Version) -> None:
    renewed = rekey(registry, source.tag, rekey_map())
    there = rekey_map()
    back = RekeyMap(
        "demo", NEW, KEY_ID, {f: {b: a for a, b in m.items()} for f, m in there.fields.items()}
    )
    again = rekey(registry, renewed.tag, back)
    assert again.read("model.onnx") == source.read("model.onnx")
    assert again.vocabulary() == source.vocabulary()


@pytest.mark.parametrize(
    "wrong",
    [
        replace(rekey_map(), schema="other"),
        RekeyMap("demo", "ffffffff", NEW, {}),
        RekeyMap("demo", KEY_ID, NEW, {"colour": rekey_map().fields["colour"]}),
        RekeyMap(
            "demo",
            KEY_ID,
            NEW,
            {f: dict(list(m.items())[1:]) for f, m in rekey_map().fields.items()},
        ),
    ],
)
def test_a_map_that_does_not_fit(registry: Registry, source: Version, wrong: RekeyMap) -> None:
    with pytest.raises(DataError):
        rekey(registry, source.tag, wrong)
    assert len(registry.versions(NAME)) == 1


def test_a_damaged_or_foreign_model(registry: Registry, source: Version) -> None:
    source.onnx_path.chmod(0o644)
    source.onnx_path.write_bytes(b"\xff")
    with pytest.raises(IntegrityError):
        rekey(registry, source.tag, rekey_map())
    with pytest.raises(RegistryError, match="no ONNX model"):
        rekey(registry, samples.register(registry, model=b"\xff\xff").tag, rekey_map())
