"""Settings of the whole test run."""

from hypothesis import settings

# The same examples on every machine and in every run: a red build is red for everybody.
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")
