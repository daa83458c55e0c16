from tests.control.billing.shop import (
    double,
    settings,
    shop,
    shop_clock,
    webhook_attempts_max,
)

__all__ = ["double", "settings", "shop", "shop_clock", "webhook_attempts_max"]
