"""Key rotation on the host: the same model under new tokens, without the key and without training.

The weights stay; only what stands for which column changes: the vocabulary, and the two entries of
the ONNX metadata that name it.
"""

from __future__ import annotations

import dataclasses

import onnx
from google.protobuf.message import DecodeError

from cipherscore.errors import DataError, RegistryError
from cipherscore.rekeymap import RekeyMap
from cipherscore.vocabulary import Vocabulary
from registry.building import RESERVED
from registry.store import Registry
from registry.version import MODEL, MODEL_INT8, REASONS, VOCABULARY, Version


def rekey(registry: Registry, tag: str, rekey_map: RekeyMap) -> Version:
    """Register a candidate version of the model ``tag`` whose vocabulary is under the new key.

    Args:
        registry: Where the model is.
        tag: ``name:version``, ``name:latest``, or ``name`` for the production version.
        rekey_map: Old token to new token for every token of the model's vocabulary.

    Returns:
        The new version; its ``record.parent`` is the version it was made from.

    Raises:
        VersionNotFound: There is no such version.
        IntegrityError: The version is damaged.
        DataError: The map is for another schema or key, or lacks a token.
        RegistryError: The new version cannot be stored.
    """
    source = registry.verify(tag)
    record = source.record
    if rekey_map.schema != source.schema().name:
        raise DataError(
            f"the re-key map is for schema {rekey_map.schema!r}, "
            f"{source.tag} is for {source.schema().name!r}"
        )
    if rekey_map.from_key != record.key_id:
        raise DataError(
            f"the re-key map leads from key {rekey_map.from_key}, "
            f"{source.tag} is under key {record.key_id}"
        )
    vocabulary = source.vocabulary().translate(rekey_map.to_key, rekey_map.fields)
    files = {file: source.read(file) for file in source.manifest.files if file not in RESERVED}
    files[VOCABULARY] = vocabulary.to_json().encode()
    for model in files.keys() & {MODEL, MODEL_INT8, REASONS}:
        files[model] = with_vocabulary(files[model], vocabulary)
    renewed = dataclasses.replace(
        record,
        key_id=rekey_map.to_key,
        parent=source.tag,
        vocabulary_digest=vocabulary.digest,
    )
    return registry.register(source.name, files, renewed)


def with_vocabulary(model: bytes, vocabulary: Vocabulary) -> bytes:
    """Return a serialized ONNX model whose metadata name ``vocabulary``; nothing else changes.

    Raises:
        RegistryError: ``model`` is no ONNX model.
    """
    try:
        parsed = onnx.load_from_string(model)
    except DecodeError as error:
        raise RegistryError("the version's model.onnx is no ONNX model") from error
    metadata = {entry.key: entry.value for entry in parsed.metadata_props}
    metadata["key_id"] = vocabulary.key_id
    metadata["vocabulary_digest"] = vocabulary.digest
    onnx.helper.set_model_props(parsed, metadata)
    return parsed.SerializeToString()
