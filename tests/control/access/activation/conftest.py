from tests.control.access.activation.site import sites
from tests.control.access.issuing.rig import settings

__all__ = ["settings", "sites"]
