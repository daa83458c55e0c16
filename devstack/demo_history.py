"""The demo history of a data directory: it is played once, before anything else is there."""

import asyncio
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from devstack import demo
from devstack.child import StackError
from devstack.datadir import DataDirectory, write_private

PLANS = Path(__file__).parent / "history" / "plans.yaml"


@dataclass(frozen=True)
class DemoHistory:
    data: DataDirectory

    @property
    def is_there(self) -> bool:
        return self.data.history_file.exists()

    @property
    def plans(self) -> tuple[Path | None, ...]:
        """The files of the catalogue: who began with a history goes on with its plans."""
        return (None, demo.PLANS, PLANS) if self.is_there else (None, demo.PLANS)

    def begun(self) -> "DemoHistory":
        """Raises `StackError` where the directory has been used without one, or a history was not played to its end."""
        if (self.data.path / "valkey").exists() or self.data.stripe_file.exists():
            raise StackError(
                f"{self.data.path} holds data already, and a history is played into an empty directory only: "
                "choose another --data-dir"
            )
        return self

    def play(self, dsn: str) -> None:
        """Takes less than a minute. Raises StoreUnavailable."""
        from devstack.history.build import Extent, build  # the control plane with all that it needs

        plans = (None, demo.PLANS, PLANS)
        told = asyncio.run(build(dsn, self.data.stripe_file, Extent(int(time.time())), *plans))
        write_private(self.data.history_file, asdict(told))
