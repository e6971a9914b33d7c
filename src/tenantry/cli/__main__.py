"""`python -m tenantry.cli`, for an environment without the installed script."""

from tenantry.cli import main

main()
