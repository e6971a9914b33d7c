"""What all inputs and outputs share."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from assay.exceptions import InvalidValueError
from assay.services.values import LONGEST_NAME, checked_name, text_fault

LONGEST_TEXT = 20_000


class Input(BaseModel):
    """What a client sends: an unknown field is an error, not ignored."""

    model_config = ConfigDict(extra="forbid")


class Output(BaseModel):
    """What a client is told, read from a row."""

    model_config = ConfigDict(from_attributes=True)


def _name(text: str) -> str:
    return checked_name(text, what="the name")


def _text(text: str) -> str:
    fault = text_fault(text)
    if fault is not None:
        raise InvalidValueError(f"the text {fault}")
    return text


Name = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_NAME), AfterValidator(_name)
]
"""A name as the database takes it, without the blanks around it."""

Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT), AfterValidator(_text)]
"""Text as the database takes it."""


Next = Annotated[
    str | None, Field(description="Pass it as `after` for the next page; null on the last.")
]
"""Where the next part of a list begins."""


class PageQuery(Input):
    """Which part of a list."""

    size: Annotated[int, Field(ge=1, le=200, description="Rows at most.")] = 50
    after: Annotated[
        str | None, Field(max_length=200, description="`next` of the page before this one.")
    ] = None


def example(value: dict[str, Any]) -> ConfigDict:
    """Return the configuration of a model that shows this example in the documentation."""
    return ConfigDict(json_schema_extra={"examples": [value]})
