"""Which proxy and which authorities the environment names, and what is said of those that cannot be used."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from forked_workers import ForkedCelery
from tls import make_certificates, openssl_is_there

from labelmill_worker.mistral.certificates import read_authorities
from labelmill_worker.mistral.client_config import UnusableConnection, read_client_config
from labelmill_worker.mistral.proxies import Proxy, proxy_for

MISTRAL = "https://api.mistral.ai"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"HTTPS_PROXY": "http://a"}, Proxy("http://a:80")),
        ({"HTTPS_PROXY": "https://a"}, Proxy("https://a:443")),
        ({"HTTPS_PROXY": "a:3128"}, Proxy("http://a:3128")),
        ({"HTTPS_PROXY": "u:p%40@a:3128/"}, Proxy("http://a:3128", "u", "p@")),
        ({"HTTPS_PROXY": "http://u@[::2]:3128"}, Proxy("http://[::2]:3128", "u", "")),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, Proxy("http://b:1")),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "socks5://b:1"}, Proxy("http://a:1")),
        ({"ALL_PROXY": "HTTP://a:1"}, Proxy("http://a:1")),
        ({"all_proxy": "http://a:1", "ALL_PROXY": "http://b:1"}, Proxy("http://a:1")),
    ],
)
def test_the_proxy_of_an_address(environment: dict[str, str], expected: Proxy | None) -> None:
    assert proxy_for(MISTRAL, environment) == expected


@pytest.mark.parametrize(
    ("url", "listed", "is_excepted"),
    [
        (MISTRAL, "*", True),
        (MISTRAL, "api.mistral.ai", True),
        (MISTRAL, "API.Mistral.AI", True),
        (MISTRAL, "mistral.ai", True),
        (MISTRAL, ".mistral.ai", True),
        (MISTRAL, "*.mistral.ai", True),
        (MISTRAL, "a, b mistral.ai:443", True),
        (MISTRAL, "mistral.ai:80", False),
        (MISTRAL, "stral.ai", False),
        (MISTRAL, "api", False),
        (MISTRAL, "10.0.0.0/8", False),
        ("https://10.1.2.3:8443", "10.0.0.0/8", True),
        ("https://10.1.2.3:8443", "10.1.2.3:8443", True),
        ("https://10.1.2.3:8443", "10.1.2.3:443", False),
        ("https://10.1.2.3", "10.1.2.4,192.168.0.0/16", False),
        ("https://10.1.2.3", "2.3,.3", False),
        ("https://[fd00::5]", "fd00::/8", True),
        ("https://[fd00::5]:9000", "[fd00::5]:9000", True),
        ("https://[fd00::5]", "[fd00::5]", True),
        ("https://[::ffff:10.1.2.3]", "10.0.0.0/8", True),
        ("http://127.0.0.1:1", "", True),
        ("http://localhost:1", "", True),
        ("http://[::1]:1", "", True),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_hosts_that_are_excepted(url: str, listed: str, is_excepted: bool, variable: str) -> None:
    found = proxy_for(url, {"ALL_PROXY": "http://proxy:1", variable: listed})
    assert (found is None) == is_excepted


_NOT_PROXIES = (
    "http://",
    "ftp://a:1",
    "http://a:x",
    "http://a:99999",
    "http://[::1",
    "http://a b:1",
    "http://a:0",
    "://a",
    "http://u:secret@",
    "http://a:1/path",
    "h\\ost:1",
)


@pytest.mark.parametrize("value", _NOT_PROXIES)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
def test_what_is_no_proxy_names_the_variable_and_no_password(value: str, variable: str) -> None:
    with pytest.raises(
        UnusableConnection, match=f"the environment variable {variable}: it is not the address of a proxy"
    ) as no:
        read_client_config(MISTRAL, 5, {variable: value})
    assert "secret" not in str(no.value)
    assert read_client_config("http://127.0.0.1:1", 5, {variable: value}).proxy is None  # nobody asks it


@pytest.mark.parametrize("value", ["socks5://u:secret@a:1", "socks5h://a", "SOCKS4://a:1", "socks://a"])
def test_socks_is_refused(value: str) -> None:
    with pytest.raises(
        UnusableConnection, match="the environment variable ALL_PROXY: SOCKS proxies are not supported"
    ) as no:
        read_client_config(MISTRAL, 5, {"ALL_PROXY": value})
    assert "secret" not in str(no.value)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_authorities_that_cannot_be_read_are_named(variable: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{variable}: .*gone.* cannot be read: No such file"):
        read_authorities({variable: str(tmp_path / "gone")})
    empty = tmp_path / "empty"
    if variable == "SSL_CERT_DIR":
        empty.mkdir()
    else:
        empty.write_text("-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match=f"{variable}: .*empty holds no certificate in PEM form"):
        read_authorities({variable: str(empty)})
    if variable == "SSL_CERT_FILE":
        with pytest.raises(ValueError, match=f"{variable}: .* cannot be read: Is a directory"):
            read_authorities({variable: str(tmp_path)})


def test_authorities_are_not_looked_for_where_nothing_is_encrypted() -> None:
    gone = {"SSL_CERT_FILE": "/nowhere/ca.pem"}
    read_client_config("http://127.0.0.1:1", 5, gone)
    for url, proxy in ((MISTRAL, ""), ("http://mistral.example", "https://proxy")):
        with pytest.raises(UnusableConnection, match="the environment variable SSL_CERT_FILE: /nowhere/"):
            read_client_config(url, 5, gone | {"ALL_PROXY": proxy})


def test_authorities_of_a_file_stand_for_the_systems_and_a_bundles_beside_them(tmp_path: Path) -> None:
    if not openssl_is_there():
        pytest.skip("there is no openssl to make certificates with")
    ours, theirs = (make_certificates(tmp_path / name).ca for name in ("ours", "theirs"))
    assert read_authorities({}) == read_authorities({"SSL_CERT_FILE": "", "SSL_CERT_DIR": "", "REQUESTS_CA_BUNDLE": ""})
    assert not read_authorities({"REQUESTS_CA_BUNDLE": str(ours)}).replace_system
    both = read_authorities({"SSL_CERT_FILE": str(ours), "REQUESTS_CA_BUNDLE": str(theirs)})
    assert (both.replace_system, len(both.certificates)) == (True, 2)
    assert len(both.context().get_ca_certs()) == 2


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("ALL_PROXY", "socks5h://user:secret@127.0.0.1:1", "ALL_PROXY: SOCKS proxies are not supported"),
        ("https_proxy", "http://proxy:port", "https_proxy: it is not the address of a proxy"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "SSL_CERT_FILE: /nowhere/ca.pem cannot be read"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem", "REQUESTS_CA_BUNDLE: /nowhere/ca.pem cannot be read"),
    ],
)
def test_a_worker_that_has_no_usable_way_to_mistral_ends_with_one_sentence(
    sqlite_template: Path, redis_url: str, tmp_path: Path, variable: str, value: str, sentence: str
) -> None:
    shutil.copy(sqlite_template, "jobs.db")
    environment = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {
        "LABELMILL_DATABASE_URL": "sqlite:///jobs.db",
        "LABELMILL_BROKER_URL": redis_url,
        variable: value,
        "LABELMILL_MISTRAL_URL": MISTRAL,
    }
    command = ["-A", "labelmill_worker.app", "worker", "-Q", "classify", "-c", "1"]
    ended = ForkedCelery(command, environment, tmp_path / "log", Path.cwd())
    code, said = ended.wait(60), (tmp_path / "log").read_text()
    assert code == 2, said
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert sentence in line
    assert "Traceback" not in said
    assert "secret" not in said
