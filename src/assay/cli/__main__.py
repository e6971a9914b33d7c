"""`python -m assay.cli`, for an environment without the installed script."""

from assay.cli import main

main()
