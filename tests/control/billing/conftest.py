from tests.control.billing.shop import (
    double,
    settings,
    shop,
)

__all__ = ["double", "settings", "shop"]
