"""`python -m devstack.oidc --port N --file directory.json`"""

import argparse
from pathlib import Path

import uvicorn

from devstack import oidc_process
from devstack.oidc.app import build
from devstack.ports import LOOPBACK


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devstack.oidc")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True, help="clients and people")
    arguments = parser.parse_args()
    uvicorn.run(
        build(oidc_process.url(arguments.port), arguments.file),
        host=LOOPBACK,
        port=arguments.port,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
