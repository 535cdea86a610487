"""Who works for a command: processes of this machine, or actors on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from search.cluster.request import RayRequest, check_request
from search.interrupts import Interrupts
from search.placement import Placement, Resources, place, processes_on
from search.session import Crew, Screen
from search.workers import WorkerOrder, Workers, prepare_workers

if TYPE_CHECKING:
    import torch

    from search.training.models import Shape
    from spaces.config import Configuration
    from studies.base import Study


class Crews(Protocol):
    """Where a command finds its workers."""

    here: bool
    """Whether they use the devices of this machine."""

    def device(self) -> torch.device:
        """What they train on; it need not be here.

        Raises:
            ValueError: there is no such device.
        """

    def place(self, configuration: Configuration, shape: Shape) -> Placement:
        """Decide how many there are, for trainings like that of ``configuration``.

        Raises:
            ValueError: if there is no place for them.
        """

    def start(self, order: WorkerOrder, study: Study, screen: Screen) -> Crew:
        """Start them."""


class LocalCrews:
    """Processes of this machine."""

    here = True

    def __init__(self, resources: Resources) -> None:
        """Start what workers are forked from, unless there will be none."""
        self._resources = resources
        if resources.workers != 0:
            prepare_workers()

    def device(self) -> torch.device:
        """As ``--device`` says."""
        from search.prepare import resolve_device

        return resolve_device(self._resources.device)

    def place(self, configuration: Configuration, shape: Shape) -> Placement:
        """On the cores or GPUs of this machine."""
        return place(self._resources, configuration, shape)

    def start(self, order: WorkerOrder, study: Study, screen: Screen) -> Crew:  # noqa: ARG002
        """Start processes."""
        return Workers(order)


@contextmanager
def find_crews(
    resources: Resources, ray: RayRequest | None, storage_url: str, interrupts: Interrupts
) -> Iterator[Crews]:
    """The workers that a command asks for; a Ray cluster is used as long as the ``with`` block runs.

    Raises:
        ValueError: with what is wrong.
    """
    if ray is None:
        yield LocalCrews(resources)
        return
    check_request(ray, resources, storage_url)
    from search.cluster.connection import connected
    from search.cluster.crews import RayCrews

    cpus = resources.workers or processes_on("cpu")
    with connected(ray.address, cpus, interrupts) as cluster:
        yield RayCrews(resources, ray, cluster)
