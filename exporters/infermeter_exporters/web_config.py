"""The file of `--web.config.file`, in the format that exporters of Prometheus share: TLS and who may ask.

What this server cannot do is refused in one sentence rather than left out: client certificates that are asked for and
not verified, names that client certificates must bear, more than one curve, rate limits. HTTP/2 may be allowed in the
file; it is not spoken.
"""

import hashlib
import hmac
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from infermeter_exporters.errors import ConfigError
from infermeter_exporters.yaml_file import loaded

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENTS = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
# By the names of TLS and of OpenSSL. Those of TLS 1.3 cannot be chosen, here as little as elsewhere.
_CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
}
_FIXED_CIPHERS = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
_HEADERS = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)
_TLS_KEYS = (
    "cert_file",
    "key_file",
    "client_ca_file",
    "client_auth_type",
    "min_version",
    "max_version",
    "cipher_suites",
    "curve_preferences",
    "prefer_server_cipher_suites",
)
_MOST_REMEMBERED = 256
# Of a password that nobody has: who asks as an unknown user waits as long as the others.
_NOBODY = b"$2b$10$abcdefghijklmnopqrstuuJ0mS7rQ4cE0uQ1kzvB8n3mWbQq5y1aW"


class Tls(NamedTuple):
    """How connections are secured.

    Attributes:
        cert: path of the certificate and what is between it and its authority.
        key: path of its key.
        client_ca: path of the authorities of clients' certificates; empty if none are asked for.
        clients: whether they must have one.
        least: version of TLS.
        most: the same.
        ciphers: by OpenSSL's names, separated by colons; empty for the usual ones.
        curve: by OpenSSL's name; empty for the usual ones.
    """

    cert: str
    key: str
    client_ca: str
    clients: ssl.VerifyMode
    least: ssl.TLSVersion
    most: ssl.TLSVersion
    ciphers: str
    curve: str


class WebConfig(NamedTuple):
    """What the file says, checked.

    Attributes:
        tls: None if connections are not secured.
        headers: that every answer has.
        users: hashes of their passwords by bcrypt; without any, everybody may ask.
    """

    tls: Tls | None = None
    headers: Mapping[str, str] = {}
    users: Mapping[str, bytes] = {}


def load(path: str) -> WebConfig:
    """Read a file; without a path, what holds without one.

    Raises:
        ConfigError: it cannot be read, or something in it cannot work.
    """
    if not path:
        return WebConfig()
    found = loaded(path)
    keys = ("tls_server_config", "http_server_config", "basic_auth_users")
    content = _mapping({} if found is None else found, path, keys)
    tls = content.get("tls_server_config")
    made = WebConfig(
        None if tls is None else _tls(tls, path, f"{path}: tls_server_config"),
        _headers(content.get("http_server_config"), f"{path}: http_server_config"),
        _users(content.get("basic_auth_users"), f"{path}: basic_auth_users"),
    )
    if made.tls is not None:
        context(made.tls)  # whether the files are what they should be
    return made


def _tls(found: object, path: str, where: str) -> Tls:
    content = _mapping(found, where, _TLS_KEYS)

    def file(key: str) -> str:
        value = content.get(key) or ""
        if not isinstance(value, str):
            raise ConfigError(f"{where}.{key} is {value!r}, expected the path of a file")
        return os.path.join(os.path.dirname(path), value) if value else ""  # noqa: PTH118, PTH120  (see load)

    def one_of(key: str, known: Mapping[str, Any], default: str) -> Any:
        value = content.get(key, default)
        if not isinstance(value, str) or value not in known:
            raise ConfigError(f"{where}.{key} is {value!r}, expected one of {', '.join(filter(None, known))}")
        return known[value]

    for key in ("cert_file", "key_file"):
        if not content.get(key):
            raise ConfigError(f"{where} has no {key}, expected the path of a PEM file")
    clients, authority = one_of("client_auth_type", _CLIENTS, ""), file("client_ca_file")
    if (clients != ssl.CERT_NONE) != bool(authority):
        raise ConfigError(
            f"{where}.client_auth_type is {content.get('client_auth_type')!r}, expected one that verifies "
            "together with client_ca_file, and none without it"
        )
    least, most = one_of("min_version", _VERSIONS, "TLS12"), one_of("max_version", _VERSIONS, "TLS13")
    if least > most:
        raise ConfigError(f"{where}.min_version is {content.get('min_version')!r}, expected at most max_version")
    suites = _names(content.get("cipher_suites"), f"{where}.cipher_suites")
    for name in suites:
        if name not in _CIPHERS and name not in _FIXED_CIPHERS:
            raise ConfigError(f"{where}.cipher_suites has {name!r}, expected some of {', '.join(_CIPHERS)}")
    curves = _names(content.get("curve_preferences"), f"{where}.curve_preferences")
    if len(curves) > 1 or any(curve not in _CURVES for curve in curves):
        raise ConfigError(f"{where}.curve_preferences is {curves!r}, expected one of {', '.join(_CURVES)}")
    ciphers = ":".join(_CIPHERS[name] for name in suites if name in _CIPHERS)
    curve = _CURVES[curves[0]] if curves else ""
    return Tls(file("cert_file"), file("key_file"), authority, clients, least, most, ciphers, curve)


def _headers(found: object, where: str) -> dict[str, str]:
    content = _mapping({} if found is None else found, where, ("http2", "headers"))
    if not isinstance(content.get("http2", True), bool):
        raise ConfigError(f"{where}.http2 is {content['http2']!r}, expected true or false")
    headers = _mapping(content.get("headers") or {}, f"{where}.headers", _HEADERS)
    for name, value in headers.items():
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ConfigError(f"{where}.headers.{name} is {value!r}, expected the text of a header")
    return headers


def _users(found: object, where: str) -> dict[str, bytes]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"{where} is {found!r}, expected a mapping of users to bcrypt hashes")
    users = {}
    for name, value in found.items():
        # 60 characters: the kind, the cost, and 53 of salt and hash.
        if not isinstance(value, str) or len(value) != 60 or value[:4] not in {"$2a$", "$2b$", "$2y$"}:  # noqa: PLR2004
            raise ConfigError(f"{where}.{name} is no bcrypt hash, expected what htpasswd -nB prints, from $2 on")
        users[str(name)] = value.encode()
    return users


def _mapping(found: object, where: str, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ConfigError(f"{where} is {found!r}, expected a mapping with {', '.join(keys)}")
    for key in found:
        if key not in keys:
            raise ConfigError(f"{where} has the key {key!r}, expected {', '.join(keys)}")
    return found


def _names(found: object, where: str) -> list[str]:
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{where} is {found!r}, expected a list of names")
    return found


def context(tls: Tls) -> ssl.SSLContext:
    """What secures connections.

    Raises:
        ConfigError: a file is not what it should be.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version, made.maximum_version = tls.least, tls.most
    made.verify_mode = tls.clients
    try:
        made.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        problem = getattr(error, "reason", None) or error.strerror or error
        raise ConfigError(f"{tls.cert} and {tls.key} are no certificate and its key: {problem}") from error
    if tls.client_ca:
        try:
            made.load_verify_locations(tls.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{tls.client_ca} has no certificates of authorities: {error.strerror or error}"
            ) from error
    if tls.ciphers:
        made.set_ciphers(tls.ciphers)
    if tls.curve:
        made.set_ecdh_curve(tls.curve)
    return made


def renewed(tls: Tls) -> ssl.SSLContext:
    """The same, which reads its files again when they change: certificates are renewed while a server runs."""
    outer = context(tls)
    state = [_stamps(tls), outer]

    def choose(connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        stamps = _stamps(tls)
        if stamps != state[0]:
            try:
                state[:] = stamps, context(tls)
            except ConfigError:  # half of them may be written: the next connection finds them whole
                pass
        connection.context = state[1]

    outer.sni_callback = choose
    return outer


def _stamps(tls: Tls) -> list[tuple[int, int]]:
    found = []
    for path in (tls.cert, tls.key, tls.client_ca):
        try:
            stat = os.stat(path) if path else None  # noqa: PTH116  (see load)
        except OSError:
            stat = None
        found.append((stat.st_mtime_ns, stat.st_ino) if stat is not None else (0, 0))
    return found


class Passwords:
    """Knows who may ask.

    Args:
        users: hashes of their passwords.
    """

    def __init__(self, users: Mapping[str, bytes]) -> None:
        self._users = users
        self._secret = os.urandom(32)
        self._known: dict[bytes, bool] = {}  # what was found out, which takes a tenth of a second of work

    def remembered(self, user: str, password: str) -> bool | None:
        """Whether they fit; None if that has to be found out."""
        return self._known.get(self._key(user, password))

    def fit(self, user: str, password: str) -> bool:
        """Whether they fit; takes its time."""
        import bcrypt  # noqa: PLC0415  (only who has users pays for it)

        hashed = self._users.get(user, _NOBODY)
        try:
            fits = bcrypt.checkpw(password.encode()[:72], hashed) and user in self._users
        except ValueError:
            fits = False
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[self._key(user, password)] = fits
        return fits

    def _key(self, user: str, password: str) -> bytes:
        return hmac.digest(self._secret, f"{len(user)}:{user}:{password}".encode(), hashlib.sha256)
