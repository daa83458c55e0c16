"""`python -m devstack.stripe --port N`"""

import argparse
import os
from pathlib import Path

import uvicorn

from devstack.ports import LOOPBACK
from devstack.stripe.account import Account, Clock
from devstack.stripe.app import build


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devstack.stripe")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--file", type=Path, help="where the account is saved")
    parser.add_argument("--webhook-url", help="an endpoint that is there from the beginning")
    parser.add_argument("--offset-seconds", type=int, default=0, help="of the clock")
    arguments = parser.parse_args()
    # The secret travels in the environment: a command line is readable to everyone on the machine.
    endpoint = (arguments.webhook_url, os.environ["QUOTAGATE_STRIPE_WEBHOOK_SECRET"]) if arguments.webhook_url else None
    account = Account(Clock(arguments.offset_seconds))
    account.settings["url"] = f"http://{LOOPBACK}:{arguments.port}"
    uvicorn.run(
        build(account, arguments.file, endpoint),
        host=LOOPBACK,
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
