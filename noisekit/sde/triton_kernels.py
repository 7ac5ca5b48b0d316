"""Triton kernels that advance a coordinate-wise SDE over many optimizer steps with its state in registers.

Each element of x (replicate, coordinate) is a path of its own. A program loads a block of them, takes all
steps with normals that it makes itself, and stores the block: no number goes through memory in between.
Importing this needs Triton. The kernels have run in Triton's interpreter (3.2, 3.6, 3.9) and been compiled
for an H100/H200 (sm_90), with 117 to 128 registers at 8 substeps; they have not run on a GPU.
"""

# mypy: disable-error-code="no-untyped-def"
import triton
import triton.language as tl

BLOCK = 512
"""Elements that one program advances."""


@triton.jit
def _two_normals(first, second):
    """√(−2 ln u) (cos θ, sin θ) of two words of 32 bits, as in philox.normals_of."""
    u = first.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10
    theta = second.to(tl.int32, bitcast=True).to(tl.float32) * 1.4629180792671596e-09
    radius = tl.sqrt(-2.0 * tl.log(u))
    return radius * tl.cos(theta), radius * tl.sin(theta)


@triton.jit
def _four_normals(key, coordinate, replicate, step, group):
    """The normals number 4·group to 4·group + 3 of a step."""
    zero = coordinate * 0
    a, b, c, d = tl.philox(key, coordinate, replicate, zero + step, zero + group)
    first, second = _two_normals(a, b)
    third, fourth = _two_normals(c, d)
    return first, second, third, fourth


@triton.jit
def normals(
    out_pointer,
    n_elements,
    dimension,
    first_replicate,
    key,
    step,
    SUBSTEPS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Write the normals (substep, replicate, coordinate) of one step, as philox.PhiloxNormals does."""
    element = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = element < n_elements
    coordinate = (element % dimension).to(tl.int32)
    replicate = (first_replicate + element // dimension).to(tl.int32)
    out = out_pointer + element
    stride = tl.full((), n_elements, tl.int64)
    for group in range((SUBSTEPS + 3) // 4):
        a, b, c, d = _four_normals(key, coordinate, replicate, step, group)
        start = out + 4 * group * stride
        tl.store(start, a, mask=inside)
        if SUBSTEPS > 1:
            tl.store(start + stride, b, mask=inside)
        if SUBSTEPS > 2:
            tl.store(start + 2 * stride, c, mask=inside)
            tl.store(start + 3 * stride, d, mask=inside)


@triton.jit
def _sgd(x, curvature, scale, w, drift, diffusion, decay):
    """x − u dt (λ + θ)x − u√(η dt) σw."""
    return x - drift * (curvature * x + decay * x) - diffusion * (scale * w)


@triton.jit
def _signsgd(x, curvature, scale, w, drift, diffusion, decay):
    """x − u dt (E + θx) − u√(η dt) √(1 − E²) w, E = erf(λx/(√2 σ)); ``scale`` is 1/(√2 σ)."""
    mean = tl.erf(curvature * x * scale)
    deviation = tl.sqrt(tl.maximum(1.0 - mean * mean, 0.0))
    return x - drift * (mean + decay * x) - diffusion * (deviation * w)


@triton.jit
def _halves(whole, middle):
    """The increments of the two halves of an interval, each divided by √(its length): a Brownian bridge."""
    return (whole + middle) * 0.7071067811865476, (whole - middle) * 0.7071067811865476


@triton.jit
def advance(
    x_pointer,
    curvature_pointer,
    scale_pointer,
    factor_pointer,
    finite_pointer,
    n_elements,
    dimension,
    first_replicate,
    key,
    first_step,
    steps,
    dt,
    noise_step,
    decay,
    SUBSTEPS: tl.constexpr,
    MOVE: tl.constexpr,
    SCHEDULE: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Take ``steps`` optimizer steps of SUBSTEPS (1, 2, 4 or 8) substeps; count those that end finite."""
    element = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = element < n_elements
    coordinate = (element % dimension).to(tl.int32)
    replicate = (first_replicate + element // dimension).to(tl.int32)
    x = tl.load(x_pointer + element, mask=inside, other=0.0)
    curvature = tl.load(curvature_pointer + coordinate, mask=inside, other=0.0)
    scale = tl.load(scale_pointer + coordinate, mask=inside, other=0.0)
    finite = tl.zeros((SIZE,), dtype=tl.int32)
    for k in range(steps):
        drift, diffusion = dt, noise_step
        if SCHEDULE:
            factor = tl.load(factor_pointer + k)
            drift, diffusion = factor * dt, factor * noise_step
        whole, half, early, late = _four_normals(key, coordinate, replicate, first_step + k, 0)
        if SUBSTEPS == 1:
            x = MOVE(x, curvature, scale, whole, drift, diffusion, decay)
        else:
            w0, w1 = _halves(whole, half)
            if SUBSTEPS == 2:
                x = MOVE(x, curvature, scale, w0, drift, diffusion, decay)
                x = MOVE(x, curvature, scale, w1, drift, diffusion, decay)
            else:
                a0, a1 = _halves(w0, early)
                a2, a3 = _halves(w1, late)
                if SUBSTEPS == 4:
                    x = MOVE(x, curvature, scale, a0, drift, diffusion, decay)
                    x = MOVE(x, curvature, scale, a1, drift, diffusion, decay)
                    x = MOVE(x, curvature, scale, a2, drift, diffusion, decay)
                    x = MOVE(x, curvature, scale, a3, drift, diffusion, decay)
                else:
                    z0, z1, z2, z3 = _four_normals(key, coordinate, replicate, first_step + k, 1)
                    b0, b1 = _halves(a0, z0)
                    x = MOVE(x, curvature, scale, b0, drift, diffusion, decay)
                    x = MOVE(x, curvature, scale, b1, drift, diffusion, decay)
                    b2, b3 = _halves(a1, z1)
                    x = MOVE(x, curvature, scale, b2, drift, diffusion, decay)
                    x = MOVE(x, curvature, scale, b3, drift, diffusion, decay)
                    b4, b5 = _halves(a2, z2)
                    x = MOVE(x, curvature, scale, b4, drift, diffusion, decay)
                    x = MOVE(x, curvature, scale, b5, drift, diffusion, decay)
                    b6, b7 = _halves(a3, z3)
                    x = MOVE(x, curvature, scale, b6, drift, diffusion, decay)
                    x = MOVE(x, curvature, scale, b7, drift, diffusion, decay)
        finite += (tl.abs(x) <= 3.4028234e38).to(tl.int32)
    tl.store(x_pointer + element, x, mask=inside)
    tl.store(finite_pointer + element, finite, mask=inside)


MOVES = {"sgd": _sgd, "signsgd": _signsgd}
"""What one substep does, by the name of the equation."""
