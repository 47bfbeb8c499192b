"""What a coordinator's answers stand for."""

from __future__ import annotations

import pytest

from cotrain.answers import error_from_problem
from cotrain.errors import ConflictError, CotrainError, InvalidRequestError, NotFoundError, UnreachableError


@pytest.mark.parametrize(
    ("status", "problem", "kind"),
    [
        (409, {"code": "conflict", "detail": "over"}, ConflictError),
        (422, {"code": "invalid-request", "detail": "bad"}, InvalidRequestError),
        (404, {}, NotFoundError),
        (502, {}, UnreachableError),
        (500, {"code": "something new"}, CotrainError),
    ],
)
def test_problem_maps_to_an_error(status: int, problem: dict[str, str], kind: type[CotrainError]) -> None:
    error = error_from_problem(status, problem, url="http://x")
    assert type(error) is kind
    assert error.message == problem.get("detail", f"the coordinator answered {status}")
