"""Claims about when a target is asked, by what was found out about it; the clock is the test's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.health import FIRST_OUT_S, LONGEST_OUT_S, NEXT, STRIKES, Event, Health, State


def test_the_table_holds_every_event_that_can_be_in_a_state() -> None:
    impossible = {(State.WELL, Event.TRIED), (State.WELL, Event.LEFT), (State.OUT, Event.LEFT)}
    impossible |= {(State.TRIAL, Event.TRIED)}
    assert {*NEXT} == {(state, event) for state in State for event in Event} - impossible


def test_what_cannot_be_reached_is_out_at_once() -> None:
    health = Health()
    health.note(Event.LOST, 100.0)
    assert (health.may_be_asked(100.0), health.until_s) == (False, 100.0 + FIRST_OUT_S)


def test_what_fails_is_out_after_some_failures_in_a_row() -> None:
    health = Health()
    for _ in range(STRIKES - 1):
        health.note(Event.FAILED, 0.0)
    health.note(Event.ANSWERED, 0.0)
    for _ in range(STRIKES - 1):
        health.note(Event.FAILED, 0.0)
    assert health.may_be_asked(0.0)
    health.note(Event.FAILED, 0.0)
    assert not health.may_be_asked(0.0)


def test_at_the_end_of_its_time_one_call_is_sent_there() -> None:
    health = Health()
    health.note(Event.LOST, 0.0)
    assert health.may_be_asked(FIRST_OUT_S)
    assert health.send(FIRST_OUT_S)
    assert not health.may_be_asked(FIRST_OUT_S)
    assert not health.send(FIRST_OUT_S)
    health.note(Event.ANSWERED, FIRST_OUT_S)
    assert (health.state, health.failures) == (State.WELL, 0)


def test_each_trial_that_fails_doubles_the_time_out_up_to_five_minutes() -> None:
    health, now_s, waits = Health(), 0.0, []
    health.note(Event.LOST, now_s)
    for _ in range(7):
        waits.append(health.until_s - now_s)
        now_s = health.until_s
        assert health.send(now_s)
        health.note(Event.LOST, now_s)
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, LONGEST_OUT_S, LONGEST_OUT_S]


def test_calls_that_fail_together_are_one_failure() -> None:
    health = Health()
    for later_s in range(9):
        health.note(Event.LOST, later_s)
    assert health.until_s == FIRST_OUT_S


def test_a_trial_whose_caller_has_left_is_made_again_at_once() -> None:
    health = Health()
    health.note(Event.LOST, 0.0)
    health.send(FIRST_OUT_S)
    health.note(Event.LEFT, FIRST_OUT_S)
    assert health.send(FIRST_OUT_S)


@pytest.mark.parametrize("shown", [[Event.FAILED] * STRIKES, [Event.REFUSED]])
@pytest.mark.parametrize("on_trial", [False, True])
def test_a_check_takes_back_nothing_that_answers_have_shown(shown: list[Event], *, on_trial: bool) -> None:
    """A server whose list of models is there, and whose calls fail."""
    health = Health()
    for event in shown:
        health.note(event, 0.0)
    if on_trial:
        assert health.send(FIRST_OUT_S)
    before = health.state
    health.note(Event.PROBED, FIRST_OUT_S)
    assert health.state is before is (State.TRIAL if on_trial else State.OUT)
    health.note(Event.LOST, FIRST_OUT_S)
    health.note(Event.PROBED, FIRST_OUT_S)
    assert health.state is State.OUT
    health.note(Event.ANSWERED, FIRST_OUT_S)
    health.note(Event.LOST, FIRST_OUT_S)
    health.note(Event.PROBED, FIRST_OUT_S)
    assert health.state is State.WELL


def test_checks_between_them_do_not_end_a_row_of_failures() -> None:
    health = Health()
    for _ in range(STRIKES):
        assert health.state is State.WELL
        health.note(Event.FAILED, 0.0)
        health.note(Event.PROBED, 0.0)
    assert health.state is State.OUT


def test_failures_before_a_target_was_lost_do_not_keep_it_out() -> None:
    """They were too few; and one of a call from before, which fails while it is out, shows nothing new."""
    health = Health()
    for event in (Event.FAILED, Event.LOST, Event.FAILED, Event.PROBED):
        health.note(event, 0.0)
    assert health.state is State.WELL


def test_failed_checks_in_a_row_put_a_target_out_and_one_that_is_answered_brings_it_back() -> None:
    health = Health()
    few = [Event.AILING] * (STRIKES - 1)
    for event in (*few, Event.PROBED, *few, Event.ANSWERED):
        health.note(event, 0.0)
        assert health.state is State.WELL
    assert health.is_spotless()
    for _ in range(STRIKES):
        assert health.state is State.WELL
        health.note(Event.AILING, 0.0)
    assert health.state is State.OUT
    health.note(Event.PROBED, 0.0)
    assert health.is_spotless()


def test_what_may_have_been_mended_is_tried_at_once() -> None:
    health = Health()
    health.note(Event.REFUSED, 100.0)
    health.let_try(101.0)
    assert health.send(101.0)
    health.let_try(101.0)
    assert not health.may_be_asked(101.0)


@given(st.lists(st.tuples(st.sampled_from([None, *Event]), st.floats(0, 400)), max_size=60))
def test_it_always_comes_back(events: list[tuple[Event | None, float]]) -> None:
    """Whatever was found out, within the longest time a call is sent there; and an answer makes it well."""
    health, now_s = Health(), 0.0
    for event, later_s in events:
        now_s += later_s
        if event is None:
            health.send(now_s)
        else:
            health.note(event, now_s)
        assert health.state is not State.OUT or health.until_s <= now_s + LONGEST_OUT_S
    if health.state is not State.TRIAL:
        assert health.may_be_asked(now_s + LONGEST_OUT_S)
    health.note(Event.ANSWERED, now_s)
    assert health.may_be_asked(now_s)
