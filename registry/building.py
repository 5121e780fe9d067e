"""Putting the files of a new version together in a work folder, before it becomes visible."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from cipherscore.errors import RegistryError, shorten
from registry import bento, integrity, locking, names
from registry.version import (
    LINEAGE,
    METRICS,
    MODEL,
    SCHEMA,
    VOCABULARY,
    VersionRecord,
    check_record,
)

REQUIRED = frozenset({MODEL, VOCABULARY, SCHEMA})
"""Files a caller must give."""
RESERVED = frozenset({LINEAGE, METRICS, integrity.MANIFEST, integrity.BENTO_FILE})
"""Files the registry writes itself."""
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def check_file_names(files: Mapping[str, Path | bytes]) -> None:
    """Check that the needed files are given and that every name is a plain file name.

    Raises:
        RegistryError: They are not.
    """
    if missing := sorted(REQUIRED - files.keys()):
        raise RegistryError(f"a version needs the files {', '.join(missing)}")
    for file in files:
        if file in RESERVED or not _FILE_NAME.match(file):
            raise RegistryError(f"{shorten(file)} cannot be the name of a version's file")


def start(folder: Path, files: Mapping[str, Path | bytes], record: VersionRecord) -> VersionRecord:
    """Make ``folder`` with copies of ``files``; return the record completed from them.

    Raises:
        RegistryError: The files and the record do not belong together.
        OSError: A file cannot be read or written.
    """
    folder.mkdir()
    for file, source in files.items():
        if isinstance(source, bytes):
            (folder / file).write_bytes(source)
        else:
            shutil.copyfile(source, folder / file)
    return check_record(record, (folder / SCHEMA).read_bytes(), (folder / VOCABULARY).read_bytes())


def finish(folder: Path, name: str, version: str, record: VersionRecord) -> str:
    """Add lineage, metrics, BentoML's description and the manifest; return the digest.

    Afterwards the files are read-only and on disk.

    Raises:
        RegistryError: The record is not plain JSON.
        OSError: A file cannot be written.
    """
    for file, content in record.to_files(names.created_at(version)).items():
        (folder / file).write_bytes(content)
    hashes = integrity.hash_files(folder)
    digest = integrity.digest_of(name, version, hashes)
    bento.describe(folder, name, version, record, digest)
    described = integrity.FileEntry.of_file(folder / integrity.BENTO_FILE)
    manifest = integrity.Manifest(name, version, hashes, described)
    (folder / integrity.MANIFEST).write_bytes(manifest.to_bytes())
    for path in folder.iterdir():
        path.chmod(0o444)
    locking.fsync_tree(folder)
    return digest
