"""The fused kernel compiled for an H100 or H200 (sm_90) without one. Prints "compiled" or raises.

Run as: triton_compile.py, where Triton is installed.
"""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from noisekit.sde import triton_kernels, triton_normals

TYPES = {"finite_pointer": "*i32", "n_elements": "i64", "dimension": "i32", "first_replicate": "i32"}
TYPES |= {"key": "i64", "first_step": "i32", "steps": "i32"}


def main() -> None:
    for rule, variant, substeps in (
        ("sgd", "", 1),
        ("signsgd", "", 2),
        ("rmsprop", "consistent", 4),
        ("adam", "consistent", 8),
        ("adam", "published", 4),
        ("adam", "malladi", 1),
    ):
        chosen = {"SUBSTEPS": substeps, "RULE": rule, "VARIANT": variant}
        chosen |= {"TABLE": rule == "adam", "SIZE": triton_normals.BLOCK}
        kinds = {
            name: TYPES.get(name, "*fp32" if name.endswith("_pointer") else "fp32")
            for name in triton_kernels.advance.arg_names
        } | dict.fromkeys(chosen, "constexpr")
        source = ASTSource(triton_kernels.advance, kinds, chosen)  # versions name the third differently
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert "sm_90" in made.asm["ptx"]
        assert len(made.asm["cubin"]) > 1000
    print("compiled")


if __name__ == "__main__":
    main()
