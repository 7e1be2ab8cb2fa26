"""`python -m tests.releases REVISION`."""

from __future__ import annotations

import sys

from tests.releases import pack

print(pack(sys.argv[1]))
