"""A Triton kernel that advances a coordinate-wise SDE over many optimizer steps with its state in registers.

Each element of x (replicate, coordinate) is a path of its own, and m and v stand beside it. A program loads
a block of them, takes all steps with normals that it makes itself, and stores the block: no number goes
through memory in between. Importing this needs Triton. The kernel has run in Triton's interpreter and been
compiled for an H100/H200 (sm_90); it has not run on a GPU.
"""

# mypy: disable-error-code="no-untyped-def"
import triton
import triton.language as tl

from noisekit.sde.triton_normals import four_normals, increment


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
def _square_average(v, second, noisy, forget, spread, SUBSTEPS: tl.constexpr):
    """V after a substep with the noise of g² in it, as in square_average.advance_square_average."""
    if SUBSTEPS == 1:
        after = v + forget * (noisy * noisy - v)
    else:
        mean = v + forget / SUBSTEPS * (second - v)
        a = forget / spread
        after = mean * ((mean + a * noisy * noisy) / (mean + a * second))
    return after


@triton.jit
def _preconditioned(
    x,
    m,
    v,
    curvature,
    scale,
    w,
    drift,
    ratio,
    floor,
    decay,
    part,
    forget,
    spread,
    SUBSTEPS: tl.constexpr,
    VARIANT: tl.constexpr,
    MOMENTUM: tl.constexpr,
):
    """One substep of RMSprop and, with MOMENTUM, of Adam: ``euler_step`` of their SDEs.

    ``ratio`` √ι₂/ι₁ and ``floor`` ε√ι₂ carry the bias corrections; ``part`` 1 − β₁, ``forget`` 1 − β₂,
    ``spread`` √SUBSTEPS.
    """
    gradient = curvature * x
    zeta = scale * w
    second = scale * scale
    if VARIANT != "malladi":
        second += gradient * gradient
    if VARIANT == "consistent":
        v = _square_average(v, second, gradient + zeta, forget, spread, SUBSTEPS)
        divisor = tl.sqrt(v) + floor
    else:
        divisor = tl.sqrt(v) + floor
        v += forget / SUBSTEPS * (second - v)
    move = gradient + spread * zeta
    direction = move
    if MOMENTUM:
        direction = m
        if VARIANT == "consistent":
            direction = m + part * (move - m)
        elif VARIANT == "published":
            direction = m + part * (gradient - m)
        m += part / SUBSTEPS * (move - m)
    x = x - drift * decay * x - drift * ratio * (direction / divisor)
    return x, m, v


@triton.jit(do_not_specialize=["first_replicate", "key", "first_step", "steps"])
def advance(
    x_pointer,
    m_pointer,
    v_pointer,
    curvature_pointer,
    scale_pointer,
    table_pointer,
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
    eps,
    part,
    forget,
    SUBSTEPS: tl.constexpr,
    RULE: tl.constexpr,
    VARIANT: tl.constexpr,
    TABLE: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Take ``steps`` optimizer steps of SUBSTEPS (1, 2, 4 or 8) substeps; count those that end finite.

    RULE is "sgd", "signsgd", "rmsprop" or "adam". With TABLE there is a row for each substep: the factor on
    the learning rate, √ι₂/ι₁ and ε√ι₂.
    """
    element = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = element < n_elements
    coordinate = (element % dimension).to(tl.int32)
    replicate = (first_replicate + element // dimension).to(tl.int32)
    x = tl.load(x_pointer + element, mask=inside, other=0.0)
    m = x
    v = x
    if RULE == "adam":
        m = tl.load(m_pointer + element, mask=inside, other=0.0)
    if RULE == "adam" or RULE == "rmsprop":
        v = tl.load(v_pointer + element, mask=inside, other=1.0)
    curvature = tl.load(curvature_pointer + coordinate, mask=inside, other=0.0)
    scale = tl.load(scale_pointer + coordinate, mask=inside, other=1.0)
    finite = tl.zeros((SIZE,), dtype=tl.int32)
    spread = noise_step / dt
    for k in range(steps):
        step = first_step + k
        z0, z1, z2, z3 = four_normals(key, coordinate, replicate, step, 0)
        z4, z5, z6, z7 = z0, z1, z2, z3
        if SUBSTEPS > 4:
            z4, z5, z6, z7 = four_normals(key, coordinate, replicate, step, 1)
        for INDEX in tl.static_range(SUBSTEPS):
            w = increment(z0, z1, z2, z3, z4, z5, z6, z7, INDEX, SUBSTEPS)
            drift = dt
            diffusion = noise_step
            ratio = 1.0
            floor = eps
            if TABLE:
                row = table_pointer + 3 * (k * SUBSTEPS + INDEX)
                factor = tl.load(row)
                drift = factor * dt
                diffusion = factor * noise_step
                ratio = tl.load(row + 1)
                floor = tl.load(row + 2)
            if RULE == "sgd":
                x = _sgd(x, curvature, scale, w, drift, diffusion, decay)
            elif RULE == "signsgd":
                x = _signsgd(x, curvature, scale, w, drift, diffusion, decay)
            else:
                x, m, v = _preconditioned(
                    x,
                    m,
                    v,
                    curvature,
                    scale,
                    w,
                    drift,
                    ratio,
                    floor,
                    decay,
                    part,
                    forget,
                    spread,
                    SUBSTEPS,
                    VARIANT,
                    RULE == "adam",
                )
        finite += (tl.abs(x) <= 3.4028234e38).to(tl.int32)
    tl.store(x_pointer + element, x, mask=inside)
    tl.store(finite_pointer + element, finite, mask=inside)
    if RULE == "adam":
        tl.store(m_pointer + element, m, mask=inside)
    if RULE == "adam" or RULE == "rmsprop":
        tl.store(v_pointer + element, v, mask=inside)
