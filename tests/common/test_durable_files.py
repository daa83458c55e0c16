"""A file that is replaced is the one before or the one after, never a part of one."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from common.durable_files import replace_text, replacing

WRITES = """
import sys, time
from pathlib import Path
from common.durable_files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write("half of it")
    file.flush()
    print(flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_ends_while_it_writes_leaves_the_file_of_before(tmp_path: Path, ending: signal.Signals) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert path.read_text() == "before"
        process.send_signal(ending)
    assert path.read_text() == "before"
    left = [each.name for each in tmp_path.iterdir() if each != path]
    assert all(name.startswith(".") for name in left)
    assert ending is signal.SIGKILL or not left


def test_what_fails_on_its_way_leaves_the_file_of_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines(["half of it", cast("str", None)])
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "before")]


def test_the_new_file_has_the_rights_of_the_one_before_and_stays_behind_its_link(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("before")
    path.chmod(0o640)
    link.symlink_to(path)
    replace_text(link, "after")
    assert (path.read_text(), link.is_symlink()) == ("after", True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        replace_text(pipe, "content")
        assert reader.communicate(timeout=30)[0] == b"content"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
