"""How commands end: their exit codes, and the failure of one, in one line."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_DIFFERENT: Final = 3

CODES: Final = {
    "usage": "An option or an argument is wrong, or a variable of the environment that stands for one is missing.",
    "settings": "A settings file or a file of configuration is wrong, lacks something, or cannot be read.",
    "unreachable": "The control plane or a store does not answer, or no stack runs.",
    "refused": "The control plane refuses. `status` and `type` are those of its problem document.",
    "rights": "The role of the database lacks rights.",
    "aborted": "A question was not answered with yes.",
    "not_checked": "Of `quotagate audit verify`: whether the journal is whole is not known.",
    "failed": "Anything else.",
}
"""What the JSON object of a failure has as its `code`. They stay as they are: programs branch on them."""


class CommandFailed(Exception):
    """Its text is what the operator reads; the command ends with its exit code."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = EXIT_FAILED
    members: Mapping[str, Any] = {}
    """What the JSON object has beside code and message."""


class ConfigurationFaulty(CommandFailed):
    """A file of configuration cannot be used, and nothing was done: as of a settings file."""

    code = "settings"
    exit_code = EXIT_USAGE


class Unreachable(CommandFailed):
    """What the command needs does not run, or does not answer."""

    code = "unreachable"
