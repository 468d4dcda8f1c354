"""Prints what Miniflare keeps in its caches, as JSON: the platform has no call for it, and Node 20 no SQLite.

usage: cache_entries.py FOLDER      (`cache` below the folder that Miniflare keeps everything in)
One SQLite file of keys for each cache, and a folder of bodies; the names of the caches are those of the folders.
"""

import json
import pathlib
import sqlite3
import sys

root = pathlib.Path(sys.argv[1])
entries = []
for file in root.glob("miniflare-CacheObject/*.sqlite"):
    # What workerd itself keeps about its objects.
    if file.stem == "metadata":
        continue
    rows = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    for key, blob, expiration, metadata in rows.execute("SELECT key, blob_id, expiration, metadata FROM _mf_entries"):
        for body in root.glob(f"*/blobs/{blob}"):
            entries.append({
                "cache": body.parts[-3],
                "key": key,
                "expires_at_ms": expiration,
                "headers": dict(json.loads(metadata)["headers"]),
                "text": body.read_bytes().decode("latin-1"),
            })
print(json.dumps(entries))
