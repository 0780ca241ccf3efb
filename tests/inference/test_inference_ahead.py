"""Working ahead in another thread, and torch's threads beside another runtime."""

import threading
from collections.abc import Iterator

import pytest
import torch

from zoo.ahead import ahead
from zoo.errors import ZooError
from zoo.inference.runner import torch_beside


def test_the_next_item_is_made_while_one_is_used() -> None:
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    for number, item in enumerate(ahead(items())):
        assert item == number
        if number < 2:
            assert made[number + 1].wait(10)
    assert list(ahead([])) == []


def test_an_error_comes_with_the_item_it_belongs_to() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZooError("broken")

    source = ahead(items())
    assert next(source) == 1
    with pytest.raises(ZooError, match="broken"):
        next(source)


def test_who_stops_early_leaves_nothing_running() -> None:
    before = threading.active_count()
    source = ahead(iter(range(100)))
    assert next(source) == 0
    source.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize(("target", "threads"), [("torch", 2), ("integer", 2), ("litert", 1)])
def test_torch_has_one_thread_beside_another_runtime(target: str, threads: int) -> None:
    class Runner:
        pass

    runner = Runner()
    runner.target = target  # type: ignore[attr-defined]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch_beside(runner):  # type: ignore[arg-type]
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
