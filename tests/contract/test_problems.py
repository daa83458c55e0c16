import json

import pytest

from quota import problems


@pytest.mark.parametrize("problem", problems.CATALOGUE.values(), ids=list(problems.CATALOGUE))
def test_every_problem_names_its_type_title_status_detail_and_correlation_id(problem: problems.Problem) -> None:
    assert json.loads(problems.body(problem, "what happened", "r1")) == {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": "what happened",
        "correlation_id": "r1",
    }
    assert 400 <= problem.status <= 599


def test_quota_exceeded_is_the_registered_type_with_the_violated_policies() -> None:
    problem = json.loads(problems.body(problems.QUOTA_EXCEEDED, "", None, {problems.VIOLATED_POLICIES: ["api_calls"]}))
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["api_calls"]


def test_an_extension_cannot_replace_a_standard_member() -> None:
    assert json.loads(problems.body(problems.CONFLICT, "a", None, {"status": 200, "detail": "b"}))["status"] == 409


def test_a_detail_that_is_not_valid_unicode_is_still_told() -> None:
    assert json.loads(problems.body(problems.NO_ROUTE, "/\udcff"))["detail"] == "/\udcff"


def test_every_error_status_of_a_framework_has_a_problem() -> None:
    assert all(problems.for_status(status).status in (status, 400, 500) for status in range(400, 600))
