"""The settings that `quotagate up` makes for the control plane."""

from importlib import resources

import yaml

from control.settings.portal import CustomerSignIn
from devstack.portal_sign_in import with_sign_in


def test_the_sample_provider_is_the_only_difference_to_the_packaged_settings() -> None:
    packaged = resources.files("config").joinpath("control.yaml").read_text(encoding="utf-8")
    was, is_ = yaml.safe_load(packaged), yaml.safe_load(with_sign_in(packaged, "http://127.0.0.1:1234"))
    sign_in = is_["portal"].pop("sign_in")
    assert was["portal"].pop("sign_in") is None
    assert was == is_
    assert CustomerSignIn.model_validate(sign_in).organization_claim == "org_id"
