"""Ways of keeping tenants apart, each in a module of its own, that do the same work.

A module has `prepare(places, rows)`, which makes and fills its table, and `open_contender(url,
option)`, which returns the Contender. It imports nothing but SQLAlchemy and what it is about, so
that it runs in an environment of its own: `python -m bench.contenders NAME`.
"""
