"""Fuzzing: invalid parameter files and images get a clear error, or they can be used."""

import copy
import io
import logging
import os
import random
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.torture.faults import outcome
from benchmarks.torture.harness import Row, seeded
from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import load_params
from cifarpipe.data.folder import read_folder
from cifarpipe.models.build import build_model

TIMEOUT = 60  # seconds that reading a file may take
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 1e-9, 0.5, 1.0, 1e3, 1e308, 2**31, 2**63, 2**200,
    float("nan"), float("inf"), "", "0.1", "1e-3", "vit", "../x", "a b", "-rf", "x" * 5000, "💥",
    "\x85", [], [1], [0.5, 0.5], [1, 2, 2, 1], {}, {"a": 1}, [[[]]], "adamw", "cosine", "gradcam",
]  # fmt: skip
SNIPPETS = [
    "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [PWNED]]",
    "!!python/name:os.system", "!!binary aGVsbG8=", "!!set {a}", "!!timestamp 2001-01-01", "!x y",
    "&a [*a]", "*b", "<<: {lr: 1}", "? [a, b]\n: c", "\t- x", "{", "]", "'", '"', "%YAML 3.0",
    "---", "...", "\x00", "\ufeff", "\u2028", "lr: 1", "- - - -", "[" * 3000, "{a: " * 3000,
    "0x1F", "1_000", ".inf", "1:30", "on", "~", "|\n  text", ">-\n text", "#", ": :", "\r",
    "é" * 50,
]  # fmt: skip
NAMES = ("a\nb.png", "<b>.png", "-rf.png", "\udce9.png", "\x1b[2J.png", "\u2028")
LINKS = ("nowhere", "/dev/zero", "/etc/passwd", "sound.png")
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)


def fuzz_parameters(times: int, example: Path) -> Row:
    """Change a valid parameter file in many ways, and load it."""
    rng = seeded(times)
    base = YAML(typ="safe").load(example.read_text(encoding="utf-8"))
    entries = list(base["models"].items())
    base["report"].pop("baselines", None)  # of models that are left out
    outcomes: Counter[str] = Counter()
    found: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        path, trace = Path(temporary, "params.yaml"), Path(temporary, "trace")
        for _ in range(times):
            path.write_bytes(fuzzed(base | {"models": dict([rng.choice(entries)])}, rng, trace))
            signal.signal(signal.SIGALRM, _raise_timeout)
            signal.alarm(TIMEOUT)
            try:
                outcomes[_load(path)] += 1
            except Exception as error:  # whatever a bug raises
                found.append(f"{type(error).__name__}: {error} for {path.read_bytes()[:300]!r}")
            finally:
                signal.alarm(0)
            if trace.exists():
                found.append(f"ran the code in {path.read_bytes()[:300]!r}")
                trace.unlink()
    good = f"{outcomes['refused']:,} clear errors, {outcomes['accepted']:,} accepted and built"
    return Row("params.yaml changed in keys, types, ranges, nesting, size, encoding, tags", times,
               outcome(found, good), len(found))  # fmt: skip


def _load(path: Path) -> str:
    """Load parameters and build their networks; return whether they were accepted."""
    try:
        params = load_params(path)
        for entry in params.models.values():
            with torch.device("meta"):  # shapes only
                network = build_model(entry.architecture, num_classes=10, image_size=32).eval()
                network(torch.empty(2, 3, 32, 32))
    except UserError as error:
        if len(str(error)) < 10:
            raise ValueError(f"unhelpful message {error}") from error
        return "refused"
    return "accepted"


def fuzz_images(times: int) -> Row:
    """Add an invalid image to a folder in many ways, and read the folder."""
    rng = seeded("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    outcomes: Counter[str] = Counter()
    found: list[str] = []
    signal.signal(signal.SIGALRM, _raise_timeout)
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # hides Pillow's own messages
    with tempfile.TemporaryDirectory() as temporary:
        for half in ("train", "test"):
            place = Path(temporary, half, "cat")
            place.mkdir(parents=True)
            Image.fromarray(pixels).save(place / "sound.png")
        for number in range(times):
            path = _add_invalid(place, pixels, rng)
            signal.alarm(TIMEOUT)
            try:
                raw = read_folder(temporary)
                outcomes["read"] += 1
                if raw.test.images.shape != (2, 32, 32, 3):
                    found.append(f"image {number}, {path.name!r}: read as {raw.test.images.shape}")
            except UserError as error:
                outcomes["refused"] += 1
                if len(str(error)) > 1000:
                    found.append(f"image {number}, {path.name!r}: message {str(error)[:300]}")
            except Exception as error:  # whatever a bug raises
                found.append(f"image {number}, {path.name!r}: {type(error).__name__}: {error}")
            finally:
                signal.alarm(0)
            path.unlink()
    good = (
        f"{outcomes['refused']:,} clear errors that name the file, {outcomes['read']:,} read as an "
        f"image of the right size"
    )
    return Row("an image that is truncated, corrupt, a decompression bomb, huge, empty, a pipe, a "
               "link, or has an unusual name", times, outcome(found, good), len(found))  # fmt: skip


def _add_invalid(place: Path, pixels: NDArray[np.uint8], rng: random.Random) -> Path:
    """Write a file into a folder of images that is, most of the time, no valid image."""
    if rng.random() < 0.1:
        path = place / rng.choice(NAMES)
        Image.fromarray(pixels).save(path, "PNG")
        return path
    ending = rng.choice(("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "tga", "ico", "avif"))
    path = place / f"odd.{ending}"
    match rng.randrange(12):
        case 0:
            Image.new("1", (rng.choice((1, 1025, 4000, 20_000)),) * 2).save(path, "PNG")
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(rng.choice((*LINKS, path.name)))
        case 3:
            with path.open("wb") as file:
                file.write(rng.choice((b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a")))
                file.truncate(rng.choice((0, 10, 2**33)))  # sparse
        case _:
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, ending)
            content = bytearray(stream.getvalue())
            for _ in range(rng.choice((1, 3, 30))):
                content[min(int(rng.expovariate(0.01)), len(content) - 1)] = rng.randrange(256)
            path.write_bytes(content[: rng.choice((len(content), rng.randrange(len(content))))])
    return path


def _raise_timeout(*_: object) -> None:
    raise TimeoutError(f"took more than {TIMEOUT} s")


def fuzzed(base: dict[str, Any], rng: random.Random, trace: Path) -> bytes:
    """Return the content of a parameter file with some random changes.

    Args:
        base: Valid parameters.
        rng: Of the changes.
        trace: A file that is created if code in the parameters is executed.
    """
    tree = copy.deepcopy(base)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        _change(tree, rng)
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 10_000
    yaml.dump(tree, stream)
    text = stream.getvalue()
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        snippet = rng.choice(SNIPPETS).replace("PWNED", str(trace))
        place = rng.choice([i for i, letter in enumerate(text) if letter in ":\n "] or [0])
        text = text[: place + 1] + snippet + text[place + (rng.random() < 0.5) :]
    if rng.random() < 0.01:
        text += BOMB
    if rng.random() < 0.002:
        text += "x: [" + "1, " * rng.choice((50_000, 500_000)) + "1]\n"
    content = text.encode(rng.choice(("utf-8",) * 20 + ("utf-16", "latin-1", "utf-32")), "replace")
    if rng.random() < 0.05 and content:
        corrupt = bytearray(content)
        for _ in range(rng.choice((1, 3, 30))):
            corrupt[rng.randrange(len(corrupt))] = rng.randrange(256)
        content = bytes(corrupt)
    if rng.random() < 0.02:
        content = content[: rng.randrange(len(content) + 1)]
    return content


def _change(tree: dict[str, Any], rng: random.Random) -> None:
    """Change a random value, key or section."""
    node, key = tree, rng.choice(list(tree))
    while isinstance(node[key], dict) and node[key] and rng.random() < 0.85:
        node, key = node[key], rng.choice(list(node[key]))
    match rng.randrange(6):
        case 0:
            del node[key]
            node.setdefault("seed", 0)  # never empty
        case 1:
            node[rng.choice((key + "s", key.upper(), "new", "", "lr"))] = node[key]
        case 2:
            node[key] = {key: node[key]}
        case _:
            node[key] = rng.choice(VALUES)
