from tests.control.access.issuing.rig import settings

__all__ = ["settings"]
