"""``python -m noisekit`` and the ``noisekit`` command."""

from __future__ import annotations


def main() -> int:
    from noisekit.cli import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
