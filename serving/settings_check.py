"""What must hold between settings, and what an operator should know about them."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from cipherscore.errors import ConfigurationError
from serving.settings_file import FILE_VARIABLE, PREFIX, Origins

if TYPE_CHECKING:
    from serving.settings import Settings

_TOGETHER = (
    ("tls_cert_file", "tls_key_file"),
    ("tls_key_file", "tls_cert_file"),
    ("tls_client_ca_file", "tls_cert_file"),
    ("jwt_key_file", "jwt_issuer"),
    ("jwt_key_file", "jwt_audience"),
    ("jwt_issuer", "jwt_key_file"),
    ("jwt_audience", "jwt_key_file"),
)
"""Where the first is set, the second must be."""

_FILES = ("tls_cert_file", "tls_key_file", "tls_client_ca_file", "clients_file", "jwt_key_file")

_OTHERS = frozenset(
    f"{PREFIX}{name}"
    for name in ("API_KEY_FILE", "DATA", "HOME", "KEYSET", "PARENT", "PASSPHRASE", "PLAN")
) | {FILE_VARIABLE}
"""Variables with our prefix that are no settings of the server."""

_TYPO = 0.85
"""From this likeness on a variable is taken for a misspelt setting (``difflib`` ratio)."""


def check_names(known: Collection[str]) -> None:
    """Refuse a variable that is nearly a setting: a misspelt TLS setting means plain text.

    Variables that resemble no setting are left alone; others use the prefix too, Kubernetes for
    one.

    Raises:
        ConfigurationError: There is one.
    """
    for variable, value in os.environ.items():
        name = variable.upper()
        if not value or not name.startswith(PREFIX) or name in _OTHERS:
            continue
        setting = name[len(PREFIX) :].lower()
        close = difflib.get_close_matches(setting, known, 1, _TYPO)
        if close and setting not in known:
            raise ConfigurationError(
                f"{variable} is no setting; did you mean {PREFIX}{close[0].upper()}?"
            )


def check(settings: Settings) -> None:
    """Check what no single field can tell.

    Raises:
        ConfigurationError: A setting lacks its companion, or names a file that cannot be used.
    """
    origins = Origins.now(type(settings).model_fields)
    wrong = [
        f"{origins.label(one)} needs {origins.label(other)}"
        for one, other in _TOGETHER
        if getattr(settings, one) and not getattr(settings, other)
    ]
    for name in _FILES:
        path: Path | None = getattr(settings, name)
        if path is not None and (fault := _file_fault(path)):
            wrong.append(f"{origins.label(name)}: {path} {fault}")
    if wrong:
        raise ConfigurationError(f"wrong setting: {'; '.join(wrong)}")


def warnings(settings: Settings) -> list[str]:
    """Return what is allowed but should not go unnoticed, a sentence each."""
    found = []
    key = settings.tls_key_file
    if key is not None and key.stat().st_mode & stat.S_IROTH:
        found.append(f"the private key {key} can be read by every user of this machine")
    if _is_loopback(settings.grpc_host):
        return found
    asks = settings.clients_file or settings.jwt_key_file or settings.tls_client_ca_file
    if not asks:
        found.append(
            "clients are not authenticated: whoever reaches the ports can score and generate; "
            "set clients_file, jwt_key_file or tls_client_ca_file"
        )
    if settings.tls_cert_file is None:
        crossing = "tokens, scores and credentials" if asks else "tokens and scores"
        found.append(f"without tls_cert_file {crossing} cross the network in clear text")
    return found


def _file_fault(path: Path) -> str:
    """Return what is wrong with a file a setting names, or nothing."""
    if not path.is_absolute():
        return "is a relative path; workers run in another folder, give an absolute one"
    if not path.is_file():
        return "is not a file" if path.exists() else "does not exist"
    return "" if os.access(path, os.R_OK) else "cannot be read by this user"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
