"""Products, prices, coupons and promotion codes."""

from decimal import Decimal
from typing import Any

from devstack.stripe.account import Account, Object, RequestRefused
from devstack.stripe.dispatch import listing, route


@route("POST", "/v1/products", "ProductCreateParams")
def create_product(account: Account, params: Object) -> Object:
    product_id = params.get("id") or account.new_id("prod")
    if product_id in account.objects.get("product", {}):
        raise RequestRefused(f"Product already exists: {product_id}", code="resource_already_exists", param="id")
    now = account.clock.now()
    product = account.add(
        {
            "id": product_id,
            "object": "product",
            "active": params.get("active", True),
            "created": now,
            "default_price": None,
            "description": params.get("description"),
            "images": [],
            "livemode": False,
            "marketing_features": [],
            "metadata": params.get("metadata") or {},
            "name": params["name"],
            "package_dimensions": None,
            "shippable": None,
            "statement_descriptor": params.get("statement_descriptor"),
            "tax_code": params.get("tax_code"),
            "tax_details": None,
            "type": "service",
            "unit_label": None,
            "updated": now,
            "url": None,
        }
    )
    account.emit("product.created", product)
    return product


@route("GET", "/v1/products/{product}", "ProductRetrieveParams")
def retrieve_product(account: Account, params: Object, product: str) -> Object:
    return account.get("product", product)


@route("POST", "/v1/products/{product}", "ProductUpdateParams")
def update_product(account: Account, params: Object, product: str) -> Object:
    found = account.get("product", product)
    if params.get("default_price"):
        account.get("price", params["default_price"])
    found["metadata"].update(params.pop("metadata", None) or {})
    found.update({name: value for name, value in params.items() if name in found}, updated=account.clock.now())
    account.emit("product.updated", found)
    return found


@route("GET", "/v1/products", "ProductListParams")
def list_products(account: Account, params: Object) -> Object:
    ids = params.get("ids")
    found = (each for each in account.find("product", active=params.get("active")) if ids is None or each["id"] in ids)
    return listing(found, params, "/v1/products")


@route("POST", "/v1/prices", "PriceCreateParams")
def create_price(account: Account, params: Object) -> Object:
    product: Any = params.get("product")
    if product is None:
        if "product_data" not in params:
            raise RequestRefused("Missing required param: product.", code="parameter_missing", param="product")
        product = create_product(account, params["product_data"])["id"]
    account.get("product", product)
    recurring = params.get("recurring")
    usage_type = (recurring or {}).get("usage_type", "licensed")
    if usage_type == "metered":
        if not recurring or not recurring.get("meter"):
            raise RequestRefused(
                "A metered price needs recurring[meter].", code="parameter_missing", param="recurring[meter]"
            )
        account.get("billing.meter", recurring["meter"])
    unit_amount, unit_amount_decimal = _unit_amount(params)
    if unit_amount_decimal is None and params.get("billing_scheme") != "tiered":
        raise RequestRefused("Missing required param: unit_amount.", code="parameter_missing", param="unit_amount")
    price: Object = {
        "id": account.new_id("price"),
        "object": "price",
        "active": params.get("active", True),
        "billing_scheme": params.get("billing_scheme", "per_unit"),
        "created": account.clock.now(),
        "currency": params["currency"],
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": params.get("metadata") or {},
        "nickname": params.get("nickname"),
        "product": product,
        "recurring": recurring
        and {
            "interval": recurring["interval"],
            "interval_count": recurring.get("interval_count", 1),
            "meter": recurring.get("meter"),
            "trial_period_days": None,
            "usage_type": usage_type,
        },
        "tax_behavior": params.get("tax_behavior", "unspecified"),
        "tiers_mode": params.get("tiers_mode"),
        "transform_quantity": params.get("transform_quantity"),
        "type": "recurring" if recurring else "one_time",
        "unit_amount": unit_amount,
        "unit_amount_decimal": unit_amount_decimal,
    }
    if params.get("tiers"):
        price["tiers"] = [_tier(each) for each in params["tiers"]]
    _take_lookup_key(account, price, params)
    account.add(price)
    account.emit("price.created", price)
    return price


@route("GET", "/v1/prices/{price}", "PriceRetrieveParams")
def retrieve_price(account: Account, params: Object, price: str) -> Object:
    return account.get("price", price)


@route("POST", "/v1/prices/{price}", "PriceUpdateParams")
def update_price(account: Account, params: Object, price: str) -> Object:
    found = account.get("price", price)
    _take_lookup_key(account, found, params)
    found["metadata"].update(params.pop("metadata", None) or {})
    for name in ("active", "nickname", "tax_behavior"):
        if name in params:
            found[name] = params[name]
    account.emit("price.updated", found)
    return found


@route("GET", "/v1/prices", "PriceListParams")
def list_prices(account: Account, params: Object) -> Object:
    keys = params.get("lookup_keys")
    found = (
        each
        for each in account.find(
            "price",
            product=params.get("product"),
            active=params.get("active"),
            currency=params.get("currency"),
            type=params.get("type"),
        )
        if keys is None or each["lookup_key"] in keys
    )
    return listing(found, params, "/v1/prices")


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


@route("GET", "/v1/coupons/{coupon}", "CouponRetrieveParams")
def retrieve_coupon(account: Account, params: Object, coupon: str) -> Object:
    return account.get("coupon", coupon)


@route("DELETE", "/v1/coupons/{coupon}")
def delete_coupon(account: Account, params: Object, coupon: str) -> Object:
    account.emit("coupon.deleted", account.get("coupon", coupon))
    del account.objects["coupon"][coupon]
    return {"id": coupon, "object": "coupon", "deleted": True}


@route("POST", "/v1/promotion_codes", "PromotionCodeCreateParams")
def create_promotion_code(account: Account, params: Object) -> Object:
    coupon = account.get("coupon", params["promotion"].get("coupon", ""))
    code = params.get("code") or account.new_id("")[1:9].upper()
    if any(each["active"] and each["code"].lower() == code.lower() for each in account.find("promotion_code")):
        raise RequestRefused(f"An active promotion code with `code: {code}` already exists.", param="code")
    made = account.add(
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
    account.emit("promotion_code.created", made)
    return made


@route("GET", "/v1/promotion_codes", "PromotionCodeListParams")
def list_promotion_codes(account: Account, params: Object) -> Object:
    code = params.get("code")
    found = (
        each
        for each in account.find("promotion_code", active=params.get("active"))
        if code is None or each["code"].lower() == code.lower()
    )
    return listing(found, params, "/v1/promotion_codes")


def plan_of(price: Object) -> Object:
    """A price as the older plan that items show beside it."""
    recurring = price["recurring"]
    transform = price["transform_quantity"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": False,
        "metadata": price["metadata"],
        "meter": recurring["meter"],
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": transform,
        "trial_period_days": None,
        "usage_type": recurring["usage_type"],
    }


def redeemed(account: Account, wanted: Object, subscription: str | None = None) -> Object:
    """A discount out of {coupon}, {promotion_code} or {discount}, the first two counted as redeemed.

    Raises RequestRefused."""
    if wanted.get("discount"):  # one that there is goes on
        return account.get("discount", wanted["discount"])
    code = account.get("promotion_code", wanted["promotion_code"]) if wanted.get("promotion_code") else None
    coupon = account.get("coupon", code["promotion"]["coupon"] if code else wanted.get("coupon", ""))
    now = account.clock.now()
    for each, ends in ((coupon, coupon["redeem_by"]), *([(code, code["expires_at"])] if code else [])):
        limit = each["max_redemptions"]
        if (limit is not None and each["times_redeemed"] >= limit) or (ends is not None and now >= ends):
            raise RequestRefused(
                "This coupon or promotion code is not valid any more.", code="coupon_expired", param="discounts"
            )
    if code is not None and not code["active"]:
        raise RequestRefused("This promotion code is not active.", param="discounts")
    coupon["times_redeemed"] += 1
    if code is not None:
        code["times_redeemed"] += 1
    months = coupon["duration_in_months"]
    return account.add(
        {
            "id": account.new_id("di"),
            "object": "discount",
            "checkout_session": None,
            "customer": None,
            "customer_account": None,
            "end": now + months * 2_629_800 if months else None,
            "invoice": None,
            "invoice_item": None,
            "promotion_code": code and code["id"],
            "source": {"type": "coupon", "coupon": coupon["id"]},
            "start": now,
            "subscription": subscription,
            "subscription_item": None,
        }
    )


def _unit_amount(params: Object) -> tuple[int | None, str | None]:
    if "unit_amount" in params:
        return params["unit_amount"], str(params["unit_amount"])
    if "unit_amount_decimal" in params:
        exact = Decimal(params["unit_amount_decimal"])
        return (int(exact) if exact == int(exact) else None), format(exact.normalize(), "f")
    return None, None


def _tier(given: Object) -> Object:
    unit_amount, exact = _unit_amount(given)
    up_to = given["up_to"]
    return {
        "flat_amount": given.get("flat_amount"),
        "flat_amount_decimal": None,
        "unit_amount": unit_amount,
        "unit_amount_decimal": exact,
        "up_to": None if up_to == "inf" else up_to,
    }


def _take_lookup_key(account: Account, price: Object, params: Object) -> None:
    key, transfer = params.get("lookup_key"), params.get("transfer_lookup_key")
    if key is None:
        return
    for other in account.find("price", lookup_key=key):
        if other["id"] != price["id"]:
            if not transfer:
                message = (
                    f"A price ({other['id']}) already uses that lookup key. Use transfer_lookup_key to take it over."
                )
                raise RequestRefused(message, code="resource_already_exists", param="lookup_key")
            other["lookup_key"] = None
    price["lookup_key"] = key
