"""`cifarpipe export`: write a trained network as ONNX, for use without this project."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cifarpipe.config.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
CHECKED = 256  # test images on which the file is compared with the network
TOLERANCE = 1e-4  # of a probability
INPUT, OUTPUT = "images", "probabilities"


def export_model(model: str, out: Path | None) -> None:
    """Write a network with its preprocessing as ONNX, if onnxruntime computes the same from it.

    The file's input `images` is `[N, S, S, 3]` uint8, RGB, for any N; its output `probabilities` is
    `[N, classes]` float32. The names of the classes and the origin of the weights are in its
    metadata, as JSON.

    Args:
        model: Name of a trained entry of `models`.
        out: The file to write; None: named after the model.

    Raises:
        UserError: A package, the model, the prepared images or `out` can't be used, or the file
            would compute other probabilities than the network.
    """
    from cifarpipe.cli.out_option import check_output
    from cifarpipe.config.reader import load_params
    from cifarpipe.store.outputs import atomic_path

    params = load_params()
    params.model(model)
    out = out or Path(f"{model}.onnx")
    check_output(out, ".onnx")
    require_packages()

    import numpy as np
    import torch

    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.store.paths import artifact
    from cifarpipe.store.prepared import load_prepared

    network, origin = load_model(artifact(model, "model.safetensors"), torch.device("cpu"))
    images = np.array(load_prepared().test.images[:CHECKED])
    if images.shape[1] != origin.image_size:
        raise UserError(
            f"{model} was trained on images of {origin.image_size} pixels; the prepared ones have "
            f"{images.shape[1]}.\nRun `dvc repro`."
        )
    complete = complete_network(network, origin.mean, origin.std)
    with torch.inference_mode():
        expected = complete(torch.from_numpy(images)).numpy()
    details = {"classes": origin.classes, "origin": asdict(origin)}
    with atomic_path(out) as partial:
        write_onnx(complete, origin.image_size, partial, details)
        difference = abs(run_onnx(partial, images) - expected).max()
        if not difference <= TOLERANCE:
            raise UserError(
                f"onnxruntime's probabilities differ from those of {model} by up to "
                f"{difference:.2g}; allowed: {TOLERANCE:g}.\nNothing was written. Try other "
                f"versions of {', '.join(PACKAGES)}."
            )
    print(
        f"{out}: {model} with preprocessing, {out.stat().st_size / 1e6:.1f} MB.\n"
        f"Input: {INPUT}, uint8 [N, {origin.image_size}, {origin.image_size}, 3], RGB. "
        f"Output: {OUTPUT}, float32 [N, {len(origin.classes)}].\n"
        f"On {len(images)} test images, onnxruntime's probabilities differ from the network's by "
        f"at most {difference:.1g}."
    )


def require_packages() -> None:
    """Check that the optional packages are installed; else raise `UserError`."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"`cifarpipe export` needs {', '.join(missing)}, which the other commands do not.\n"
            f"Install it with `python -m pip install -e '.[onnx]'`."
        )


def complete_network(network: "nn.Module", mean: list[float], std: list[float]) -> "nn.Module":
    """Return a network from pixels `[N, S, S, 3]` uint8 to probabilities `[N, classes]`.

    Args:
        network: From normalised images to logits, on the CPU.
        mean: Of each channel, of values in 0 to 1.
        std: Likewise.
    """
    import torch

    from cifarpipe.networks.normalize import normalize

    class Complete(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Exported files have one memory layout.
            self.network = network.to(memory_format=torch.contiguous_format)
            self.mean = torch.nn.Buffer(torch.tensor(mean))
            self.std = torch.nn.Buffer(torch.tensor(std))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(normalize(images, self.mean, self.std))
            return logits.softmax(dim=1)

    return Complete().eval()


def write_onnx(network: "nn.Module", size: int, path: Path, details: Mapping[str, object]) -> None:
    """Write a network as one ONNX file.

    Args:
        network: As `complete_network` returns it.
        size: Height and width of its images.
        path: The file to write.
        details: Go into its metadata, as JSON under these names.
    """
    import onnx
    import torch

    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        network,
        (example,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={"images": {0: torch.export.Dim("N")}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    file = program.model_proto
    for name, value in details.items():
        file.metadata_props.add(key=name, value=json.dumps(value))
    onnx.save_model(file, path)


def run_onnx(path: Path, images: "NDArray[np.uint8]") -> "NDArray[np.float32]":
    """Return what onnxruntime computes for images, the first one alone, the others together."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    parts = [part for part in (images[:1], images[1:]) if len(part)]
    found = [session.run([OUTPUT], {INPUT: np.ascontiguousarray(part)})[0] for part in parts]
    return np.concatenate(found)
