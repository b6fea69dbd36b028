"""The triton kernels without a GPU: their interpreter runs every property, their compiler makes the machine code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed (CPU builds of torch do not bring it)")

HERE = Path(__file__).parent
POINTERS = {
    "forward_kernel": {"scores": 32, "logits": 32, "temperature": 64, "mixed": 32, "alpha": 32, "entropy": 32},
    "backward_kernel": {
        "alpha": 32, "logits": 32, "temperature": 64, "d_mixed": 32, "d_alpha": 32, "d_entropy": 32, "d_scores": 32,
        "d_logits": 32,
    },
}  # fmt: skip


@pytest.mark.timeout(900)  # it interprets
def test_every_property_holds_in_the_interpreter() -> None:
    files = [str(HERE / name) for name in ("test_sparsemax.py", "test_mixture.py")]
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-k", "triton", *files]
    command += ["-W", "ignore::RuntimeWarning"]  # it computes in NumPy, which warns of NaN
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 40


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(("experts", "actions"), [(4, 23), (64, 121)])
@pytest.mark.parametrize("kernel", POINTERS)
def test_compiles_ahead_of_time_without_spills(
    kernel: str, experts: int, actions: int, capability: int, tmp_path: Path, record_property: Any
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from polybeast_moe.ops import fused_triton

    function = getattr(fused_triton, kernel)
    constants = {"SPARSE": True, **fused_triton.block_sizes(experts, actions)}
    constants |= {
        name: 1 for name in function.arg_names if name.endswith(("logit_stride_a", "score_stride_e", "d_stride_a"))
    }
    signature = {name: f"*fp{bits}" for name, bits in POINTERS[kernel].items()}
    signature |= {
        name: "constexpr" if name in constants else "i32" for name in function.arg_names if name not in signature
    }
    compiled = triton.compile(
        ASTSource(function, signature=signature, constexprs=constants),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": fused_triton.NUM_WARPS},
    )
    (tmp_path / "kernel.cubin").write_bytes(compiled.asm["cubin"])
    bundled = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    cuobjdump = str(bundled) if bundled.exists() else shutil.which("cuobjdump")
    if cuobjdump is None:
        pytest.skip("compiled, but there is no cuobjdump to read registers and spills with")
    report = subprocess.run(
        [cuobjdump, "--dump-resource-usage", str(tmp_path / "kernel.cubin")], capture_output=True, text=True, check=True
    ).stdout
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", report)}
    record_property("resources", usage)
    print(f"{kernel} E={experts} A={actions} sm_{capability}: {usage}, dynamic shared {compiled.metadata.shared}")
    assert usage["STACK"] == usage["LOCAL"] == 0, f"spills: {usage}"
    assert usage["REG"] <= 128, f"leaves a multiprocessor fewer than two programs of eight warps: {usage}"
