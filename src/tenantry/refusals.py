"""What no filter reaches: text in a statement that could hold a query of its own.

The compiler cannot see into raw SQL, hints, functions that run SQL and whatever else is rendered as
it is. It notes them, and the engine refuses the statement where filters are the only wall.
"""

import copy
from typing import Any

from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import NullType, TypeEngine

from tenantry import phrases


class RefusingCompiler(SQLCompiler):
    """A statement compiler that notes what could hold SQL that it does not render itself.

    Attributes:
        tenant_filtered: filters are rendered into this statement.
        tenant_refusal: the first such thing in the statement; None if there is nothing.
    """

    tenant_filtered: bool = False
    tenant_refusal: str | None = None

    _preparer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Compile the statement, noting what could hold a query."""
        super().__init__(*args, **kwargs)
        self._check_custom(self.statement)
        # What the ORM made of it.
        self._check_custom(getattr(self.compile_state, "statement", None))

    @property
    def preparer(self) -> Any:
        """What renders names; it tells of those that are not to be quoted."""
        return self._preparer

    @preparer.setter
    def preparer(self, preparer: Any) -> None:
        self._preparer = copy.copy(preparer)

        def quote(name: str, *args: Any) -> str:
            if getattr(name, "quote", None) is False and not phrases.is_name(name):
                self._refuse(f"name {name!r}, which is not to be quoted,")
            quoted: str = preparer.quote(name, *args)
            return quoted

        self._preparer.quote = quote

    def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> str:
        """Note a literal column whose text is more than a name or a value."""
        if column.is_literal and not phrases.is_literal(column.name):
            self._refuse("a literal column")
        return super().visit_column(column, *args, **kwargs)

    def visit_tablesample(self, tablesample: Any, *args: Any, **kwargs: Any) -> str:
        """Note a sample, which cannot be taken of a sub-query."""
        self._refuse("a sample of a table")
        return super().visit_tablesample(tablesample, *args, **kwargs)

    def visit_textclause(self, *args: Any, **kwargs: Any) -> str:
        """Note raw SQL, which cannot be filtered."""
        self._refuse("raw SQL text")
        return super().visit_textclause(*args, **kwargs)

    def visit_tstring(self, *args: Any, **kwargs: Any) -> str:
        """Note raw SQL, which cannot be filtered."""
        self._refuse("raw SQL text")
        rendered: str = super().visit_tstring(*args, **kwargs)
        return rendered

    def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> str:
        """Note a function that runs SQL of its own or opens a relation by its name."""
        packages = [name for name in getattr(func, "packagenames", ()) if name != "pg_catalog"]
        if packages or phrases.function_reaches_out(func.name):
            self._refuse(f"function {'.'.join([*packages, func.name])!r}")
        return super().visit_function(func, *args, **kwargs)

    def visit_extract(self, extract: Any, **kwargs: Any) -> str:
        """Note a field that is more than a name."""
        if not str(extract.field).isidentifier():
            self._refuse("an EXTRACT field")
        return super().visit_extract(extract, **kwargs)

    def visit_typeclause(self, typeclause: Any, **kwargs: Any) -> str:
        """Note a type whose words are more than its name."""
        self._check_type(typeclause.type)
        return super().visit_typeclause(typeclause, **kwargs)

    def visit_array(self, element: Any, **kwargs: Any) -> str:
        """Note a type whose words are more than its name; an empty array says its own."""
        if not element.clauses:
            self._check_type(element.type)
        rendered: str = super().visit_array(element, **kwargs)  # type: ignore[misc]
        return rendered

    def visit_bindparam(self, bindparam: Any, *args: Any, **kwargs: Any) -> str:
        """Note what a type makes of its values, if it has a compiler of its own."""
        kind = bindparam.type.dialect_impl(self.dialect)
        if (
            self.tenant_filtered
            and kind._has_bind_expression
            and not kwargs.get("skip_bind_expression")
        ):
            self._check_custom(kind.bind_expression(bindparam))
        return super().visit_bindparam(bindparam, *args, **kwargs)

    def visit_custom_op_binary(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Note an operator whose text could hold more than an operator."""
        self._check_operator(operator)
        return super().visit_custom_op_binary(element, operator, **kwargs)

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Note an operator whose text could hold more than an operator."""
        self._check_operator(operator)
        return super().visit_custom_op_unary_operator(element, operator, **kwargs)

    def visit_custom_op_unary_modifier(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Note an operator whose text could hold more than an operator."""
        self._check_operator(operator)
        return super().visit_custom_op_unary_modifier(element, operator, **kwargs)

    def get_statement_hint_text(self, hint_texts: Any) -> str:
        """Note a hint, which is raw SQL on PostgreSQL."""
        self._refuse("a statement hint")
        return super().get_statement_hint_text(hint_texts)

    def format_from_hint_text(self, *args: Any) -> str:
        """Note a hint, which is raw SQL on PostgreSQL."""
        self._refuse("a table hint")
        return super().format_from_hint_text(*args)

    def _compose_select_body(self, text: str, select: Any, *args: Any) -> str:
        self._check_custom(select)
        return super()._compose_select_body(text, select, *args)

    def _label_select_column(self, select: Any, column: Any, *args: Any, **kwargs: Any) -> Any:
        kind = column.type.dialect_impl(self.dialect)
        if self.tenant_filtered and kind._has_column_expression:
            self._check_custom(kind.column_expression(column))
        return super()._label_select_column(select, column, *args, **kwargs)

    def _check_custom(self, statement: Any) -> None:
        if self.tenant_filtered and statement is not None:
            for element in visitors.iterate(statement):
                if hasattr(type(element), "_compiler_dispatcher"):
                    self._refuse(f"{type(element).__name__}, which has a compiler of its own,")

    def _check_type(self, type_: TypeEngine[Any]) -> None:
        if self.tenant_filtered and not isinstance(type_, NullType):
            words = self.dialect.type_compiler_instance.process(
                type_, identifier_preparer=self.preparer
            )
            if not phrases.is_type(words):
                self._refuse(f"type {words!r}")

    def _check_operator(self, operator: Any) -> None:
        if not phrases.is_operator(operator.opstring):
            self._refuse("a custom operator")

    def _refuse(self, what: str) -> None:
        if self.tenant_refusal is None:
            self.tenant_refusal = what
