"""Names: the sha256 of objects whose folder has no manifest, as an earlier download has computed it."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from tunesmith_api.hashing import digest
from tunesmith_runtime.storage import Entry


@dataclass(frozen=True)
class Names:
    """The objects that pods of a namespace have read. An etag changes with the content (see Entry).

    Other namespaces may have other stores or volumes under the same URI, and their names are not trusted.
    """

    folder: Path
    namespace: str
    endpoint: str | None

    def find(self, uri: str, entry: Entry) -> str | None:
        """Return the sha256 of an object; None if it is not known."""
        try:
            text = self._path(uri, entry).read_text()
        except OSError:
            return None
        return text if re.fullmatch("[0-9a-f]{64}", text) else None

    def record(self, uri: str, entry: Entry, sha256: str) -> None:
        """Record the sha256 of an object."""
        path = self._path(uri, entry)
        partial = path.with_name(f".{secrets.token_hex(8)}")
        partial.write_text(sha256)
        partial.replace(path)

    def _path(self, uri: str, entry: Entry) -> Path:
        return self.folder / digest([self.namespace, self.endpoint, uri, entry.etag, entry.size_bytes])
