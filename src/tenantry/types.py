"""Column types for tenant tables."""

import enum

from sqlalchemy import Enum


def text_enum(members: type[enum.StrEnum], name: str) -> Enum:
    """Return text with a CHECK for the members' values.

    Not a PostgreSQL enum: its `=` is not leakproof, so row-level security would keep a condition
    on it from using an index; that of text is.
    """
    return Enum(
        members,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=20,
        values_callable=lambda enumeration: [member.value for member in enumeration],
    )
