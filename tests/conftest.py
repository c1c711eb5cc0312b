"""How many examples hypothesis tries: few in the suite, many with ``--hypothesis-profile=long``."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite",
    max_examples=60,
    deadline=None,  # nothing in the suite depends on the machine's speed; what hangs meets pytest's time-out
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("suite"), max_examples=5_000, derandomize=False)
settings.load_profile("suite")
