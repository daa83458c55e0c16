from tests.control.billing.shop import (
    double,
    settings,
    shop,
    shop_clock,
)

__all__ = ["double", "settings", "shop", "shop_clock"]
