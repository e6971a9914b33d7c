"""An organization as the API shows it."""

import uuid
from datetime import datetime

from assay.schemas.base import Output, example


class OrganizationOut(Output):
    """The organization that the token belongs to."""

    model_config = example(
        {
            "id": "0b1f5d0e-8f5a-4c5e-9a39-6c1f6a6c2a10",
            "name": "Acme",
            "created_at": "2026-11-22T12:00:00Z",
        }
    )

    id: uuid.UUID
    name: str
    created_at: datetime
