"""The curves as locust plays them."""

from locust import LoadTestShape

from bench.loadtest.curves import CURVES, SECONDS_DEFAULT, USERS_DEFAULT, Curve, users_at

STEP_SECONDS = 5.0  # until the users of a step are there


class Shape(LoadTestShape):
    """Plays a curve over `--run-time` with at most `--users`. Subclasses say which."""

    abstract = True
    use_common_options = True
    curve: Curve

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None  # noqa: S101 - locust sets it before it asks
        options = self.runner.environment.parsed_options
        seconds = float(getattr(options, "run_time", None) or SECONDS_DEFAULT)
        most = float(getattr(options, "num_users", None) or USERS_DEFAULT)
        users = users_at(type(self).curve, self.get_run_time() / seconds, most)
        return None if users is None else (users, max(1.0, most / STEP_SECONDS))


def shape(name: str) -> type[Shape]:
    return type(name.capitalize(), (Shape,), {"curve": staticmethod(CURVES[name]), "__doc__": CURVES[name].__doc__})
