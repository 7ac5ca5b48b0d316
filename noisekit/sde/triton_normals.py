"""Triton's part of the random numbers: normals of Philox, and increments of a Brownian bridge.

Importing this needs Triton.
"""

# mypy: disable-error-code="no-untyped-def"
import triton
import triton.language as tl

BLOCK = 512
"""Elements that one program works on."""


@triton.jit
def _cosine_and_sine(word):
    """cos θ and sin θ of θ = 2π word/2³², a word of 32 bits, to 1e-7.

    A rotation within ±π/4 of a multiple of π/2, whose polynomials (Moshier, Cephes: sinf and cosf) are
    shorter than functions of any angle, and have no case for large ones.
    """
    quadrant = (word + 536870912) >> 30
    rest = (word - (quadrant << 30)).to(tl.int32, bitcast=True)
    angle = rest.to(tl.float32) * 1.4629180792671596e-09
    z = angle * angle
    sine = angle + angle * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4))
    cosine = (
        1.0 - 0.5 * z + z * z * (4.166664568298827e-2 - z * (1.388731625493765e-3 - z * 2.443315711809948e-5))
    )
    odd = (quadrant & 1) != 0
    along, across = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    along = tl.where(((quadrant + 1) & 2) != 0, -along, along)
    across = tl.where((quadrant & 2) != 0, -across, across)
    return along, across


@triton.jit
def _two_normals(first, second):
    """√(−2 ln u) (cos θ, sin θ) of two words of 32 bits, as in philox.normals_of."""
    u = first.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10
    radius = tl.sqrt(-2.0 * tl.log(u))
    cosine, sine = _cosine_and_sine(second)
    return radius * cosine, radius * sine


@triton.jit
def four_normals(key, coordinate, replicate, step, group):
    """The normals number 4·group to 4·group + 3 of a step."""
    zero = coordinate * 0
    a, b, c, d = tl.philox(key, coordinate, replicate, zero + step, zero + group)
    first, second = _two_normals(a, b)
    third, fourth = _two_normals(c, d)
    return first, second, third, fourth


@triton.jit
def _half(whole, middle, SECOND: tl.constexpr):
    """The increment of the first or second half of an interval, divided by √(its length)."""
    return ((whole - middle) if SECOND else (whole + middle)) * 0.7071067811865476


@triton.jit
def increment(z0, z1, z2, z3, z4, z5, z6, z7, INDEX: tl.constexpr, SUBSTEPS: tl.constexpr):
    """The increment number INDEX of SUBSTEPS (1, 2, 4 or 8), divided by √(its length): a Brownian bridge.

    The compiler finds what the increments of a step have in common.
    """
    w = z0
    if SUBSTEPS > 1:
        w = _half(w, z1, 2 * INDEX // SUBSTEPS)
    if SUBSTEPS > 2:
        if 2 * INDEX < SUBSTEPS:
            w = _half(w, z2, 4 * INDEX // SUBSTEPS % 2)
        else:
            w = _half(w, z3, 4 * INDEX // SUBSTEPS % 2)
    if SUBSTEPS > 4:
        if INDEX < 2:
            w = _half(w, z4, INDEX % 2)
        elif INDEX < 4:
            w = _half(w, z5, INDEX % 2)
        elif INDEX < 6:
            w = _half(w, z6, INDEX % 2)
        else:
            w = _half(w, z7, INDEX % 2)
    return w


@triton.jit(do_not_specialize=["first_replicate", "key", "step"])
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
        a, b, c, d = four_normals(key, coordinate, replicate, step, group)
        start = out + 4 * group * stride
        tl.store(start, a, mask=inside)
        if SUBSTEPS > 1:
            tl.store(start + stride, b, mask=inside)
        if SUBSTEPS > 2:
            tl.store(start + 2 * stride, c, mask=inside)
            tl.store(start + 3 * stride, d, mask=inside)
