"""Text that somebody else chose, such as a table's name, made safe to print."""


def visible(text: str, *, keep: str = "") -> str:
    r"""Return the text with what cannot be seen written out, as in `a\nb` or `\u202e`.

    A name with a line break, an escape sequence of a terminal or a mark that turns the direction of
    writing then says what it is, and nothing else.

    Args:
        text: any text.
        keep: characters to leave as they are.
    """
    return "".join(
        each
        if each.isprintable() or each in keep
        else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
