"""The tenant in a message's header, signed, so that the broker is not believed."""

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kombu.utils.json import JSONEncoder

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.context import Tenant
from tenantry.exceptions import ConfigurationError, InvalidTenantError, RefusedMessageError

HEADER: Final = "tenantry"

_EMBEDDED: Final = ("callbacks", "errbacks", "chain", "chord")
_MINIMUM_KEY_BYTES: Final = 32

# Of the messages themselves: what they can hold, it can write.
_encode: Final = JSONEncoder().encode


class Carrier:
    """Seals a tenant into a message and opens it again; what another key sealed is refused.

    The seal covers the task's id and name, its arguments, and what runs after it (callbacks,
    errbacks, chain, chord), so that none of them can be put into another message, and whether the
    task has a record, without which its message is not executed. Who can read the broker can still
    replay a message as it is: the same task, for the same tenant.
    """

    def __init__(self, key: str, *, config: TenancyConfig = DEFAULT_CONFIG) -> None:
        """Take the key that publishers and workers share.

        Raises:
            ConfigurationError: the key is shorter than 32 bytes.
        """
        if len(key.encode()) < _MINIMUM_KEY_BYTES:
            raise ConfigurationError(
                f"the task key has {len(key.encode())} bytes: TENANTRY_TASK_KEY needs "
                f"{_MINIMUM_KEY_BYTES} or more, such as "
                "`python -c 'import secrets; print(secrets.token_hex(32))'`"
            )
        self._key = key.encode()
        self.config = config

    def seal(
        self,
        tenant: Tenant | None,
        task_id: str,
        task: str,
        body: Sequence[Any],
        *,
        recorded: bool = False,
    ) -> dict[str, Any]:
        """Return the header for a message; body is Celery's (args, kwargs, embedded)."""
        organization = None if tenant is None else str(tenant.organization_id)
        user = None if tenant is None or tenant.user_id is None else str(tenant.user_id)
        header = {
            "organization_id": organization,
            "user_id": user,
            "seal": self._seal(task_id, task, organization, user, body, recorded=recorded),
        }
        return header | {"recorded": True} if recorded else header

    def open(self, header: object, task_id: str, task: str, body: Sequence[Any]) -> Tenant | None:
        """Return the tenant that a message was sealed for; None if it was sealed for none.

        Raises:
            RefusedMessageError: the header is missing, malformed, or its seal is not ours.
        """
        if not isinstance(header, Mapping):
            raise RefusedMessageError(
                f"message {task_id} for {task!r} carries no tenant header: it was published by "
                "something that does not share this application's configuration"
            )
        organization, user, seal = (header.get(k) for k in ("organization_id", "user_id", "seal"))
        recorded = is_recorded(header)
        expected = self._seal(task_id, task, organization, user, body, recorded=recorded)
        # As bytes: two texts are only compared where both are ASCII.
        if not isinstance(seal, str) or not hmac.compare_digest(
            expected.encode(), seal.encode(errors="replace")
        ):
            raise RefusedMessageError(
                f"message {task_id} for {task!r} has a tenant header whose seal is wrong: it was "
                "altered, or published with another TENANTRY_TASK_KEY"
            )
        if organization is None:
            return None
        try:
            return Tenant.parse(organization, user, config=self.config)
        except InvalidTenantError as error:
            raise RefusedMessageError(
                f"message {task_id} for {task!r} is sealed for a malformed tenant: {error}"
            ) from error

    def _seal(
        self,
        task_id: str,
        task: str,
        organization: object,
        user: object,
        body: Sequence[Any],
        *,
        recorded: bool,
    ) -> str:
        args, kwargs, embedded = body
        # Unsorted: JSON keeps the order of keys, but turns numbers among them into text, which
        # sorts otherwise.
        content = _encode(
            [
                task_id,
                task,
                organization,
                user,
                list(args),
                dict(kwargs),
                [embedded.get(name) for name in _EMBEDDED],
                *(["recorded"] if recorded else []),
            ]
        )
        return hmac.digest(self._key, content.encode(), "sha256").hex()


def is_recorded(header: object) -> bool:
    """Tell whether a message whose seal is right was published when its task had a record."""
    return isinstance(header, Mapping) and header.get("recorded") is True
