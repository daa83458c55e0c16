"""Adds the compiled modules to the wheel, where they can be compiled. Elsewhere the wheel is pure Python, and works."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledModules(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or os.environ.get("QUOTAGATE_COMPILED") == "0":
            return
        # Its own process, so that what mypyc does to setuptools stays there.
        subprocess.run([sys.executable, "-m", "compiled.build"], cwd=self.root, check=True)
        sys.path.insert(0, self.root)
        from compiled.built import ROOT, directory_for

        directory = directory_for()
        if directory.is_dir():
            build_data["force_include"][str(directory)] = str(directory.relative_to(ROOT))
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
        else:
            self.app.display_warning(f"{Path(self.root).name}: the wheel is pure Python")
