"""One transfer in a process of its own, for its time and its peak memory: see bench_transfer.

`python -m tests.bench.transfer_process upload|download STORE FOLDER`, with the store as JSON. Prints both as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from tunesmith_api.run import Store
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.storage.directory import download_directory, publish_directory
from tunesmith_runtime.storage.manifest import MANIFEST

direction, store, folder = sys.argv[1], Store.model_validate_json(sys.argv[2]), Path(sys.argv[3])
storage = open_storage(store)
published = [entry.path for entry in storage.list(store.uri) if entry.path.endswith(f"/{MANIFEST}")]
start = time.monotonic()
if direction == "upload":
    publish_directory(storage, folder, store.uri, "model")
else:
    download_directory(storage, f"{store.uri}/{published[0].removesuffix(f'/{MANIFEST}')}", folder)
seconds = time.monotonic() - start
print(json.dumps({"seconds": seconds, "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
