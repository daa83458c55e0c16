"""Products and prices."""

from decimal import Decimal

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


@route("GET", "/v1/products/{product_id}", "ProductRetrieveParams")
def retrieve_product(account: Account, params: Object, product_id: str) -> Object:
    return account.get("product", product_id)


@route("POST", "/v1/products/{product_id}", "ProductUpdateParams")
def update_product(account: Account, params: Object, product_id: str) -> Object:
    product = account.get("product", product_id)
    if params.get("default_price"):
        account.get("price", params["default_price"])
    product["metadata"].update(params.pop("metadata", None) or {})
    product.update({name: value for name, value in params.items() if name in product}, updated=account.clock.now())
    account.emit("product.updated", product)
    return product


@route("GET", "/v1/products", "ProductListParams")
def list_products(account: Account, params: Object) -> Object:
    ids = params.get("ids")
    products = account.find("product", active=params.get("active"))
    return listing((each for each in products if ids is None or each["id"] in ids), params, "/v1/products")


@route("POST", "/v1/prices", "PriceCreateParams")
def create_price(account: Account, params: Object) -> Object:
    product_id = _product_of_price(account, params)
    recurring = _recurring(account, params.get("recurring"))
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
        "product": product_id,
        "recurring": recurring,
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


@route("GET", "/v1/prices/{price_id}", "PriceRetrieveParams")
def retrieve_price(account: Account, params: Object, price_id: str) -> Object:
    return account.get("price", price_id)


@route("POST", "/v1/prices/{price_id}", "PriceUpdateParams")
def update_price(account: Account, params: Object, price_id: str) -> Object:
    price = account.get("price", price_id)
    _take_lookup_key(account, price, params)
    price["metadata"].update(params.pop("metadata", None) or {})
    for name in ("active", "nickname", "tax_behavior"):
        if name in params:
            price[name] = params[name]
    account.emit("price.updated", price)
    return price


@route("GET", "/v1/prices", "PriceListParams")
def list_prices(account: Account, params: Object) -> Object:
    keys = params.get("lookup_keys")
    prices = account.find(
        "price",
        product=params.get("product"),
        active=params.get("active"),
        currency=params.get("currency"),
        type=params.get("type"),
    )
    return listing((each for each in prices if keys is None or each["lookup_key"] in keys), params, "/v1/prices")


def plan_of(price: Object) -> Object:
    """A price as the older plan that items show beside it."""
    recurring = price["recurring"]
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
        "transform_usage": price["transform_quantity"],
        "trial_period_days": None,
        "usage_type": recurring["usage_type"],
    }


def _product_of_price(account: Account, params: Object) -> str:
    """The product that is named, or made with the price. Raises RequestRefused."""
    product_id: str | None = params.get("product")
    if product_id is None:
        if "product_data" not in params:
            raise RequestRefused("Missing required param: product.", code="parameter_missing", param="product")
        product_id = create_product(account, params["product_data"])["id"]
    account.get("product", product_id)
    return product_id


def _recurring(account: Account, params: Object | None) -> Object | None:
    """How often a price is due, and by what; None for a price that is due once. Raises RequestRefused."""
    if not params:
        return params
    usage_type = params.get("usage_type", "licensed")
    if usage_type == "metered":
        if not params.get("meter"):
            raise RequestRefused(
                "A metered price needs recurring[meter].", code="parameter_missing", param="recurring[meter]"
            )
        account.get("billing.meter", params["meter"])
    return {
        "interval": params["interval"],
        "interval_count": params.get("interval_count", 1),
        "meter": params.get("meter"),
        "trial_period_days": None,
        "usage_type": usage_type,
    }


def _unit_amount(params: Object) -> tuple[int | None, str | None]:
    if "unit_amount" in params:
        return params["unit_amount"], str(params["unit_amount"])
    if "unit_amount_decimal" in params:
        exact = Decimal(params["unit_amount_decimal"])
        return (int(exact) if exact == int(exact) else None), format(exact.normalize(), "f")
    return None, None


def _tier(params: Object) -> Object:
    unit_amount, unit_amount_decimal = _unit_amount(params)
    up_to = params["up_to"]
    return {
        "flat_amount": params.get("flat_amount"),
        "flat_amount_decimal": None,
        "unit_amount": unit_amount,
        "unit_amount_decimal": unit_amount_decimal,
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
