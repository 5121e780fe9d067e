"""Names, version ids and tags: what may become a path below the registry's home."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta, timezone

from cipherscore.errors import RegistryError, shorten

NAME_LENGTH = 63
"""Longest model name in characters; BentoML's limit."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\Z")
_VERSION = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]{3}-[0-9a-f]{4}\Z")
_TIME_FORMAT = "%Y%m%d-%H%M%S-%f"
LATEST = "latest"


def check_name(name: str) -> str:
    """Return ``name`` if it is a model name; no such name leaves the folder it is put in.

    Raises:
        RegistryError: It is not.
    """
    if not is_name(name):
        raise RegistryError(
            f"{shorten(name)} is no model name: use up to {NAME_LENGTH} lower-case letters, "
            "digits, '-' and '_', with a letter or digit at both ends"
        )
    return name


def is_name(text: str) -> bool:
    """Return whether ``text`` is a model name."""
    return len(text) <= NAME_LENGTH and _NAME.match(text) is not None


def is_version(text: str) -> bool:
    """Return whether ``text`` is a version id such as `new_version` makes."""
    if not _VERSION.match(text):
        return False
    try:
        created_at(text)
    except ValueError:
        return False
    return True


def created_at(version: str) -> datetime:
    """Return the UTC time a version id stands for."""
    return datetime.strptime(version[:19], _TIME_FORMAT).replace(tzinfo=timezone.utc)


def new_version(newest: str | None) -> str:
    """Return a version id: UTC time to the millisecond and 16 random bits.

    Ids sort by time as text.  ``newest`` is the newest id of the same model; the result is later
    than it even when the clock was set back.  The random part keeps ids of two registries apart.
    """
    now = datetime.now(timezone.utc)
    if newest is not None:
        now = max(now, created_at(newest) + timedelta(milliseconds=1))
    return f"{now.strftime(_TIME_FORMAT)[:19]}-{secrets.token_hex(2)}"


def split_tag(tag: str) -> tuple[str, str | None]:
    """Return name and version of ``name:version``, ``name:latest`` or ``name``.

    Raises:
        RegistryError: Neither of these.
    """
    name, colon, version = tag.partition(":")
    check_name(name)
    if not colon:
        return name, None
    if version != LATEST and not is_version(version):
        raise RegistryError(
            f"{shorten(tag)} is no model tag: use name:version with a version such as "
            "20260131-120000-000-1a2b, or name:latest"
        )
    return name, version


def full_tag(tag: str) -> tuple[str, str]:
    """Return name and version (or "latest") of a tag that must have both.

    Raises:
        RegistryError: No tag, or one without a version.
    """
    name, version = split_tag(tag)
    if version is None:
        raise RegistryError(f"{tag!r} names no version; use {tag}:VERSION or {tag}:{LATEST}")
    return name, version
