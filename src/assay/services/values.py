"""Text from outside, and whether the database can hold it."""

import unicodedata

from assay.exceptions import InvalidValueError

LONGEST_NAME = 200


def text_fault(text: str) -> str | None:
    """Return why PostgreSQL cannot hold the text, or None.

    Source: PostgreSQL manual, 8.3 Character Types ("The character with code zero cannot be
    stored"); UTF-8 has no encoding of half a surrogate pair.
    """
    if "\x00" in text:
        return "holds a NUL character, which PostgreSQL cannot store"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds half of a surrogate pair (\\u{ord(text[error.start]):04x}), which is no text"
    return None


def checked_name(text: str, *, what: str) -> str:
    """Return a name without the blanks around it.

    Args:
        text: the name.
        what: what it is the name of, for the message.

    Raises:
        InvalidValueError: it is blank, too long for an index, or holds what a terminal would obey.
    """
    name = text.strip()
    if not name:
        raise InvalidValueError(f"{what} is blank")
    if len(name) > LONGEST_NAME:
        raise InvalidValueError(
            f"{what} has {len(name)} characters, and {LONGEST_NAME} are the most it may have"
        )
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidValueError(f"{what} holds a control character: {name!r}")
    fault = text_fault(name)
    if fault is not None:
        raise InvalidValueError(f"{what} {fault}")
    return name
