"""Write docs/schema.md, the file schema as tables, from noisekit/results/schema.py.

python scripts/make_schema_page.py
"""

from __future__ import annotations

from pathlib import Path

from noisekit.results import schema
from noisekit.results.schema import Variable

PAGE = Path(__file__).parents[1] / "docs" / "schema.md"

HEAD = f"""# File schema `{schema.SCHEMA}`

<!-- Made by scripts/make_schema_page.py from noisekit/results/schema.py; a test compares. -->

A result file is an [xarray](https://xarray.dev) `DataTree`, in netCDF-4 (`.nc`) or zarr (`.zarr`). It opens
without noisekit:

```python
import noisekit as nk

nk.save_tree(nk.make_example_tree(), "example.nc")

import xarray as xr

tree = xr.open_datatree("example.nc")
print(tree["training"]["loss"].dims, tree["gradient_noise"]["trace"].attrs["long_name"])
```

Any group and any variable may be missing; what has a name of the schema has its axes, and other names are
left alone. `nk.open_tree` checks this and says what does not fit. Reading executes nothing from the file.
Truth values are stored as 0 and 1. A `*` stands for the name of an optimizer.
"""


def schema_page() -> str:
    """Return the page."""
    parts = [HEAD, "## Axes\n", _table(("axis", "what"), [(f"`{a}`", t) for a, t in schema.AXES.items()])]
    for path, group in schema.GROUPS.items():
        parts += [f"## `{path}`\n", f"{group.title}.\n"]
        variables = [*group.coordinates.items(), *group.variables.items()]
        rows = [_row(name, variable, name in group.coordinates) for name, variable in variables]
        if rows:
            parts.append(_table(("variable", "axes", "what", "unit", "symbol"), rows))
        if group.open_dims:
            axes = ", ".join(group.open_dims)
            parts.append(f"Further variables over ({axes}) are observables under their own names.\n")
    parts += ["## Attributes of the file\n", _attributes(schema.ROOT_ATTRIBUTES)]
    parts += ["## Attributes of trajectories\n", _attributes(schema.TRAJECTORY_ATTRIBUTES)]
    parts += ["## Attributes of comparisons\n", _attributes(schema.COMPARISON_ATTRIBUTES)]
    return "\n".join(parts)


def _row(name: str, variable: Variable, is_coordinate: bool) -> tuple[str, ...]:
    what = f"{variable.long_name} ({variable.references})" if variable.references else variable.long_name
    label = f"**`{name}`**" if is_coordinate else f"`{name}`"
    axes = ", ".join(variable.dims) or "–"
    unit = "text" if variable.kind == "str" else variable.units
    return label, axes, what, unit, variable.symbol


def _attributes(names: dict[str, str]) -> str:
    return _table(("attribute", "what"), [(f"`{name}`", text) for name, text in names.items()])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(schema_page(), encoding="utf-8")
    print(PAGE.name)
