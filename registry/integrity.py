"""A digest over a stored version, so that damage is found before the model is used.

``manifest.json`` lists SHA-256 and size of every file of a version.  The digest of a version is
SHA-256 over its name, its version id and that list.  BentoML's own ``model.yaml`` carries the
digest, so it cannot be part of it; the manifest holds its hash beside the list.

The digest finds damage and careless edits.  It is no signature: who may write to the registry can
also write a new manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cipherscore.errors import IntegrityError

MANIFEST = "manifest.json"
BENTO_FILE = "model.yaml"
_FORMAT = "cipherscore-manifest"
_FORMAT_VERSION = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileEntry:
    """SHA-256 (64 hexadecimal digits) and size (bytes) of one file."""

    sha256: str
    size: int

    @classmethod
    def of_file(cls, path: Path) -> FileEntry:
        """Hash the file at ``path``."""
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return cls(digest.hexdigest(), size)

    @classmethod
    def of_bytes(cls, content: bytes) -> FileEntry:
        """Hash ``content``."""
        return cls(hashlib.sha256(content).hexdigest(), len(content))


@dataclass(frozen=True)
class Manifest:
    """What a version consists of; ``bento`` is the entry of BentoML's own file."""

    name: str
    version: str
    files: Mapping[str, FileEntry]
    bento: FileEntry

    @cached_property
    def digest(self) -> str:
        """SHA-256 over name, version id and files, 64 hexadecimal digits."""
        return digest_of(self.name, self.version, self.files)

    def to_bytes(self) -> bytes:
        """Return canonical JSON, so that any changed byte of the file is seen."""
        content = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "files": {file: asdict(entry) for file, entry in self.files.items()},
            "bento": asdict(self.bento),
        }
        return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read what `to_bytes` wrote.

        Raises:
            IntegrityError: The bytes are no manifest, or were changed since.
        """
        try:
            parsed: dict[str, Any] = json.loads(content)
            files = {file: FileEntry(**entry) for file, entry in parsed["files"].items()}
            found = cls(parsed["name"], parsed["version"], files, FileEntry(**parsed["bento"]))
            same = found.to_bytes() == content
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise IntegrityError(f"{MANIFEST} is no manifest") from error
        if not same:
            raise IntegrityError(f"{MANIFEST} was changed: it does not match its own digest")
        return found


def digest_of(name: str, version: str, files: Mapping[str, FileEntry]) -> str:
    """Return the digest of a version with these files, 64 hexadecimal digits."""
    content = {
        "name": name,
        "version": version,
        "files": {file: asdict(entry) for file, entry in files.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_files(folder: Path) -> dict[str, FileEntry]:
    """Hash every file in ``folder`` (flat)."""
    return {path.name: FileEntry.of_file(path) for path in sorted(folder.iterdir())}


def load_manifest(folder: Path, name: str, version: str, pinned: str | None) -> Manifest:
    """Read the manifest of the version in ``folder``.

    Args:
        folder: Folder of the version.
        name: Model name the version is stored under.
        version: Version id it is stored under.
        pinned: Digest recorded outside the folder when the version was registered, if any.

    Raises:
        IntegrityError: The manifest is missing, changed, or belongs to another version.
    """
    tag = f"{name}:{version}"
    try:
        manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise IntegrityError(f"{tag}: {MANIFEST} cannot be read ({error.strerror})") from error
    except IntegrityError as error:
        raise IntegrityError(f"{tag}: {error}") from error
    if (manifest.name, manifest.version) != (name, version):
        raise IntegrityError(f"{tag}: {MANIFEST} belongs to another version")
    if pinned is not None and pinned != manifest.digest:
        raise IntegrityError(f"{tag}: digest differs from the one recorded at registration")
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Hash every file of the version in ``folder`` again.

    Raises:
        IntegrityError: A file is missing, changed, no regular file, or does not belong here.
    """
    tag = f"{manifest.name}:{manifest.version}"
    expected = {**manifest.files, BENTO_FILE: manifest.bento}
    try:
        found = {path.name for path in folder.iterdir()} - {MANIFEST}
        if missing := sorted(expected.keys() - found):
            raise IntegrityError(f"{tag}: missing {', '.join(missing)}")
        if foreign := sorted(found - expected.keys()):
            raise IntegrityError(f"{tag}: {foreign[0]!r} does not belong to this version")
        for file, entry in sorted(expected.items()):
            path = folder / file
            if path.is_symlink() or not path.is_file():
                raise IntegrityError(f"{tag}: {file} is no regular file")
            if FileEntry.of_file(path) != entry:
                raise IntegrityError(f"{tag}: {file} is damaged (hash differs from {MANIFEST})")
    except OSError as error:
        raise IntegrityError(f"{tag}: cannot be read ({error.strerror})") from error


def read_checked(folder: Path, manifest: Manifest, file: str) -> bytes:
    """Return the content of one file after checking exactly these bytes.

    Raises:
        IntegrityError: The file is missing or changed, or the manifest does not list it.
    """
    tag = f"{manifest.name}:{manifest.version}"
    if file not in manifest.files:
        raise IntegrityError(f"{tag}: no file {file!r} in this version")
    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        raise IntegrityError(f"{tag}: {file} cannot be read ({error.strerror})") from error
    if FileEntry.of_bytes(content) != manifest.files[file]:
        raise IntegrityError(f"{tag}: {file} is damaged (hash differs from {MANIFEST})")
    return content
