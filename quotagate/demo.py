"""`quotagate demo`: plays the story of a customer against the running stack."""

import typer

from quotagate.options import DATA_DIR_DEFAULT, DataDir


def demo(data_dir: DataDir = DATA_DIR_DEFAULT) -> None:
    """Play a customer's story against a running `quotagate up`: sign-up with a trial, a block at 0, an upgrade, a
    scheduled downgrade, a failed payment and its recovery, overage, the end. Exits with 1 when an answer
    is not the expected one."""
    from devstack.datadir import read_secrets
    from devstack.story import StoryTeller
    from quotagate.admin import running_stack

    StoryTeller(running_stack(data_dir), read_secrets(data_dir).jwt_secret, typer.echo).tell()
