"""How many workers a Ray cluster gets, and what each needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from search.cluster.connection import Cluster
from search.cluster.ray_workers import RayWorkers
from search.cluster.request import RayRequest
from search.placement import Placement, Resources, place_on
from search.session import Crew, Screen
from search.workers import WorkerOrder

if TYPE_CHECKING:
    import torch

    from search.training.models import Shape
    from spaces.config import Configuration
    from studies.base import Study


class RayCrews:
    """Actors on a Ray cluster, each with one core and its share of a GPU."""

    here = False

    def __init__(self, resources: Resources, request: RayRequest, cluster: Cluster) -> None:
        """Decide what each is given.

        Raises:
            ValueError: the cluster has not enough for one worker.
        """
        self._resources = resources
        self._cluster = cluster
        share = request.gpus_per_worker
        self._gpus = float(cluster.gpus > 0) if share is None else share
        if not self._room():
            raise ValueError(
                f"--ray {cluster.address}: a worker needs 1 core and {self._gpus:g} GPU (--gpus-per-worker), "
                f"but the cluster has {cluster.cpus:g} cores and {cluster.gpus:g} GPUs"
            )

    def device(self) -> torch.device:
        """The first GPU that Ray shows to a worker, or the CPU."""
        import torch

        return torch.device("cuda:0" if self._gpus else "cpu")

    def place(self, configuration: Configuration, shape: Shape) -> Placement:
        """As many as were asked for, else as the cluster has room for now."""
        workers = self._resources.workers or self._room()
        placement = place_on(
            (str(self.device()),), workers, workers * self._gpus, self._resources, configuration, shape
        )
        rule = f"Ray gives each worker 1 core and {self._gpus:g} GPU; there is room for {self._room()} now"
        return replace(placement, rule="; ".join(filter(None, (rule, placement.rule))))

    def start(self, order: WorkerOrder, study: Study, screen: Screen) -> Crew:
        """Start actors."""
        return RayWorkers(order, self._gpus, study.is_complete, screen.say)

    def _room(self) -> int:
        """Workers for which the cluster has what they need."""
        cluster, gpus = self._cluster, self._gpus
        return int(min(cluster.cpus, cluster.gpus // gpus if gpus else cluster.cpus))
