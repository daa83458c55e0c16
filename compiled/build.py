"""Compiles the modules of the list, where mypyc and a C compiler are.

    python -m compiled.build

Prints that it begins, and what came of it. Without a compiler nothing is built, which is no failure: plain Python runs.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from compiled.built import BUILT, GROUP, LIBRARY, LIBRARY_FILE, ROOT, Manifest, directory_for
from compiled.modules import HOT

KEPT_MAX: Final = 3  # of former sources: branches are changed, and running gateways read what they began with
OUTPUT_SHOWN_MAX: Final = 20  # lines
TRIAL: Final = """
from importlib import import_module
from compiled import finder, modules
running = finder.install()
if running.kind is not finder.Kind.COMPILED:
    raise SystemExit(f"{running}: {running.detail}")
for name in modules.HOT:
    import_module(name)
"""
# Types of other packages would change nothing: their classes are no compiled ones. Reading them takes most of the time.
MYPY_OPTIONS: Final = ("--config-file=", "--no-site-packages", "--ignore-missing-imports")
WARNINGS: Final = ("-Wno-unused-function", "-Wno-unused-variable", "-Wno-unused-label", "-Wno-unused-but-set-variable")


class NotCompiled(Exception):
    """{reason}"""


def compiler() -> list[str]:
    """The C compiler that this Python's extensions are made with, or another one. Raises NotCompiled."""
    configured = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    for command in (configured, ["cc"], ["gcc"], ["clang"]):
        if shutil.which(command[0]):
            break
    else:
        raise NotCompiled("there is no C compiler")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise NotCompiled("there is a C compiler, but not Python.h, which Debian has in python3-dev")
    return command


def mypy_version() -> str:
    """Raises NotCompiled."""
    try:
        version("setuptools")  # mypyc describes with it what is to be compiled
        return f"mypy {version('mypy')}"
    except PackageNotFoundError as e:
        raise NotCompiled("mypyc is not installed") from e


def build(target: Path) -> None:
    """Makes `target` the directory that the finder looks for. Raises NotCompiled."""
    command, built_with = compiler(), mypy_version()
    print(f"Compiling {len(HOT)} modules of the gateway: one or several minutes, once for these sources", flush=True)
    with TemporaryDirectory() as scratch:
        library = Path(scratch) / LIBRARY_FILE
        _compile(command, Path(scratch), library)
        made = target.with_name(f".{target.name}.{os.getpid()}")
        made.mkdir(parents=True)
        shutil.copy(library, made)
    Manifest((made / LIBRARY_FILE).stat().st_size, built_with).write(made)
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    try_out(target)


def try_out(target: Path) -> None:
    """Imports all modules in a process of their own. Raises NotCompiled, and removes them, if that fails: no gateway
    shall find it out at its start."""
    environment = {**os.environ, "QUOTAGATE_COMPILED": "1"}
    tried = subprocess.run([sys.executable, "-c", TRIAL], env=environment, capture_output=True, text=True, check=False)
    # Where a wheel is built, what they import is not installed.
    if tried.returncode and "ModuleNotFoundError" not in tried.stderr:
        shutil.rmtree(target)
        raise NotCompiled(f"they do not load:\n{_last_lines(tried.stderr)}")


def _compile(command: list[str], scratch: Path, library: Path) -> None:
    sources, include_dirs = _generate(scratch)
    flags = [flag for name in ("CFLAGS", "CCSHARED") for flag in shlex.split(sysconfig.get_config_var(name) or "")]
    includes = [f"-I{folder}" for folder in (*include_dirs, scratch, sysconfig.get_path("include"))]
    compile_one = [*command, *flags, "-O3", "-g0", *WARNINGS, *includes, "-c"]
    objects = [scratch / f"{number}.o" for number in range(len(sources))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda source, made: _run([*compile_one, str(source), "-o", str(made)]), sources, objects))
    _run([*command, "-shared", *map(str, objects), "-o", str(library)])


def _generate(scratch: Path) -> tuple[list[Path], list[str]]:
    """The C sources of all modules in one library, and the folders of the headers that they include."""
    from mypyc.build import mypycify

    paths = [f"{name.replace('.', '/')}.py" for name in HOT]
    log = scratch / "mypyc.log"
    with log.open("w") as output, redirect_stdout(output), redirect_stderr(output):
        try:
            extensions = mypycify([*MYPY_OPTIONS, *paths], multi_file=True, target_dir=str(scratch), group_name=GROUP)
        except SystemExit as e:
            output.flush()
            raise NotCompiled(f"mypyc refuses them:\n{_last_lines(log.read_text())}") from e
    library = next(extension for extension in extensions if extension.name == LIBRARY)
    return [*map(Path, library.sources), Path(__file__).with_name("load.c")], library.include_dirs


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotCompiled(f"{command[0]} fails:\n{_last_lines(done.stderr)}")


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-OUTPUT_SHOWN_MAX:])


def _is_there(target: Path) -> bool:
    """Whether the builder that is installed has built it. One that is not there is not asked."""
    try:
        return Manifest.read(target).built_with == mypy_version()
    except (OSError, ValueError, NotCompiled):
        return False


def _remove_former(target: Path) -> None:
    former = sorted((each for each in BUILT.iterdir() if each != target), key=lambda each: each.stat().st_mtime)
    for each in former[:-KEPT_MAX]:
        shutil.rmtree(each, ignore_errors=True)


def main() -> None:
    os.chdir(ROOT)
    target, began = directory_for(), time.monotonic()
    if _is_there(target):
        return
    try:
        build(target)
    except NotCompiled as e:
        print(f"The gateway runs as plain Python, and was not compiled: {e}")
        return
    _remove_former(target)
    print(f"{len(HOT)} modules of the gateway were compiled in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
