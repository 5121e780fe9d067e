"""What a client shows the host to say who it is: an API key, or a JSON Web Token."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from threading import Lock

from cipherscore.errors import ConfigurationError

MAX_LENGTH = 8192
_ALLOWED = re.compile(r"[\x21-\x7e]+")


class Credential:
    """An API key or a JWT.

    Args:
        source: The credential itself, or the path of a file with it.  A file is read again when it
            changes, so that what renews a token or replaces a key needs no restart.

    Raises:
        ConfigurationError: The file cannot be read, or the credential is empty, too long, or not
            printable ASCII.  The message does not hold it.
    """

    def __init__(self, source: str | Path) -> None:
        self._path = source if isinstance(source, Path) else None
        self._lock = Lock()
        self._seen: tuple[int, int, int] | None = None
        self._metadata: tuple[tuple[str, str], ...] = ()
        if isinstance(source, Path):
            self._look(source)
        else:
            self._take(source, "api_key")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the credential as gRPC metadata of a call.

        A changed file that cannot be used, perhaps because it is just being written, leaves the
        old credential in use; the file is looked at again with the next call.
        """
        if self._path is not None:
            with self._lock, suppress(ConfigurationError):
                self._look(self._path)
        return self._metadata

    def _look(self, path: Path) -> None:
        try:
            facts = path.stat()
            seen = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            if seen == self._seen:
                return
            with path.open("rb") as stream:
                content = stream.read(MAX_LENGTH + 3)
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the API key file {path}: {error.strerror}"
            ) from None
        self._take(content.decode("latin-1").rstrip("\r\n"), f"API key file {path}")
        self._seen = seen

    def _take(self, text: str, origin: str) -> None:
        if not _ALLOWED.fullmatch(text) or len(text) > MAX_LENGTH:
            raise ConfigurationError(
                f"{origin}: not an API key or token of 1 to {MAX_LENGTH} printable characters"
            )
        self._metadata = (("authorization", f"Bearer {text}"),)
