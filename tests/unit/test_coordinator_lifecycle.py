"""Laws of a session's state machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.lifecycle import (
    ACTIONS,
    DELETABLE_STATES,
    FOLLOWED_STATES,
    JOINABLE_STATES,
    STATES,
    TRANSITIONS,
    USER_ACTIONS,
    Action,
    possible_actions,
    saved_action,
    transition,
    wish_of,
)
from cotrain.errors import ConflictError
from cotrain.status import FINAL_STATES, State

states = st.sampled_from(STATES)
actions = st.sampled_from(ACTIONS)


def walk(steps: list[Action]) -> list[State]:
    """The states that the steps lead through; impossible ones are passed over."""
    seen: list[State] = ["draft"]
    for step in steps:
        if step in TRANSITIONS[seen[-1]]:
            seen.append(transition(seen[-1], step))
    return seen


@given(states, actions)
def test_a_transition_happens_or_says_what_is_possible(state: State, action: Action) -> None:
    if action in TRANSITIONS[state]:
        assert transition(state, action) in STATES
        return
    with pytest.raises(ConflictError) as raised:
        transition(state, action)
    assert raised.value.details == {"state": state, "possible": possible_actions(state)}
    assert action not in possible_actions(state)


@given(st.sampled_from(sorted(FINAL_STATES)), actions)
def test_final_states_have_no_exit(state: State, action: Action) -> None:
    with pytest.raises(ConflictError):
        transition(state, action)


def test_every_state_has_a_row_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(STATES)
    reached: set[State] = {"draft"}
    for _ in STATES:
        reached |= {following for state in reached for following in TRANSITIONS[state].values()}
    assert reached == set(STATES)


@given(st.lists(actions, max_size=30))
def test_whoever_is_final_stays_so_and_nobody_returns_to_draft(steps: list[Action]) -> None:
    seen = walk(steps)
    assert "draft" not in seen[1:]
    assert all(state not in FINAL_STATES for state in seen[:-1])


@given(states)
def test_every_unfinished_session_can_be_cancelled(state: State) -> None:
    assert ("cancel" in possible_actions(state)) == (state not in FINAL_STATES)
    assert set(possible_actions(state)) <= set(USER_ACTIONS)


@given(states)
def test_what_may_be_deleted_is_not_followed(state: State) -> None:
    assert (state in DELETABLE_STATES) == (state not in FOLLOWED_STATES)
    assert state not in JOINABLE_STATES or state in FOLLOWED_STATES


@given(st.sampled_from(["waiting", "training", "paused", "stopping"]))
def test_a_saved_model_ends_a_session(state: State) -> None:
    end = transition(state, saved_action(state))
    assert end == ("stopped" if state == "stopping" else "completed")


@pytest.mark.parametrize(
    ("state", "wish"),
    [
        ("waiting", "run"), ("training", "run"), ("paused", "pause"), ("stopping", "stop"),
        ("cancelled", "cancel"), ("completed", "stop"), ("failed", "stop"),
    ],
)  # fmt: skip
def test_the_wish_follows_from_the_state(state: State, wish: str) -> None:
    assert wish_of(state) == wish
