"""Values that a search refuses before it asks a database."""

import pytest
from tests.fixtures.catalogs import by_label, by_price, by_tags

from tenantry.exceptions import UnsearchableError


def test_wrong_number_of_values_is_named() -> None:
    """In words that fit the number."""
    with pytest.raises(UnsearchableError, match="takes 1 value, not 0"):
        by_label()
    with pytest.raises(UnsearchableError, match="takes 2 values, not 1"):
        by_price(1)


def test_text_is_no_list() -> None:
    """Its characters would be looked for one by one, and silently nothing be found."""
    with pytest.raises(UnsearchableError, match=r"is of an array: pass a list, such as \['red'\]"):
        by_tags("red")
