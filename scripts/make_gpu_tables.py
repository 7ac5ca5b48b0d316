"""Write the tables of docs/scale.md that show what scripts/gpu_study found, from data/gpu_runs.

python scripts/make_gpu_tables.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from noisekit.results import open_tree

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "data" / "gpu_runs"
NOTHING = "Nothing has been run on a GPU yet."


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    (folder / "results.md").write_text(results(folder), encoding="utf-8")
    print(folder / "results.md")


def results(folder: Path) -> str:
    """Return the tables of what is in ``folder``, in markdown."""
    parts = []
    for name, table in TABLES.items():
        path = folder / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            done = [row for row in found[name] if "error" not in row]
            rows = [row for row in done if "alone" not in row]
            if rows:
                parts.append(f"{caption(found)}\n\n{table(rows)}")
            parts += [table for row in done if "alone" in row for table in alone(row)]
    trained = sorted(path for path in folder.glob("*.nc") if path.name != "truth.nc")
    if trained:
        parts.append(trainings(trained))
    return "\n\n".join(parts or [NOTHING]) + "\n"


def caption(found: dict[str, Any]) -> str:
    """Return on what the numbers were found."""
    versions = found["versions"]
    made_with = found["git_commit"] or versions.get("noisekit", "?")
    said = f"On {found['device']}, torch {versions.get('torch', '?')}, noisekit {made_with}"
    toy = ", at toy sizes that say nothing of speed" if found["smoke"] else ""
    return said + toy + ("" if found["complete"] else ", not all of it run yet") + ":"


def alone(row: dict[str, Any]) -> list[str]:
    """Return what was measured beside the rows of a table: speeds in 10⁹ a second, or kernels."""
    speeds = {key: value for key, value in row.items() if key.endswith("per_second")}
    if speeds:
        said = (f"{key.removesuffix('per_second').rstrip('_')} {v / 1e9:.3g}" for key, v in speeds.items())
        return [f"{row['alone']}, 10⁹/s: {', '.join(said).strip()}."]
    if "seconds" in row:
        return [f"{row['alone']}: {1000 * row['seconds']:.1f} ms a recorded step."]
    tables = []
    for kind in ("plain", "recorded"):
        lines = [
            [f"`{name.replace('|', ' ')}`", str(count), f"{ms:.2f}"]
            for name, count, ms in row[kind]["kernels"][:12]
        ]
        said = (
            f"{row['alone']}, {kind}: {row[kind]['milliseconds']:.1f} ms in {row[kind]['launched']} launches."
        )
        tables.append(said + "\n\n" + markdown(["kernel", "times", "ms"], lines))
    return tables


def checks(rows: list[dict[str, Any]]) -> str:
    """Return which promises hold."""
    return markdown(["checked", "holds"], [[row["check"], "yes" if row["holds"] else "no"] for row in rows])


def integrate(rows: list[dict[str, Any]]) -> str:
    """Return 10⁹ path·coordinate·substeps a second without and with the fused kernel."""
    speeds = {(row["optimizer"], row.get("coordinates"), row.get("fused")): row for row in rows}
    lines = []
    for (name, coordinates, fused), kernel in speeds.items():
        if not fused or (name, coordinates, False) not in speeds:
            continue
        plain = speeds[name, coordinates, False]
        limit = kernel.get("of_instruction_limit")
        lines.append(
            [
                name,
                f"{kernel['paths']:,} × {coordinates:,}",
                *(f"{row['per_second'] / 1e9:.3g}" for row in (plain, kernel)),
                *(f"{row['of_copy_limit']:.2f}" for row in (plain, kernel)),
                "" if limit is None else f"{limit:.2f}",
            ]
        )
    head = ["SDE", "paths × coordinates", "10⁹/s", "kernel, 10⁹/s", "of a copy", "kernel, of a copy"]
    return markdown([*head, "kernel, of its instructions"], lines)


def recorder(rows: list[dict[str, Any]]) -> str:
    """Return time and memory of a recorded step in those of a plain one."""
    kinds = list(rows[0]["recorded"])
    lines = [
        [f"{row['parameters']:,}", str(row["batch"]), f"{1000 * row['plain_seconds']:.1f}"]
        + [_costs(row["recorded"][kind]) for kind in kinds]
        for row in sorted(rows, key=lambda row: row["parameters"])
    ]
    return markdown(["parameters", "batch", "plain step, ms", *kinds], lines)


def _costs(cost: dict[str, Any]) -> str:
    memory = f", memory {cost['memory_ratio']:.2f} ×" if "memory_ratio" in cost else ""
    return f"{cost['ratio']:.2f} ×{memory}"


def trainings(paths: list[Path]) -> str:
    """Return what each recorded training was, and where its loss went."""
    lines = []
    for path in paths:
        with open_tree(path) as tree:
            config, loss = json.loads(tree.attrs["config_json"]), tree["training"]["loss"].values
            lines.append(
                [
                    f"`{path.name}`",
                    f"{int(tree.attrs['n_parameters']):,}",
                    config["device"],
                    f"{config['steps_done']:,}",
                    str(len(loss)),
                    f"{loss[0]:.3f} → {loss[-1]:.3f}",
                    f"{path.stat().st_size / 1e6:.1f}",
                ]
            )
    head = ["file", "parameters", "device", "steps", "recorded", "loss", "MB"]
    return "Trained in bf16 with AdamW, every file with its provenance:\n\n" + markdown(head, lines)


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """Return a table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


TABLES: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "checks": checks,
    "integrate": integrate,
    "recorder": recorder,
}

if __name__ == "__main__":
    main()
