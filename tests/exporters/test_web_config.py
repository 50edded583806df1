"""TLS, client certificates, users and headers, as a file in the format of Prometheus' exporters asks for them."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import httpx
import pytest

from infermeter_exporters import web_config
from infermeter_exporters.errors import ConfigError
from tests.exporters.certificates import Authority
from tests.prometheus.conftest import ask, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.exporters.conftest import Served

INVALID = sorted(Path(__file__).with_name("invalid").glob("web-*.yml"))
FLAG = "--web.config.file={}"


def hashed(password: str) -> str:
    """A hash that is quick to check."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signed the certificate `server`."""
    made = Authority(tmp_path / "tls")
    made.sign("server")
    return made


def written(folder: Path, text: str) -> Path:
    """A file."""
    path = folder / "web.yml"
    path.write_text(text)
    return path


def trusting(authority: Authority, *, cert: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """How a client connects that knows the authority."""
    made = ssl.create_default_context(cafile=str(authority.path))
    if cert is not None:
        made.load_cert_chain(*map(str, cert))
    return made


TLS = "tls_server_config:\n  cert_file: tls/server.pem\n  key_file: tls/server.key\n"


@pytest.mark.parametrize("path", INVALID, ids=[path.stem for path in INVALID])
def test_what_cannot_work(path: Path) -> None:
    """Is one sentence with the file, the key, the value, and what was expected: the first line of each file."""
    expected = path.read_text().splitlines()[0].removeprefix("# ")
    with pytest.raises(ConfigError) as caught:
        web_config.load(str(path))
    assert str(path.parent) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    """Ask for nothing; one that is not there is an error."""
    assert web_config.load("") == web_config.WebConfig()
    assert web_config.load(str(written(tmp_path, ""))) == web_config.WebConfig()
    with pytest.raises(ConfigError, match=r"none\.yml cannot be read: No such file or directory"):
        web_config.load(str(tmp_path / "none.yml"))


def test_a_wrong_file_stops_the_start(serving: Callable[..., Served], tmp_path: Path) -> None:
    """With code 2 and one sentence."""
    path = written(tmp_path, "basic_auth_users: {alice: secret}\n")
    served = serving(FLAG.format(path))
    assert served.ended() == 2
    assert served.said == (
        f"watched: {path}: basic_auth_users.alice is no bcrypt hash, expected what htpasswd -nB prints, from $2 on\n"
    )


def test_tls(serving: Callable[..., Served], tmp_path: Path, authority: Authority) -> None:
    """Paths are relative to the file; plain HTTP gets nothing."""
    served = serving(FLAG.format(written(tmp_path, TLS)))
    assert served.url.startswith("https://")
    assert httpx.get(served.url + "/metrics", verify=trusting(authority)).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(served.url + "/metrics", verify=trusting(Authority(tmp_path / "other")))
    with pytest.raises(httpx.TransportError):
        httpx.get(served.url.replace("https", "http") + "/metrics")
    assert httpx.get(served.url + "/metrics", verify=trusting(authority)).status_code == 200


@pytest.mark.parametrize(("kind", "without"), [("RequireAndVerifyClientCert", 0), ("VerifyClientCertIfGiven", 200)])
def test_client_certificates(
    serving: Callable[..., Served], tmp_path: Path, authority: Authority, kind: str, without: int
) -> None:
    """Must be of the authority; whether they must be at all is asked for."""
    tls = f"{TLS}  client_ca_file: tls/ca.pem\n  client_auth_type: {kind}\n"
    served = serving(FLAG.format(written(tmp_path, tls)))
    stranger = Authority(tmp_path / "other")

    def asked(cert: tuple[Path, Path] | None) -> int:
        try:
            return httpx.get(served.url + "/metrics", verify=trusting(authority, cert=cert)).status_code
        except httpx.TransportError:
            return 0

    assert asked(authority.sign("client")) == 200
    assert asked(None) == without
    assert asked(stranger.sign("client")) == 0


def test_versions_and_ciphers(serving: Callable[..., Served], tmp_path: Path, authority: Authority) -> None:
    """Others are refused."""
    more = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n"
    served = serving(FLAG.format(written(tmp_path, f"{TLS}{more}  curve_preferences: [CurveP256]\n")))

    def spoken(least: ssl.TLSVersion) -> tuple[str | None, str]:
        context = trusting(authority)
        context.minimum_version = least
        with (
            socket.create_connection(("127.0.0.1", served.port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            cipher = secured.cipher()
            assert cipher is not None
            return secured.version(), cipher[0]

    assert spoken(ssl.TLSVersion.TLSv1_2) == ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
    with pytest.raises(ssl.SSLError):
        spoken(ssl.TLSVersion.TLSv1_3)


def test_a_renewed_certificate(serving: Callable[..., Served], tmp_path: Path, authority: Authority) -> None:
    """Is used by the next connection; half of one is not."""
    served = serving(FLAG.format(written(tmp_path, TLS)))

    def serial() -> int:
        with (
            socket.create_connection(("127.0.0.1", served.port)) as plain,
            trusting(authority).wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            found = secured.getpeercert()
            assert found is not None
            return int(str(found["serialNumber"]), 16)

    first = serial()
    assert serial() == first
    cert, key = authority.sign("server")
    second = serial()
    assert second != first
    whole = key.read_text()
    key.write_text("half")
    assert serial() == second
    key.write_text(whole)
    assert serial() == second
    assert cert.exists()


def test_users(serving: Callable[..., Served], tmp_path: Path) -> None:
    """Must have the right password, for every page; headers are those of the file."""
    path = written(
        tmp_path,
        f"basic_auth_users:\n  alice: {hashed('right')}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}\n",
    )
    served = serving(FLAG.format(path))

    def asked(auth: tuple[str, str] | None, page: str = "/metrics") -> int:
        return httpx.get(served.url + page, auth=auth).status_code

    assert [asked(("alice", "right"), page) for page in ("/metrics", "/", "/-/healthy", "/-/ready")] == [200] * 4
    assert [asked(auth) for auth in (("alice", "wrong"), ("bob", "right"), ("", ""), None)] == [401] * 4
    assert [asked(("alice", "right")), asked(("alice", "wrong"))] == [200, 401]
    refused = httpx.get(served.url + "/metrics")
    assert refused.headers["www-authenticate"] == 'Basic realm="infermeter"'
    assert refused.headers["x-frame-options"] == "deny"
    for header in ("Basic", "Basic !!!", "Basic YQ==", "Bearer abc", "basic " + "A" * 5000):
        assert httpx.get(served.url + "/metrics", headers={"Authorization": header}).status_code == 401


def test_users_may_change(serving: Callable[..., Served], tmp_path: Path) -> None:
    """At SIGHUP; a file that is wrong then locks nobody out, and lets nobody in."""
    path = written(tmp_path, f"basic_auth_users: {{alice: {hashed('old')}}}\n")
    served = serving(FLAG.format(path))

    def asked(password: str) -> int:
        return httpx.get(served.url + "/metrics", auth=("alice", password)).status_code

    assert [asked("old"), asked("new")] == [200, 401]
    written(tmp_path, f"basic_auth_users: {{alice: {hashed('new')}}}\n")
    served.signal(signal.SIGHUP)
    served.until(lambda: "the configuration was read again" in served.said)
    assert [asked("old"), asked("new")] == [401, 200]
    written(tmp_path, "basic_auth_users: {alice: new}\n")
    served.signal(signal.SIGHUP)
    served.until(lambda: "the configuration stays as it was" in served.said)
    assert [asked("old"), asked("new")] == [401, 200]


def test_prometheus_scrapes_it(
    serving: Callable[..., Served], tmp_path: Path, authority: Authority, program: str
) -> None:
    """Over TLS, with a client certificate and a password."""
    more = "  client_ca_file: tls/ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n"
    served = serving(
        FLAG.format(written(tmp_path, f"{TLS}{more}basic_auth_users: {{prometheus: {hashed('right')}}}\n"))
    )
    cert, key = authority.sign("prometheus")
    (tmp_path / "prometheus").mkdir()
    job = (
        f"  - job_name: watched\n    scheme: https\n    static_configs: [{{targets: ['127.0.0.1:{served.port}']}}]\n"
        f"    basic_auth: {{username: prometheus, password: right}}\n"
        f"    tls_config: {{ca_file: {authority.path}, cert_file: {cert}, key_file: {key}}}\n"
    )
    with (
        running(program, tmp_path / "prometheus", job) as address,
        httpx.Client(base_url=f"http://{address}", trust_env=False) as client,
    ):
        served.until(lambda: ask(client, "up"))
        [up] = ask(client, "up")
        things = ask(client, 'things_total{kind="e"}')
    assert (up["value"][1], [one["value"][1] for one in things]) == ("1", ["2"])
