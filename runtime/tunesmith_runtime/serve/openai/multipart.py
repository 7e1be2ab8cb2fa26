"""The parts of a multipart/form-data body (RFC 7578) that is in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.message import Message

from tunesmith_runtime.serve.openai.errors import invalid

MAX_PARTS = 64
MAX_FIELD_BYTES = 1 << 16
"""Maximum size of a part that is no file."""
_NAME = re.compile(rb'content-disposition:[^\r\n]*?[; ]name="?([^";\r\n]*)"?', re.IGNORECASE)
_FILE = re.compile(rb"content-disposition:[^\r\n]*[; ]filename\*?=", re.IGNORECASE)


def parse_form(content_type: str, body: bytes) -> tuple[Mapping[str, str], Mapping[str, bytes]]:
    """Return the fields and the files of a body, by name; of several parts of one name, the last. Raises ApiError for a body that
    is no form."""
    boundary = _boundary(content_type)
    # the first delimiter has no line break before it
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary, MAX_PARTS + 2)
    if not parts or not parts[-1].startswith(b"--"):
        raise invalid("The form is cut off, or has too many parts." if parts else "The body has no part of a form.")
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in parts[:-1]:
        head, separator, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not separator or name is None:
            raise invalid("A part of the form has no name.")
        key = name[1].decode(errors="replace")
        if _FILE.search(head):
            files[key] = content
        elif len(content) > MAX_FIELD_BYTES:
            raise invalid(f"Invalid value for '{key:.80}': at most {MAX_FIELD_BYTES} bytes.", key, "invalid_value")
        else:
            fields[key] = content.decode(errors="replace")
    return fields, files


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary") if message.get_content_type() == "multipart/form-data" else None
    if not isinstance(boundary, str) or not boundary:
        raise invalid("The body must be a form: send Content-Type multipart/form-data with a boundary.")
    return boundary.encode(errors="replace")
