"""Coupons and promotion codes, and the discounts that come of them."""

from collections.abc import Iterable

from devstack.stripe.account import Account, Object, RequestRefused, unused
from devstack.stripe.dispatch import listing, route

MONTH_SECONDS = 2_629_800  # on average


def redeem(account: Account, params: Object, subscription_id: str | None = None) -> Object:
    """A discount of {coupon}, {promotion_code} or {discount}, the first two counted as redeemed.

    Raises RequestRefused."""
    if params.get("discount"):  # one that exists goes on
        return account.get("discount", params["discount"])
    code = account.get("promotion_code", params["promotion_code"]) if params.get("promotion_code") else None
    coupon = account.get("coupon", code["promotion"]["coupon"] if code else params.get("coupon", ""))
    now = account.clock.now()
    _check_redeemable(coupon, coupon["redeem_by"], now)
    if code is not None:
        _check_redeemable(code, code["expires_at"], now)
        if not code["active"]:
            raise RequestRefused("This promotion code is not active.", param="discounts")
        code["times_redeemed"] += 1
    coupon["times_redeemed"] += 1
    months = coupon["duration_in_months"]
    return account.add(
        {
            "id": account.new_id("di"),
            "object": "discount",
            "end": now + months * MONTH_SECONDS if months else None,
            "promotion_code": code and code["id"],
            "source": {"type": "coupon", "coupon": coupon["id"]},
            "start": now,
            "subscription": subscription_id,
            **unused("checkout_session customer customer_account invoice invoice_item subscription_item"),
        }
    )


def redeem_all(account: Account, wanted: Iterable[Object], subscription_id: str) -> list[str]:
    """The ids of the discounts. Raises RequestRefused."""
    return [redeem(account, each, subscription_id)["id"] for each in wanted]


def drop_spent(account: Account, subscription: Object) -> None:
    """After an invoice: discounts of a coupon for one invoice go, and those whose months are over."""

    def lasts(discount_id: str) -> bool:
        discount = account.get("discount", discount_id)
        coupon = account.get("coupon", discount["source"]["coupon"])
        return coupon["duration"] == "forever" or bool(discount["end"] and discount["end"] > account.clock.now())

    subscription["discounts"] = [each for each in subscription["discounts"] if lasts(each)]


def drop_ended(account: Account, subscription: Object) -> None:
    """Before an invoice: a discount whose months are over takes nothing off it."""
    now = account.clock.now()
    ends = {each: account.get("discount", each)["end"] for each in subscription["discounts"]}
    subscription["discounts"] = [each for each, end in ends.items() if end is None or end > now]


def _check_redeemable(coupon_or_code: Object, valid_until: int | None, now: int) -> None:
    """Raises RequestRefused."""
    limit = coupon_or_code["max_redemptions"]
    used_up = limit is not None and coupon_or_code["times_redeemed"] >= limit
    if used_up or (valid_until is not None and now >= valid_until):
        raise RequestRefused(
            "This coupon or promotion code is not valid any more.", code="coupon_expired", param="discounts"
        )


@route("POST", "/v1/coupons", "CouponCreateParams")
def create_coupon(account: Account, params: Object) -> Object:
    if ("percent_off" in params) == ("amount_off" in params):
        raise RequestRefused("You must pass exactly one of percent_off and amount_off.", param="percent_off")
    coupon_id = params.get("id") or account.new_id("")[1:9]
    if coupon_id in account.objects.get("coupon", {}):
        raise RequestRefused("Coupon already exists.", code="resource_already_exists", param="id")
    coupon = account.add(
        {
            "id": coupon_id,
            "object": "coupon",
            "amount_off": params.get("amount_off"),
            "created": account.clock.now(),
            "currency": params.get("currency"),
            "duration": params.get("duration", "once"),
            "duration_in_months": params.get("duration_in_months"),
            "livemode": False,
            "max_redemptions": params.get("max_redemptions"),
            "metadata": params.get("metadata") or {},
            "name": params.get("name"),
            "percent_off": params.get("percent_off"),
            "redeem_by": params.get("redeem_by"),
            "times_redeemed": 0,
            "valid": True,
        }
    )
    account.emit("coupon.created", coupon)
    return coupon


@route("GET", "/v1/coupons", "CouponListParams")
def list_coupons(account: Account, params: Object) -> Object:
    return listing(account.find("coupon"), params, "/v1/coupons")


@route("GET", "/v1/coupons/{coupon_id}", "CouponRetrieveParams")
def retrieve_coupon(account: Account, params: Object, coupon_id: str) -> Object:
    return account.get("coupon", coupon_id)


@route("DELETE", "/v1/coupons/{coupon_id}")
def delete_coupon(account: Account, params: Object, coupon_id: str) -> Object:
    account.emit("coupon.deleted", account.get("coupon", coupon_id))
    del account.objects["coupon"][coupon_id]
    return {"id": coupon_id, "object": "coupon", "deleted": True}


@route("POST", "/v1/promotion_codes", "PromotionCodeCreateParams")
def create_promotion_code(account: Account, params: Object) -> Object:
    coupon = account.get("coupon", params["promotion"].get("coupon", ""))
    code = params.get("code") or account.new_id("")[1:9].upper()
    if any(each["active"] and each["code"].lower() == code.lower() for each in account.find("promotion_code")):
        raise RequestRefused(f"An active promotion code with `code: {code}` already exists.", param="code")
    promotion_code = account.add(
        {
            "id": account.new_id("promo"),
            "object": "promotion_code",
            "active": params.get("active", True),
            "code": code,
            "created": account.clock.now(),
            "customer": params.get("customer"),
            "customer_account": None,
            "expires_at": params.get("expires_at"),
            "livemode": False,
            "max_redemptions": params.get("max_redemptions"),
            "metadata": params.get("metadata") or {},
            "promotion": {"type": "coupon", "coupon": coupon["id"]},
            "restrictions": {"first_time_transaction": False, "minimum_amount": None, "minimum_amount_currency": None},
            "times_redeemed": 0,
        }
    )
    account.emit("promotion_code.created", promotion_code)
    return promotion_code


@route("GET", "/v1/promotion_codes", "PromotionCodeListParams")
def list_promotion_codes(account: Account, params: Object) -> Object:
    code = params.get("code")
    promotion_codes = (
        each
        for each in account.find("promotion_code", active=params.get("active"))
        if code is None or each["code"].lower() == code.lower()
    )
    return listing(promotion_codes, params, "/v1/promotion_codes")
