"""A copy of the pipeline whose stages are stubs: they take no time and depend on what is listed."""

import re
import shlex
import shutil
import sys
from pathlib import Path

from tests.support.params_text import ROOT, TEXT

STUBBED = ("vit", "vit_t2t", "convmixer")  # two of one architecture, one of another

STUB = '''
"""Writes every output of a stage: a hash of its dependencies and of the parameters it lists."""
import hashlib, pathlib, sys, yaml

stage, model = sys.argv[1], (sys.argv[2:] or [""])[0]
if stage == "check":
    pathlib.Path("data/source.json").write_text("{}")
    raise SystemExit
with open("runs.log", "a") as log:
    log.write(f"{stage}@{model}\\n" if model else f"{stage}\\n")
params = yaml.load(open("params.yaml"), yaml.CSafeLoader)
raw = yaml.load(open("dvc.yaml"), yaml.CSafeLoader)["stages"][stage]
text = repr(raw.get("do", raw)).replace("${key}", model)
if model:
    text = text.replace("${item.arch}", params["models"][model]["arch"])
definition = eval(text)
digest = hashlib.sha256(f"{stage} {model}".encode())
for name in definition["params"]:
    value = params
    for part in name.split("."):
        value = value[part]
    digest.update(repr(value).encode())
for dep in map(pathlib.Path, definition["deps"]):
    for file in sorted(dep.rglob("*")) if dep.is_dir() else [dep]:
        digest.update(file.read_bytes() if file.is_file() else b"")
for kind in ("outs", "metrics", "plots"):
    for out in definition.get(kind, []):
        path = pathlib.Path(out if isinstance(out, str) else next(iter(out)))
        if path.name == "prepared":
            path = path / "file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(digest.hexdigest())
'''


def copy_with_stubs(folder: Path) -> None:
    """Copy the pipeline with the models `STUBBED` into a folder; it needs no git."""
    for name in ("cifarpipe", "stages", "data/baselines", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("dvc.yaml", "data/dvc.yaml", ".dvcignore", ".dvc/config"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    (folder / "stub.py").write_text(STUB)
    for name in ("dvc.yaml", "data/dvc.yaml"):
        text = (folder / name).read_text(encoding="utf-8")
        text = text.replace("python -m stages.", f"exec {shlex.quote(sys.executable)} stub.py ")
        (folder / name).write_text(text, encoding="utf-8")
    head, models, others = re.split(r"^(?:models|evaluate):\n", TEXT, flags=re.MULTILINE)
    entries = re.split(r"^(?=  \w)", models, flags=re.MULTILINE)
    kept = "".join(entry for entry in entries if entry.split(":")[0].strip() in STUBBED)
    params = f"{head}models:\n{kept}evaluate:\n{others}"
    (folder / "params.yaml").write_text(params, encoding="utf-8")
