"""vLLM's queue of waiting requests, shortest prompt first with ageing. Imported by vLLM only."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.request_queue import RequestQueue

from hgpu.latency.phases import place

Entry = tuple[tuple[float, float], int, Any]


class PhaseQueue(RequestQueue):  # type: ignore[misc]  # vllm has no types where it isn't installed
    """Requests by their place: the tokens they have to compute, and when they came.

    A request that was preempted has to compute its output again: its place follows from all its tokens and
    its first arrival. Of the same place, the one that was added first is first.
    """

    def __init__(self, ageing_tok_per_s: float) -> None:
        self._ageing = ageing_tok_per_s
        self._heap: list[Entry] = []
        self._added = 0

    def add_request(self, request: Any) -> None:
        """Add a request at its place."""
        key = place(request.num_tokens, request.arrival_time, self._ageing)
        heapq.heappush(self._heap, (key, self._added, request))
        self._added += 1

    def prepend_request(self, request: Any) -> None:
        """Add a request at its place: there is no front to put it to."""
        self.add_request(request)

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Add requests at their places."""
        for request in requests:
            self.add_request(request)

    def pop_request(self) -> Any:
        """Return the first request, and remove it."""
        return heapq.heappop(self._heap)[2]

    def peek_request(self) -> Any:
        """Return the first request."""
        return self._heap[0][2]

    def remove_request(self, request: Any) -> None:
        """Remove a request."""
        self.remove_requests((request,))

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Remove requests."""
        gone = set(requests)
        self._heap = [entry for entry in self._heap if entry[2] not in gone]
        heapq.heapify(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Any]:
        return (entry[2] for entry in sorted(self._heap, key=lambda entry: entry[:2]))
