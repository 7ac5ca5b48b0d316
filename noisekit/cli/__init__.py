"""The command line: one command a file, data to stdout, progress and log to stderr.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from noisekit.errors import InputError, NoisekitError

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (those of the process if None) and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        from noisekit.cli.parse import parse

        code = parse(arguments).run()
        sys.stdout.flush()
        return code
    except InputError as error:
        return _fail(error, WRONG_USE, debug)
    except NoisekitError as error:
        return _fail(error, FAILED, debug)
    except BrokenPipeError:
        # The reader of stdout left, as `head` does; there is nobody to tell.
        sys.stderr.close()
        return FAILED
    except KeyboardInterrupt:
        print("\nnoisekit: interrupted; nothing was left half-written.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        # What is left in the buffer cannot be written at exit either.
        if error.filename is None:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        about = f"{error.filename}: " if error.filename else ""
        return _fail(NoisekitError(f"{about}{error.strerror or error}."), FAILED, debug)
    except (MemoryError, OverflowError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        text = "This needs more memory than there is; take fewer replicates, samples or coordinates."
        return _fail(NoisekitError(text), FAILED, debug)


def _fail(error: NoisekitError, code: int, debug: bool) -> int:
    if debug:
        raise error
    print(f"noisekit: {error}", file=sys.stderr)
    return code
