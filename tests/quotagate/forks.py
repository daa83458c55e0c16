"""Commands, each in a process of its own that begins with everything loaded: to load it takes most of a short command.

    python -P tests/quotagate/forks.py '[["migrate"], ["plans", "apply"]]'

Prints a list of `[exit code, what it printed, what it said is wrong]`. They run at the same time."""

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

import control.app  # noqa: F401  # most of them need it
from quotagate.main import app


def begun(words: list[str], directory: Path) -> int:
    """The id of a process, whose output goes into files of the directory."""
    if process_id := os.fork():
        return process_id
    code = 1
    try:
        for descriptor, name in enumerate(("printed", "wrong"), 1):
            os.dup2(os.open(directory / name, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
        app(words, prog_name="quotagate")
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(commands: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        places = [Path(directory) / str(number) for number in range(len(commands))]
        for place in places:
            place.mkdir()
        processes = [begun(words, place) for words, place in zip(commands, places, strict=True)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        told = [[(place / name).read_text() for name in ("printed", "wrong")] for place in places]
    sys.stdout.write(json.dumps([[code, *texts] for code, texts in zip(codes, told, strict=True)]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
