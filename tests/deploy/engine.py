"""Builds the image and runs containers without an engine: by overlays, namespaces and chroot, which take root.

This machine stands in for python:3.11-slim, which is Debian with Python as well, and apt-get does nothing: what the
image gets from them is not tried. Every other step of the Dockerfile is run as it is written.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from devstack.child import Child, spawn, stopping
from tests.deploy.dockerfile import Ignored, Instruction, stages

ROOT = Path(__file__).parent.parent.parent
PYTHON = Path(sys.executable).resolve()
OF_THE_MACHINE = ("PIP_", "UV_", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")  # how an index is reached
PATH = f"{PYTHON.parent}:/usr/local/bin:/usr/local/sbin:/usr/bin:/bin:/usr/sbin:/sbin"
BUILD_SECONDS = 400
STOP_SECONDS = 60


@cache
def missing() -> str | None:
    """What this machine lacks to do so; None: nothing."""
    if os.geteuid() != 0:
        return "needs root"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() or None


@dataclass(frozen=True)
class Image:
    directory: Path
    environment: Mapping[str, str]
    user: str
    entrypoint: Sequence[str]
    healthcheck: Sequence[str]
    stop_signal: signal.Signals


def build(directory: Path) -> Image:
    """Raises CalledProcessError for a step that fails; its output has the reason."""
    layers: dict[str | None, Path] = {}
    for stage in stages(ROOT / "Dockerfile"):
        layer = _Layer(directory / (stage.name or "image"), dict(layers))
        for instruction in stage.instructions:
            layer.carry_out(instruction)
        layers[stage.name] = layer.content
    environment = {"PATH": PATH, **layer.environment}
    command = stage.last("HEALTHCHECK").text.partition(" CMD ")[2]
    return Image(
        directory=layer.content,
        environment=environment,
        user=layer.user,
        entrypoint=stage.last("ENTRYPOINT").words,
        healthcheck=Instruction("CMD", command).words,
        stop_signal=signal.Signals[stage.last("STOPSIGNAL").text],
    )


class _Layer:
    def __init__(self, directory: Path, others: Mapping[str | None, Path]) -> None:
        self.content = directory / "content"
        self.environment: dict[str, str] = {}
        self.user = "0:0"
        self._work, self._root = directory / "work", directory / "root"
        self._others = others
        self._directory = "/"
        for each in (self.content, self._work, self._root):
            each.mkdir(parents=True)
        self._lay_the_base()

    def carry_out(self, instruction: Instruction) -> None:
        match instruction.name:
            case "WORKDIR":
                self._directory = instruction.text
                (self.content / instruction.text[1:]).mkdir(parents=True, exist_ok=True)
            case "ENV":
                for word in shlex.split(instruction.text):
                    name, _, value = word.partition("=")
                    self.environment[name] = value.replace("$PATH", PATH)
            case "USER":
                self.user = instruction.text
            case "RUN":
                self._run(instruction.text)
            case "COPY":
                self._copy(shlex.split(instruction.text))

    def _lay_the_base(self) -> None:
        programs = self.content / str(PYTHON.parent)[1:]  # the first of PATH
        programs.mkdir(parents=True)
        scripts = {"pip": self._installer(), "apt-get": "exit 0"}
        for name, body in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{body}\n")
            (programs / name).chmod(0o755)
        # There everybody may run Python, and it is called so.
        for folder in list(PYTHON.parents)[:-1]:
            (self.content / str(folder)[1:]).chmod(0o755)
        if not PYTHON.with_name("python").exists():
            (programs / "python").symlink_to(PYTHON)

    def _installer(self) -> str:
        """As in the Makefile: uv does in a second what takes pip half a minute. The walk-through's test is with pip."""
        pip = f'exec {PYTHON} -m pip "$@"'
        uv = ROOT / ".venv/uv/bin/uv"
        if not uv.exists():
            return pip
        shutil.copy2(uv, self.content / str(PYTHON.parent)[1:] / "uv")
        return f'UV_COMPILE_BYTECODE=1 UV_SYSTEM_CERTS=true UV_PYTHON=$PIP_PYTHON uv pip "$@" || {pip}'

    def _run(self, command: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name.startswith(OF_THE_MACHINE)}
        # Whether the hot modules compile is tested elsewhere, and takes minutes.
        environment = {"PATH": PATH, "QUOTAGATE_COMPILED": "0", "HOME": "/root", **kept, **self.environment}
        mounts = [f"mount -t overlay overlay -o lowerdir=/,upperdir={self.content},workdir={self._work} {self._root}"]
        script = "\n".join(["set -e", *mounts, *_usual_mounts(self._root), f'exec chroot {self._root} sh -c "$1"'])
        inside = f"cd {self._directory} && {command}"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", inside],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"

    def _copy(self, words: list[str]) -> None:
        if words[0].startswith("--from="):
            source, target = words[1:]
            other = self._others[words[0].removeprefix("--from=")]
            shutil.copytree(other / source[1:], self.content / target[1:], symlinks=True)
            return
        *sources, target = words
        ignored = Ignored(ROOT / ".dockerignore")
        for source in sources:
            for file in _files(ROOT / source):
                path = str(file.relative_to(ROOT))
                if not ignored(path):
                    place = self.content / self._directory[1:] / target
                    # A folder's content goes into the target, a file itself.
                    place /= file.relative_to(ROOT / source) if (ROOT / source).is_dir() else file.name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, place)


def _files(path: Path) -> Iterator[Path]:
    yield from (file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _usual_mounts(root: Path) -> list[str]:
    """Also hides what an image cannot see: this checkout, and what others left in /tmp."""
    return [
        f"mount -t tmpfs tmpfs {root}/tmp",
        f"mkdir -p {root}{ROOT} && mount -t tmpfs tmpfs {root}{ROOT}",
        f"mount -t proc proc {root}/proc",
        f"mount --rbind /dev {root}/dev",
    ]


@contextmanager
def running(
    image: Image,
    name: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    volumes: Mapping[Path, str],
    log: Path,
) -> Iterator["Container"]:
    child = spawn(name, _argv(image, [*image.entrypoint, *words], environment, volumes), log=log)
    with stopping(child):
        container = Container(image, child)
        try:
            yield container
        finally:
            if child.exit_code is None:
                with suppress(subprocess.TimeoutExpired):
                    container.stop(STOP_SECONDS)


def run(
    image: Image, words: Sequence[str], environment: Mapping[str, str], volumes: Mapping[Path, str]
) -> subprocess.CompletedProcess[str]:
    """To its end. `words` are a whole command."""
    argv = _argv(image, words, environment, volumes)
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


@dataclass(frozen=True)
class Container:
    image: Image
    child: Child

    @property
    def process(self) -> psutil.Process:
        """What is process 1 in there."""
        return psutil.Process(self.child.process.pid).children()[0]

    def stop(self, timeout_seconds: float) -> int:
        """As an engine does; the exit code."""
        self.process.send_signal(self.image.stop_signal)
        return self.child.process.wait(timeout_seconds)


def _argv(image: Image, words: Sequence[str], environment: Mapping[str, str], volumes: Mapping[Path, str]) -> list[str]:
    """The root file system is read-only, nobody gains rights, and the command is process 1. The network is this
    machine's."""
    root = image.directory.parent / "root"
    lines = ["set -e", f"mount -t overlay overlay -o lowerdir={image.directory}:/ {root}"]
    for target in volumes.values():
        (image.directory / target[1:]).mkdir(parents=True, exist_ok=True)
    lines += [f"mount --bind {source} {root}{target}" for source, target in volumes.items()]
    # Folders below which files of this machine are hidden exist in the image by now: nothing is written to it here.
    lines += _usual_mounts(root)
    user, _, group = image.user.partition(":")
    drop = f"setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs --bounding-set -all --inh-caps -all"
    variables = [f"{key}={value}" for key, value in {**image.environment, **environment}.items()]
    inside = shlex.join(["chroot", str(root), *drop.split(), "env", "-i", *variables, *words])
    script = "\n".join([*lines, f"exec {inside}"])
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]
