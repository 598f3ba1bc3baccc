"""Properties are checked on the same examples each time, and without a clock: a busy machine fails no test."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit",
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")
