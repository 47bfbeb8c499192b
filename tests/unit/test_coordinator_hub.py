"""The hub's bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.hub import CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_TRY_AGAIN, Frame, Hub, Listener
from cotrain.protocol import Event


def event(seq: int) -> Event:
    return Event(seq=seq, time=0.0, type="training.log", data={})


async def drain(listener: Listener) -> list[int]:
    found: list[int] = []
    while (entry := await listener.next(0.01)) is not None:
        found.append(entry.seq)
    return found


async def test_events_come_in_order_and_only_to_the_session() -> None:
    hub = Hub(8)
    with hub.listener("a") as mine, hub.listener("b") as other:
        hub.attach("a", mine)
        hub.attach("b", other)
        for seq in range(1, 4):
            hub.publish("a", [event(seq)])
        assert await drain(mine) == [1, 2, 3]
        assert await drain(other) == []


async def test_nothing_is_heard_before_attach_or_after_the_context() -> None:
    hub = Hub(8)
    with hub.listener("a") as listener:
        hub.publish("a", [event(1)])
        hub.attach("a", listener)
        hub.publish("a", [event(2)])
    hub.publish("a", [event(3)])
    assert await drain(listener) == [2]


@given(limit=st.integers(1, 20), published=st.integers(0, 40))
def test_a_full_queue_ends_its_listener_and_no_other(limit: int, published: int) -> None:
    hub = Hub(limit)
    roomy = Listener(100)
    with hub.listener("a") as small:
        hub.attach("a", small)
        hub.attach("a", roomy)
        for seq in range(published):
            hub.publish("a", [event(seq)])
        assert small.ended.is_set() == (published > limit)
        assert not roomy.ended.is_set()
        assert len(roomy) == published
        if small.ended.is_set():
            assert small.close_code == CLOSE_TRY_AGAIN


async def test_a_commit_larger_than_the_limit_ends_nobody_who_reads() -> None:
    hub = Hub(4)
    with hub.listener("a") as listener:
        hub.attach("a", listener)
        hub.publish("a", [event(seq) for seq in range(1, 11)])
        assert not listener.ended.is_set()
        assert await drain(listener) == list(range(1, 11))
        hub.publish("a", [event(seq) for seq in range(11, 15)])
        hub.publish("a", [event(15)])  # four are still waiting
        assert (listener.ended.is_set(), listener.close_code) == (True, CLOSE_TRY_AGAIN)


async def test_an_event_is_encoded_once_for_all() -> None:
    hub = Hub(4)
    with hub.listener("a") as one, hub.listener("a") as other:
        hub.attach("a", one)
        hub.attach("a", other)
        hub.publish("a", [event(7)])
        frames = [await listener.next(0.01) for listener in (one, other)]
    assert frames[0] is frames[1]
    assert frames[0] == Frame(7, "training.log", b'{"seq":7,"time":0.0,"type":"training.log","data":{}}')


async def test_the_first_reason_to_end_stays() -> None:
    hub = Hub(1)
    with hub.listener("a") as early, hub.listener("a") as late:
        early.end(CLOSE_NORMAL)
        hub.close()
        assert (early.close_code, late.close_code) == (CLOSE_NORMAL, CLOSE_GOING_AWAY)
