"""Notice when raw images change, without reading them all again.

Raw data lies outside DVC's graph. This module keeps its fingerprint in a small file on which the
stage `prepare` depends. Only files whose size or modification time differs from the last run are
hashed again. Imports nothing slow, since DVC runs it every time.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from cifarpipe.data.names import is_ignored
from cifarpipe.store.outputs import file_digest, write_text
from cifarpipe.store.paths import SOURCE_FILE, SOURCE_SEEN, SOURCE_TABLE, raw_path

DEPTH = 2  # levels of folders below the root that hold images: train/<class>/


def update_source(source: str, folder: str | None) -> None:
    """Write the fingerprint of the raw images to `data/source.json` if it changed.

    Without the raw images, as in a clone, the recorded fingerprint stays.

    Args:
        source: `data.source` of params.yaml. Only `folder` has raw images that may change: the
            archive of `cifar10` has a checksum, and `synthetic` has no raw data.
        folder: `data.folder`; absolute, or relative to the raw-data folder.
    """
    content: dict[str, Any] = {"source": source}
    if folder is not None:
        root = raw_path(folder)
        if not root.is_dir() and _read(SOURCE_FILE).get("folder") == folder:
            return
        content |= {"folder": folder} | (fingerprint_folder(root) if root.is_dir() else {})
    if content != _read(SOURCE_FILE):
        write_text(SOURCE_FILE, json.dumps(content, indent=2) + "\n")


def fingerprint_folder(root: Path) -> dict[str, Any]:
    """Return the number of files and a SHA-256 over the names and contents of all files.

    Args:
        root: A folder; ignored names are left out at every level.
    """
    listed = sorted(list_files(os.fspath(root)))
    place = os.fspath(root.resolve())
    key = hashlib.sha256(f"{place}\n{listed}".encode(errors="surrogateescape")).hexdigest()
    seen = _read(SOURCE_SEEN)
    if seen.get("listing") != key:
        table = _read(SOURCE_TABLE)
        # Files of another folder may have equal names, sizes and times.
        known = table.get("files", {}) if table.get("folder") == place else {}
        files = {}
        for name, size, modified in listed:
            stamp = [size, modified]
            old = known.get(name)
            digest = old[2] if old and old[:2] == stamp else _digest(root / name)
            files[name] = [*stamp, digest]
        total = hashlib.sha256()
        for name, (_, _, digest) in files.items():
            total.update(f"{name}\0{digest}\n".encode(errors="surrogateescape"))
        seen = {"listing": key, "fingerprint": total.hexdigest()}
        write_text(SOURCE_TABLE, json.dumps({"folder": place, "files": files}))
        write_text(SOURCE_SEEN, json.dumps(seen))
    return {"files": len(listed), "fingerprint": seen["fingerprint"]}


def list_files(root: str, prefix: str = "", depth: int = DEPTH) -> list[tuple[str, int, int]]:
    """Return relative path, size and modification time in nanoseconds of each file.

    Args:
        root: The folder.
        prefix: Of the relative paths.
        depth: Levels of folders below it to read.
    """
    found: list[tuple[str, int, int]] = []
    with os.scandir(root) as entries:
        for entry in entries:
            name = entry.name
            if is_ignored(name):
                continue
            try:
                if entry.is_dir():
                    if depth:
                        found += list_files(entry.path, f"{prefix}{name}/", depth - 1)
                    continue
                status = entry.stat()
                found.append((prefix + name, status.st_size, status.st_mtime_ns))
            except OSError:  # a dangling link: `prepare` reports it
                found.append((prefix + name, -1, 0))
    return found


def _digest(path: Path) -> str:
    try:
        return file_digest(path) if path.is_file() else ""
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
