"""What a command asked a plan for, kept with the plan, so that results are shown as they were asked for."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from studies.plan import PlanStudy

_VIEW = "view "


class View(BaseModel):
    """What is to be shown, as it is kept. What another program wrote in its place is no view."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


T = TypeVar("T", bound=View)


def set_view(plan: PlanStudy, name: str, content: View) -> None:
    """Keep what is to be shown under this name."""
    plan.optuna.set_user_attr(_VIEW + name, content.model_dump(mode="json"))


def view_of(plan: PlanStudy, name: str, kind: type[T]) -> T | None:
    """What was kept under this name; None if nothing was."""
    try:
        return kind.model_validate(plan.optuna.user_attrs.get(_VIEW + name))
    except ValidationError:
        return None


def views_of(plan: PlanStudy) -> list[str]:
    """The names under which something was kept."""
    return [key.removeprefix(_VIEW) for key in plan.optuna.user_attrs if key.startswith(_VIEW)]
