"""Compiled code, on the CPU that it is for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._inductor import cpu_vec_isa

from cifarpipe.networks.compilation import compile_for

DEPTHWISE = """
import torch
from cifarpipe.networks.depthwise import compiled_gradients, plain_gradients

torch.manual_seed(0)
x, grad = (
    torch.randn(2, 16, 6, 6).to(memory_format=torch.channels_last) for _ in range(2)
)
torch.testing.assert_close(
    compiled_gradients(x, grad, (3, 3)), plain_gradients(x, grad, (3, 3)), rtol=1e-4, atol=1e-4
)
"""


@pytest.mark.thorough
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512" or not shutil.which("g++"),
    reason="needs a CPU with AVX-512 and a compiler",
)
def test_code_kept_by_a_process_with_other_instructions_is_not_used(tmp_path: Path) -> None:
    for capability in ("avx512", "avx2"):
        variables = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "ATEN_CPU_CAPABILITY": capability}
        subprocess.run([sys.executable, "-c", DEPTHWISE], env=os.environ | variables, check=True)


def test_only_code_for_a_cpu_has_the_width_of_its_instructions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without a compiler, PyTorch can't tell the instructions.
    monkeypatch.setattr(cpu_vec_isa, "pick_vec_isa", cpu_vec_isa.VecAVX2)
    given: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda _function, **options: given.append(options))
    for device in ("cuda", "cpu"):
        compile_for(print, torch.device(device))
    on_gpu, on_cpu = given
    assert on_gpu == {"dynamic": False}
    assert on_cpu == on_gpu | {"options": {"cpp.simdlen": 256}}
