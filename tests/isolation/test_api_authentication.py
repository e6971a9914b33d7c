"""Credentials that are forged, borrowed or spent: each is the same 401, and none is a way in."""

import base64
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import sessionmaker
from tests.fixtures.api_app import create_app
from tests.fixtures.api_site import Member, Site, new_member, new_site

from assay.config import ApiPolicy, IdentityProvider, Settings
from assay.exceptions import AuthenticationError, RateLimitedError
from assay.models import ApiToken, Base
from assay.services import authentication
from assay.services.tokens import issue_token, revoke_token, token_hash
from tenantry import ConfigurationError, create_tenant_engine, tenant_scope
from tenantry.testing import Database

ISSUER, AUDIENCE = "https://login.example.org/", "assay"
REFUSED = b'{"title":"Unauthorized","status":401}'


def pem(key: rsa.RSAPrivateKey) -> str:
    """Return the public half of a key."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PROVIDER = IdentityProvider(issuer=ISSUER, audience=AUDIENCE, key=pem(KEY))


@pytest.fixture(scope="module")
def site(tenantry_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a running API that believes the provider of these tests."""
    settings = {
        "ASSAY_JWT_ISSUER": ISSUER,
        "ASSAY_JWT_AUDIENCE": AUDIENCE,
        "ASSAY_JWT_KEY": pem(KEY),
        "ASSAY_FAILED_LOGINS": "10000/minute",
    }
    with new_site(tenantry_database, tmp_path_factory.mktemp("site"), **settings) as site:
        yield site


@pytest.fixture(scope="module")
def engine(tenantry_database: Database) -> Iterator[Engine]:
    """Return the application's engine for what runs inside the test."""
    engine = create_tenant_engine(
        tenantry_database.app_url, mode="database", metadata=Base.metadata
    )
    yield engine
    engine.dispose()


def claims(member: Member, **changed: Any) -> dict[str, Any]:
    """Return what the provider says of a member; None leaves a claim out."""
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": int(time.time()) + 300,
        "sub": str(member.user_id),
        "organization_id": str(member.organization_id),
    }
    return {name: value for name, value in (said | changed).items() if value is not None}


def signed(said: Mapping[str, Any], key: Any = KEY, algorithm: str = "RS256") -> str:
    """Return a signed token."""
    return jwt.encode(dict(said), key, algorithm)


def part(value: object) -> str:
    """Return a part of a token as it is written."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(said: Mapping[str, Any], algorithm: str) -> str:
    """Return a token that says its signature is by this algorithm, and has none."""
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(said)}."


def confused(said: Mapping[str, Any]) -> str:
    """Return a token signed with HMAC, the provider's public key as the secret."""
    body = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(said)}"
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = algorithm.sign(body.encode(), pem(KEY).encode())
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def ask(site: Site, credential: str, **options: Any) -> httpx2.Response:
    """Ask who the credential stands for."""
    headers = {"Authorization": f"Bearer {credential}"}
    return site.http.get("/organizations/current", headers=headers, **options)


def refuses(response: httpx2.Response) -> None:
    """Check that an answer is the one 401, and says no more than any other."""
    assert (response.status_code, response.content) == (401, REFUSED)
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"] == "application/problem+json"


def test_providers_token_is_its_users(site: Site) -> None:
    """What the provider signed for a user of the organization is as good as an API token."""
    response = ask(site, signed(claims(site.first)))
    assert response.json()["id"] == str(site.first.organization_id)


FORGERIES: dict[str, Callable[[Member, Member], str]] = {
    "no algorithm": lambda me, _: unsigned(claims(me), "none"),
    "no algorithm, disguised": lambda me, _: unsigned(claims(me), "nOnE"),
    "no signature": lambda me, _: unsigned(claims(me), "RS256"),
    "public key as secret": lambda me, _: confused(claims(me)),
    "another key": lambda me, _: signed(claims(me), OTHER_KEY),
    "an algorithm not pinned": lambda me, _: signed(claims(me), KEY, "RS512"),
    "another audience": lambda me, _: signed(claims(me, aud="billing")),
    "no audience": lambda me, _: signed(claims(me, aud=None)),
    "another issuer": lambda me, _: signed(claims(me, iss="https://evil.example.org/")),
    "an issuer that begins alike": lambda me, _: signed(claims(me, iss=ISSUER + "x")),
    "no issuer": lambda me, _: signed(claims(me, iss=None)),
    "expired": lambda me, _: signed(claims(me, exp=int(time.time()) - 1)),
    "never expires": lambda me, _: signed(claims(me, exp=None)),
    "not yet valid": lambda me, _: signed(claims(me, nbf=int(time.time()) + 600)),
    "no organization": lambda me, _: signed(claims(me, organization_id=None)),
    "organization is no id": lambda me, _: signed(claims(me, organization_id="' or true --")),
    "organization is a list": lambda me, _: signed(claims(me, organization_id=[1])),
    "another organization's user": lambda me, other: signed(claims(me, sub=str(other.user_id))),
    "another organization": lambda me, other: signed(
        claims(me, organization_id=str(other.organization_id))
    ),
    "a user that does not exist": lambda me, _: signed(claims(me, sub=str(uuid.uuid4()))),
    "not a token": lambda _me, _other: "a.b.c",
    "an API token of nobody": lambda _me, _other: "assay_" + "x" * 43,
    "an API token cut short": lambda me, _: me.token[:-1],
    "an API token in capitals": lambda me, _: me.token.upper(),
    "the hash of an API token": lambda me, _: token_hash(me.token).hex(),
    "another prefix": lambda me, _: me.token.removeprefix("assay_"),
    "longer than any": lambda _me, _other: "x" * 9000,
    "Latin letters": lambda _me, _other: "assay_é",
    "SQL": lambda _me, _other: "' or '1'='1",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_credential_is_refused(site: Site, name: str) -> None:
    """Each way to forge or borrow a credential gives the one 401."""
    credential = FORGERIES[name](site.first, site.second)
    refuses(
        site.http.get(
            "/organizations/current", headers={b"Authorization": b"Bearer " + credential.encode()}
        )
    )


def test_token_elsewhere_is_not_looked_at(site: Site) -> None:
    """In the address, a cookie, another header or another scheme, a good token is none."""
    token = site.first.token
    path = "/organizations/current"
    for name in ("token", "access_token", "authorization"):
        refuses(site.http.get(path, params={name: token}))
    for headers in (
        {"Cookie": f"token={token}"},
        {"X-API-Key": token},
        {"Authorization": token},
        {"Authorization": f"Basic {token}"},
        {"Authorization": "Bearer"},
    ):
        refuses(site.http.get(path, headers=headers))


@pytest.mark.parametrize(
    "header",
    [b"Bearer a\x00b", b"Bearer a\x01b", b"Bearer " + b"x" * 200_000],
    ids=["NUL", "control", "huge"],
)
def test_header_that_is_none_ends_at_the_server(site: Site, header: bytes) -> None:
    """Control characters and a header without end are refused, and the next request is served."""
    request = b"GET /organizations/current HTTP/1.1\r\nHost: x\r\nAuthorization: " + header
    with socket.create_connection((site.http.base_url.host, site.http.base_url.port or 80)) as raw:
        raw.settimeout(10)
        try:
            raw.sendall(request + b"\r\nConnection: close\r\n\r\n")
            status = raw.recv(64)
        except ConnectionError:
            status = b""
    assert status[:12] in {b"", b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 431"}
    assert ask(site, site.first.token).status_code == 200


def test_revoked_token_is_refused_at_once(site: Site) -> None:
    """A token works until it is revoked, and never after; the user's other tokens still do."""
    sessions = sessionmaker(site.engine)
    with tenant_scope(site.first.organization_id, sessions=sessions) as session:
        issued = issue_token(session, site.first.user_id, "to be revoked")
        token_id, text = issued.record.id, issued.text
    assert ask(site, text).status_code == 200
    with tenant_scope(site.first.organization_id, sessions=sessions) as session:
        revoke_token(session, token_id)
    refuses(ask(site, text))
    assert ask(site, site.first.token).status_code == 200


def test_expired_token_is_refused(site: Site) -> None:
    """A token whose time is over is as unknown as one that never was."""
    sessions = sessionmaker(site.engine)
    with tenant_scope(site.first.organization_id, sessions=sessions) as session:
        text = issue_token(session, site.first.user_id, "over", lifetime=timedelta(seconds=-1)).text
    refuses(ask(site, text))


def test_token_that_somebody_holds_is_not_waited_for(site: Site) -> None:
    """A lock on its row keeps the use from being noted, and no request from being served."""
    member = new_member(site.engine, uuid.uuid4().hex)
    sessions = sessionmaker(site.engine)
    with tenant_scope(member.organization_id, sessions=sessions) as session:
        held = session.scalars(select(ApiToken).with_for_update()).all()
        assert token_hash(member.token) in {token.token_hash for token in held}
        assert ask(site, member.token, timeout=60).status_code == 200


def test_use_is_noted_and_the_token_is_not_stored(site: Site) -> None:
    """The record has the prefix, the hash and the last use, and nothing that leads to the token."""
    assert ask(site, site.first.token).status_code == 200
    sessions = sessionmaker(site.engine)
    with tenant_scope(site.first.organization_id, sessions=sessions) as session:
        record = session.scalars(
            select(ApiToken).where(ApiToken.token_hash == token_hash(site.first.token))
        ).one()
        assert record.last_used_at is not None
        assert record.prefix == site.first.token[: len(record.prefix)]
        assert len(record.prefix) == 12
        stored = [str(getattr(record, column.key)) for column in ApiToken.__table__.columns]
    assert not any(site.first.token in text for text in stored)


def limited(engine: Engine, provider: IdentityProvider = PROVIDER, **rates: str) -> TestClient:
    """Return a client of an application with these rates.

    They count in windows of the clock: those of a minute often end in the middle of a test.
    """
    policy = replace(ApiPolicy(), identity_provider=provider, **rates)  # type: ignore[arg-type]
    return TestClient(create_app(Settings(api=policy), sessions=sessionmaker(engine)))


def test_address_that_fails_too_often_waits(engine: Engine) -> None:
    """After so many failures an address is told to wait, before the database is asked."""
    member = new_member(engine, uuid.uuid4().hex)
    with limited(engine, failed_logins="3/day") as served:
        for _ in range(3):
            bad = served.get("/test_sets", headers={"Authorization": "Bearer assay_bad"})
            refuses(bad)
        waits = served.get("/test_sets", headers={"Authorization": "Bearer assay_bad"})
        assert waits.status_code == 429
        assert 1 <= int(waits.headers["retry-after"]) <= 2 * 86400 + 1
        assert waits.json() == {"title": "Too Many Requests", "status": 429}
        assert served.get("/test_sets", headers=member.headers).status_code == 429
        assert served.get("/test_sets").status_code == 401


@pytest.mark.parametrize(
    ("addresses", "together"),
    [
        (("2001:db8::1", "2001:db8::ffff:2"), True),
        (("2001:db8::1", "2001:db8:0:1::1"), False),
        (("192.0.2.1", "::ffff:192.0.2.1"), True),
        (("192.0.2.1", "192.0.2.2"), False),
        (("a socket's", "a socket's"), True),
    ],
)
def test_failures_are_counted_for_what_one_client_can_be(
    engine: Engine, addresses: tuple[str, str], together: bool
) -> None:
    """Another address of the same network of IPv6 has failed as often."""
    policy = replace(ApiPolicy(), failed_logins="1/day")
    authenticator = authentication.Authenticator(policy, sessionmaker(engine))
    second = RateLimitedError if together else AuthenticationError
    for address, error in zip(addresses, (AuthenticationError, second), strict=True):
        with pytest.raises(error):
            authenticator.authenticate("assay_bad", address)


def test_silent_provider_is_nobodys_failure(engine: Engine) -> None:
    """Where no key can be fetched, its users are asked to try again, and API tokens still count."""
    member = new_member(engine, uuid.uuid4().hex)
    silent = replace(PROVIDER, key=None, jwks_url="https://127.0.0.1:1/keys")
    theirs = jwt.encode(claims(member), KEY, "RS256", headers={"kid": "one"})
    with limited(engine, silent, failed_logins="1/day") as served:
        for _ in range(3):
            waits = served.get("/test_sets", headers={"Authorization": f"Bearer {theirs}"})
            assert waits.status_code == 503
            assert waits.headers["retry-after"] == "1"
        assert served.get("/test_sets", headers=member.headers).status_code == 200


def test_token_has_an_allowance_of_its_own(engine: Engine) -> None:
    """A token that is used up waits, others do not; knowing its prefix does not use it up."""
    first, second = (new_member(engine, uuid.uuid4().hex) for _ in range(2))
    with limited(engine, requests="2/day") as served:
        for _ in range(5):
            guess = first.token[:12] + "x" * 37
            assert served.get(
                "/test_sets", headers={"Authorization": f"Bearer {guess}"}
            ).status_code in {401, 429}
        statuses = [served.get("/test_sets", headers=first.headers).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert served.get("/test_sets", headers=second.headers).status_code == 200


@pytest.mark.parametrize("name", ["another audience", "another organization's user", "expired"])
def test_verification_is_what_refuses(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The mutation: with claims unchecked, or users not looked for, the same forgery is let in."""
    first, second = (new_member(engine, uuid.uuid4().hex) for _ in range(2))
    forged = {"Authorization": f"Bearer {FORGERIES[name](first, second)}"}
    with limited(engine) as served:
        refuses(served.get("/test_sets", headers=forged))
    decode = jwt.decode

    def careless(token: str, key: Any, **options: Any) -> Any:
        algorithms = options["algorithms"]
        return decode(
            token,
            key,
            algorithms=algorithms,
            options={"verify_aud": False, "verify_exp": False},
        )

    monkeypatch.setattr(jwt, "decode", careless)
    monkeypatch.setattr(authentication.Authenticator, "_exists", lambda *_: True)
    with limited(engine) as served:
        assert served.get("/test_sets", headers=forged).status_code == 200


def test_provider_without_a_safe_key_is_refused() -> None:
    """A shared secret, no key, two keys, or keys fetched in the clear are errors at the start."""
    for wrong in (
        {"algorithms": ("HS256",)},
        {"algorithms": ("none",)},
        {"algorithms": ()},
        {"key": None},
        {"jwks_url": "https://login.example.org/keys"},
        {"key": None, "jwks_url": "http://login.example.org/keys"},
    ):
        with pytest.raises(ConfigurationError):
            replace(PROVIDER, **wrong)
    with pytest.raises(ConfigurationError, match="ASSAY_JWT_AUDIENCE"):
        Settings.from_environment({"ASSAY_JWT_ISSUER": ISSUER})
