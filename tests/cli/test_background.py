"""Work in the background is said in order, its errors are raised, and nothing is left behind."""

import threading

import pytest

from unilens.cli.background import InBackground


def test_work_overlaps_and_is_said_in_order():
    said, threads, gate = [], [], threading.Event()

    def slow():
        threads.append(threading.current_thread())
        assert gate.wait(10)

    with InBackground() as background:
        background.start(slow, lambda: said.append(0))
        assert said == []  # it runs, and this thread goes on
        gate.set()
        background.start(lambda: said.append("work 1"), lambda: said.append(1))
        assert said[0] == 0
    assert said == [0, "work 1", 1]
    assert threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_an_error_of_the_work_is_raised_and_not_said():
    said = []

    def fail():
        raise OSError("no space left on device")

    def run():
        with InBackground() as background:
            background.start(fail, lambda: said.append(0))
            background.start(lambda: None, lambda: said.append(1))

    with pytest.raises(OSError, match="no space left"):
        run()
    assert said == []


def test_after_an_error_beside_it_the_work_is_ended_and_said():
    said = []

    def run():
        with InBackground() as background:
            background.start(lambda: said.append("work"), lambda: said.append("said"))
            raise ValueError("of the second photograph")

    with pytest.raises(ValueError, match="second"):
        run()
    assert said == ["work", "said"]
