"""What is remembered of an answer on its way, and what the client is sent."""

from __future__ import annotations

import json

import pytest

from coordinator.chat_relay import RelayedAnswer, outcome_of, question_of, relayed
from cotrain.chat_protocol import (
    DONE,
    Answer,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    Usage,
    chat_error,
    parse_chat,
)
from cotrain.errors import InvalidRequestError

USAGE = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
FACTS = {"id": "chatcmpl-1", "created": 1, "model": "m:1"}


def request(**fields: object) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
    return parse_chat(json.dumps(body).encode())


def piece(text: str) -> bytes:
    return ChatChunk(**FACTS, choices=[ChunkChoice(delta=Delta(content=text))]).event()


@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_stream_is_passed_on_and_remembered(wants_usage: bool) -> None:
    answer = RelayedAnswer(request(stream=True, stream_options={"include_usage": wants_usage}))
    usage = ChatChunk(**FACTS, choices=[], usage=USAGE).event()
    sent = [answer.take_line(line) for line in (piece("Hel"), b"\n", piece("lo"), b": a comment\n", usage)]
    assert sent == [piece("Hel"), b"", piece("lo"), b"", usage if wants_usage else b""]
    assert not answer.whole
    assert answer.take_line(DONE) == b""
    assert (answer.whole, answer.text, answer.id, answer.usage) == (True, "Hello", "chatcmpl-1", USAGE)


def test_an_error_in_the_middle_is_passed_on_and_the_answer_is_not_whole() -> None:
    answer = RelayedAnswer(request(stream=True))
    answer.take_line(piece("Hel"))
    error = b"data: " + chat_error(503, "busy", "no more").model_dump_json().encode() + b"\n\n"
    assert answer.take_line(error) == error
    assert not answer.whole


def test_one_in_one_piece_is_remembered() -> None:
    answer = RelayedAnswer(request())
    choice = Choice(message=Answer(content="Hello"), finish_reason="stop")
    answer.take_completion(ChatCompletion(**FACTS, choices=[choice], usage=USAGE).model_dump_json().encode())
    assert (answer.whole, answer.text, answer.id, answer.usage) == (True, "Hello", "chatcmpl-1", USAGE)


def test_the_process_counts_tokens_and_hears_of_nobody() -> None:
    told = relayed(request(stream=True, user="me", consent=True))
    assert (told.wants_usage, told.user, told.consent) == (True, None, False)
    assert relayed(request()).stream_options is None


def test_the_question_is_the_last_thing_that_the_user_said() -> None:
    roles = ("user", "first"), ("assistant", "answer"), ("user", "second"), ("system", "rule")
    assert question_of(request(messages=[{"role": role, "content": text} for role, text in roles])) == "second"
    assert question_of(request(messages=[{"role": "system", "content": "rule"}])) == ""


def test_outcomes_follow_from_the_status() -> None:
    assert [outcome_of(status) for status in (200, 400, 404, 429, 500, 503)] == [
        "answered", "refused", "refused", "busy", "failed", "failed"
    ]  # fmt: skip


def test_requests_are_checked_and_every_problem_is_named() -> None:
    assert request(max_tokens=5.0).most_tokens == 5
    assert request(max_tokens=5, max_completion_tokens=6).most_tokens == 6
    assert request(stop="a").stops == ("a",)
    assert request(stop=None, temperature=None, top_p=None, n=None).stops == ()
    wrong = {"max_tokens": 0, "temperature": "1", "tools": [], "stop": ["a"] * 5, "seed": 2**63, "top_p": float("nan")}
    for field, value in wrong.items():
        with pytest.raises(InvalidRequestError) as refused:
            request(**{field: value})
        assert field in f"{refused.value.field} {refused.value.message}"
    with pytest.raises(InvalidRequestError) as both:
        request(n=2, logprobs=True)
    assert len(both.value.details["problems"]) == 2
