"""Dependencies of the routes: who a request is from, and a Session that sees what they may see."""

from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from assay.exceptions import AuthenticationError
from assay.services.authentication import LONGEST_CREDENTIAL, Authenticator, Principal
from tenantry.fastapi import tenant_session

_bearer: Final = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="An API token (`assay_…`), or a JSON Web Token of the identity provider.",
)


def require_current_user_or_token(
    request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who the request is from, by the header `Authorization: Bearer …` and nothing else.

    Raises:
        AuthenticationError: it is from nobody that is known; no answer says why.
        RateLimitedError: the address failed too often, or the token made too many requests.
    """
    if bearer is None or not 0 < len(bearer.credentials) <= LONGEST_CREDENTIAL:
        raise AuthenticationError("a valid token is needed")
    authenticator: Authenticator = request.app.state.authenticator
    address = "" if request.client is None else request.client.host
    return authenticator.authenticate(bearer.credentials, address)


CurrentUser = Annotated[Principal, Depends(require_current_user_or_token)]
TenantSession = Annotated[Session, tenant_session(require_current_user_or_token)]
