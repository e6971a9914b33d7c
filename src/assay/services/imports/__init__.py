"""Sets of tests from files: read line by line, checked row by row, stored all or not at all."""

from assay.services.imports.layouts import Columns
from assay.services.imports.loader import ImportedSet, Progress, import_stream, import_tests
from assay.services.imports.records import Format

__all__ = ["Columns", "Format", "ImportedSet", "Progress", "import_stream", "import_tests"]
