"""The table of states: what is in it can be made, nothing else."""

import pytest

from fsmount.lifecycle import TRANSITIONS, Event, IllegalTransition, after
from fsmount.model import State


def test_every_pair_is_either_in_the_table_or_refused() -> None:
    for state in State:
        for event in Event:
            if (state, event) in TRANSITIONS:
                assert after(state, event) == TRANSITIONS[state, event]
            else:
                with pytest.raises(IllegalTransition):
                    after(state, event)


def test_what_is_being_sent_cannot_be_decided_about() -> None:
    for event in (Event.RETRY, Event.DISCARD, Event.REPLACE, Event.SUPERSEDE):
        with pytest.raises(IllegalTransition):
            after(State.SENDING, event)


def test_every_state_can_be_left() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State)
