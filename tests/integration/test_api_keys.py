"""The keys of an identity provider, fetched from its key set over TLS."""

import datetime
import ipaddress
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from assay.config import IdentityProvider
from assay.exceptions import ProviderUnreachableError
from assay.services import authentication
from assay.services.authentication import Principal, Verifier

ME = Principal(uuid.uuid4(), uuid.uuid4())
KEYS = {
    name: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for name in ("old", "new", "unknown")
}

Publish = Callable[..., str]


def certify(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1 and its key, and return the file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "provider.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publish]:
    """Return what publishes these keys, in place of those before, and returns the address."""
    certificate = certify(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    published: dict[str, Any] = {"keys": []}

    class Provider(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(published).encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def put(*names: str) -> str:
        published["keys"] = [
            jwt.algorithms.RSAAlgorithm.to_jwk(KEYS[name].public_key(), as_dict=True)
            | {"kid": name, "use": "sig", "alg": "RS256"}
            for name in names
        ]
        return f"https://127.0.0.1:{server.server_port}/keys"

    yield put
    server.shutdown()
    thread.join()
    server.server_close()


def verifier(url: str) -> Verifier:
    """Return what believes the provider whose keys are there, and looks for them each time."""
    checked = Verifier(IdentityProvider(issuer="i", audience="a", jwks_url=url))
    keys = checked._keys
    assert keys is not None
    assert keys.jwk_set_cache is not None
    keys.cooldown_duration = 0
    keys.jwk_set_cache.lifespan = 0
    return checked


def signed(name: str, kid: str | None = None) -> str:
    """Return a token signed with this key, which says that it is of that one."""
    claims = {
        "iss": "i",
        "aud": "a",
        "exp": int(time.time()) + 60,
        "sub": str(ME.id),
        "organization_id": str(ME.organization_id),
    }
    return jwt.encode(claims, KEYS[name], "RS256", headers={"kid": kid or name})


def refused(checked: Verifier) -> None:
    """Expect it to verify nothing, since the keys cannot be fetched."""
    with pytest.raises(ProviderUnreachableError, match="keys cannot be fetched"):
        checked.verify(signed("old"))


def test_keys_are_fetched_and_rotated(publish: Publish) -> None:
    """A key counts from when it is published until it is withdrawn."""
    checked = verifier(publish("old"))
    assert checked.verify(signed("old")) == ME
    publish("old", "new")
    assert checked.verify(signed("new")) == ME
    publish("new")
    assert checked.verify(signed("old")) is None
    assert checked.verify(signed("new")) == ME


def test_key_that_is_not_published_is_refused(publish: Publish) -> None:
    """An unknown key, or a known one's name on another's signature, is nobody's."""
    checked = verifier(publish("old"))
    assert checked.verify(signed("unknown")) is None
    assert checked.verify(signed("unknown", kid="old")) is None


def test_provider_that_cannot_be_trusted_or_reached_is_refused(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a certificate that counts, or an answer, no token does; the error says why."""
    url = publish("old")
    monkeypatch.delenv("SSL_CERT_FILE")
    for unreachable in (url, "https://127.0.0.1:1/keys"):
        refused(verifier(unreachable))


def test_provider_that_does_not_answer_is_left_alone(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request waits for it, those after it fail at once, and later it is asked again.

    The mutation: with no pause each request asks, one after the other.
    """
    asked = 0
    fetch = jwt.PyJWKClient.fetch_data

    def count(client: jwt.PyJWKClient) -> Any:
        nonlocal asked
        asked += 1
        return fetch(client)

    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", count)
    checked = verifier("https://127.0.0.1:1/keys")
    for _ in range(5):
        refused(checked)
    assert asked == 1
    keys: Any = checked._keys
    keys.uri, keys._again_at = publish("old"), 0
    assert checked.verify(signed("old")) == ME
    monkeypatch.setattr(authentication, "_UNREACHABLE", 0)
    keys.uri, asked = "https://127.0.0.1:1/keys", 0
    for _ in range(5):
        refused(checked)
    assert asked == 5
