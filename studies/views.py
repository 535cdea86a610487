"""What a command asked a plan for, kept with the plan, so that results are shown as they were asked for."""

from __future__ import annotations

from typing import Any

from studies.plan import PlanStudy

_VIEW = "view "


def set_view(plan: PlanStudy, name: str, content: dict[str, Any]) -> None:
    """Keep what is to be shown under this name."""
    plan.optuna.set_user_attr(_VIEW + name, content)


def view_of(plan: PlanStudy, name: str) -> dict[str, Any] | None:
    """What was kept under this name; None if nothing was."""
    content: dict[str, Any] | None = plan.optuna.user_attrs.get(_VIEW + name)
    return content


def views_of(plan: PlanStudy) -> list[str]:
    """The names under which something was kept."""
    return [key.removeprefix(_VIEW) for key in plan.optuna.user_attrs if key.startswith(_VIEW)]
