import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.access.activation.domains import DomainInvalid, Uncounted, packaged, read_domain


@pytest.mark.parametrize(
    "text",
    [
        "example.com",
        "EXAMPLE.COM",
        "example.com.",
        "www.example.com",
        "WWW.Example.com",
        "http://example.com",
        "https://www.example.com/",
        "https://example.com:8443/blog/?p=1#top",
        "//example.com/wp",
        "example.com:8080",
        "example.com/wordpress",
        " https://example.com ",
        "https://admin:secret@example.com/wp-admin",
    ],
)
def test_scheme_port_path_case_www_and_the_last_dot_make_no_other_site(text: str) -> None:
    domain = read_domain(text, packaged())
    assert (domain.name, domain.counted) == ("example.com", True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("München.example.de", "xn--mnchen-3ya.example.de"),
        ("MÜNCHEN.example.de", "xn--mnchen-3ya.example.de"),
        ("xn--mnchen-3ya.example.de", "xn--mnchen-3ya.example.de"),
        ("münchen。example。de", "xn--mnchen-3ya.example.de"),
        ("straße.example.com", "xn--strae-oqa.example.com"),
        ("www.co.uk", "co.uk"),
        ("shop_1.example.com", "shop_1.example.com"),
        ("203.0.114.7:8080", "203.0.114.7"),
        ("[2A01:4F8::1]:443", "2a01:4f8::1"),
        ("2a01:4f8:0::1", "2a01:4f8::1"),
    ],
)
def test_an_international_name_and_an_address_have_one_spelling(text: str, name: str) -> None:
    domain = read_domain(text, packaged())
    assert (domain.name, domain.counted) == (name, True)


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "http://localhost:8000/wp",
        "127.0.0.1:8080",
        "[::1]",
        "10.1.2.3",
        "172.16.0.9",
        "192.168.178.20",
        "169.254.1.1",
        "::ffff:10.0.0.1",
        "fd00::12",
        "wordpress",
        "shop.test",
        "shop.local",
        "shop.localhost",
        "shop.example",
        "shop.invalid",
        "staging.example.com",
        "staging2.example.com",
        "stage-2.example.com",
        "dev.example.com",
        "test-shop.example.co.uk",
        "www.staging.example.com",
        "mysite.wpengine.com",
        "mysite.wpenginepowered.com",
        "mysite.kinsta.cloud",
        "dev-mysite.pantheonsite.io",
        "mysite.flywheelsites.com",
        "wordpress-1-2.cloudwaysapps.com",
        "mysite.azurewebsites.net",
        "abc.123.myftpupload.com",
        "1f2e.ngrok.io",
        "1f2e.ngrok-free.app",
        "mysite.instawp.xyz",
        "mysite.instawp.co",
        "mysite.tastewp.com",
        "mysite.sg-host.com",
        "mysite.onrocket.site",
        "mysite.pressdns.com",
        "mysite.closte.com",
        "mysite.runcloud.link",
        "mysite.ddev.site",
        "mysite.lndo.site",
        "mysite.local.site",
    ],
)
def test_radio_station_472_localhost_staging_and_hosts_staging_domains_do_not_count(text: str) -> None:
    """https://github.com/netmix/radio-station/issues/472, and Freemius' and EDD's lists of such domains."""
    assert not read_domain(text, packaged()).counted


@pytest.mark.parametrize(
    "text",
    [
        "dev.to",
        "test.com",
        "staging.io",
        "test.co.uk",
        "wpengine.com",
        "kinsta.com",
        "devices.example.com",
        "dev.email",
    ],
)
def test_a_whole_domain_counts_though_its_name_sounds_like_a_test(text: str) -> None:
    assert read_domain(text, packaged()).counted


@pytest.mark.parametrize(
    "text",
    ["", " ", "http://", "https:///path", "ex ample.com", "exa\nmple.com", "-a.com", "a..b.com", "a" * 64 + ".com",
     ".".join(["abcdefgh"] * 40), "127.1", "0x7f.1", "2130706433.1", "http://[::1", "example.com:port", "\x00.com",
     "xn--a-\u00e4.com", "x" * 3000, "a.com:99999"],
)  # fmt: skip
def test_what_names_no_host_is_refused(text: str) -> None:
    with pytest.raises(DomainInvalid):
        read_domain(text, packaged())


def test_patterns_of_a_code_add_to_those_of_the_package() -> None:
    more = packaged().add(["*.preview.example.com", "try.example.org", "beta.*"])
    for uncounted in ("a.preview.example.com", "try.example.org", "beta.example.net", "beta3.example.net", "a.test"):
        assert not read_domain(uncounted, more).counted, uncounted
    for counted in ("preview.example.com", "a.try.example.org", "example.org", "beta.com"):
        assert read_domain(counted, more).counted, counted
    assert read_domain("try.example.org", packaged()).counted


@given(st.text(max_size=40) | st.from_regex(r"[a-zA-Zäß.:/@\[\]-]{0,30}"))
def test_a_domain_that_was_read_reads_as_itself_and_nothing_else_is_raised(text: str) -> None:
    try:
        domain = read_domain(text, Uncounted())
    except DomainInvalid:
        return
    assert read_domain(domain.name, Uncounted()) == domain
    assert domain.name.isascii()
    assert domain.name == domain.name.lower()
