"""A session's state machine: pure, so that every answer to "may this happen now?" comes from one table."""

from __future__ import annotations

from typing import Literal, get_args

from cotrain.errors import ConflictError
from cotrain.status import FINAL_STATES, State, WishName

Action = Literal[
    "start", "prepared", "progress", "pause", "resume", "stop", "cancel", "complete", "stopped", "fail"
]  # fmt: skip
UserAction = Literal["start", "pause", "resume", "stop", "cancel"]

STATES: tuple[State, ...] = get_args(State)
ACTIONS: tuple[Action, ...] = get_args(Action)
USER_ACTIONS: tuple[UserAction, ...] = get_args(UserAction)

TRANSITIONS: dict[State, dict[Action, State]] = {
    "draft": {"start": "pending", "cancel": "cancelled"},
    "pending": {"prepared": "waiting", "cancel": "cancelled", "fail": "failed"},
    "waiting": {
        "progress": "training", "pause": "paused", "stop": "stopping", "cancel": "cancelled",
        "complete": "completed", "fail": "failed",
    },
    "training": {
        "pause": "paused", "stop": "stopping", "cancel": "cancelled", "complete": "completed",
        "fail": "failed",
    },
    # a resumed session waits for its participants again: only their own word makes it "training"
    "paused": {
        "resume": "waiting", "stop": "stopping", "cancel": "cancelled", "complete": "completed",
        "fail": "failed",
    },
    "stopping": {"stopped": "stopped", "cancel": "cancelled", "fail": "failed"},
    "stopped": {},
    "completed": {},
    "failed": {},
    "cancelled": {},
}  # fmt: skip

FOLLOWED_STATES: frozenset[State] = frozenset({"pending", "waiting", "training", "paused", "stopping"})
"""States in which the checkpointer keeps the session's swarm; that of a pending one once the queue has let it out."""
DELETABLE_STATES: frozenset[str] = FINAL_STATES | {"draft"}
JOINABLE_STATES: frozenset[State] = frozenset({"waiting", "training", "paused", "stopping"})


def transition(state: State, action: Action) -> State:
    """The state after `action`. Raises ConflictError with the present state and what a person can do."""
    following = TRANSITIONS[state].get(action)
    if following is None:
        possible = possible_actions(state)
        raise ConflictError(
            f"a session that is {state} cannot {action}",
            hint=f"possible now: {', '.join(possible)}" if possible else "this state is final: open a new session",
            details={"state": state, "possible": possible},
        )
    return following


def possible_actions(state: State) -> list[UserAction]:
    """What a person may ask of a session in this state, in a fixed order."""
    return [action for action in USER_ACTIONS if action in TRANSITIONS[state]]


def saved_action(state: State) -> Action:
    """What it means that the final model is on disk: the end that was asked for, or the goal reached."""
    return "stopped" if state == "stopping" else "complete"


def wish_of(state: State) -> WishName:
    """What the participants of a session in this state should do."""
    if state == "paused":
        return "pause"
    if state == "cancelled":
        return "cancel"
    return "stop" if state == "stopping" or state in FINAL_STATES else "run"
