"""Serves the compiled modules, all of them or none, before the first one is imported.

A compiled module calls others by their addresses, so one of the list that was imported as Python beside it would be
another module of the same name.
"""

import os
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from compiled.built import LIBRARY, LIBRARY_FILE, Manifest, directory_for
from compiled.modules import HOT

SWITCH: Final = "QUOTAGATE_COMPILED"


class Kind(Enum):
    COMPILED = "compiled"
    SWITCHED_OFF = "switched off"
    NOT_BUILT = "not built"
    UNUSABLE = "unusable"
    """Something was built, and does not load."""


class Running(NamedTuple):
    """As what the modules of the list run in this process."""

    kind: Kind
    detail: str = ""

    def __str__(self) -> str:
        match self.kind:
            case Kind.COMPILED:
                return "compiled modules"
            case Kind.SWITCHED_OFF:
                return f"plain Python, since {SWITCH}=0"
            case Kind.NOT_BUILT:
                return "plain Python, since these sources were not compiled"
            case Kind.UNUSABLE:
                return "plain Python, since the compiled modules do not load"


class _CompiledLoader:
    """What importlib asks of a loader, without its base class, whose module takes long to import."""

    def __init__(self, library: ModuleType, load: Callable[[Any], ModuleType]) -> None:
        self._library = library
        self._load = load

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """mypyc's own initializer makes the module and runs it."""
        return self._load(getattr(self._library, f"init_{spec.name.replace('.', '___')}"))

    def exec_module(self, module: ModuleType) -> None: ...


class _CompiledFinder:
    """Of `sys.meta_path`."""

    def __init__(self, loader: _CompiledLoader) -> None:
        self._loader = loader
        self._names = frozenset(HOT)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self._loader) if name in self._names else None  # type: ignore[arg-type]  # as above


_running: Running | None = None


def install() -> Running:
    """Decides once for this process; further calls say what was decided."""
    global _running
    if _running is None:
        _running = _installed()
    return _running


def _installed() -> Running:
    if os.environ.get(SWITCH) == "0":
        return Running(Kind.SWITCHED_OFF)
    directory = directory_for()
    if not directory.is_dir():
        return Running(Kind.NOT_BUILT)
    try:
        loader = _loader_of(directory)
    except (ImportError, OSError, ValueError) as e:
        sys.modules.pop(LIBRARY, None)
        return Running(Kind.UNUSABLE, str(e))
    sys.meta_path.insert(0, _CompiledFinder(loader))
    return Running(Kind.COMPILED)


def _loader_of(directory: Path) -> _CompiledLoader:
    """Raises ImportError, OSError and ValueError for what cannot be used."""
    file = directory / LIBRARY_FILE
    if file.stat().st_size != Manifest.read(directory).library_bytes:
        raise ImportError(f"{file} is not whole")
    library = sys.modules[LIBRARY] = _loaded(LIBRARY, file)
    missing = [name for name in HOT if not hasattr(library, f"init_{name.replace('.', '___')}")]
    if missing:
        raise ImportError(f"{file} does not hold {', '.join(missing)}")
    return _CompiledLoader(library, _loaded("load", file).load)


def _loaded(name: str, file: Path) -> ModuleType:
    loader = ExtensionFileLoader(name, str(file))
    module = module_from_spec(ModuleSpec(name, loader, origin=str(file)))
    loader.exec_module(module)
    return module
