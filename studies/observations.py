"""What can be read off a trial's curves without looking at them: overfitting, plateau, divergence and so on.

Every rule is about trends that stand out from a curve's own noise, so that most of all it is silent where
there is nothing to see. Definitions, for values x_1 ... x_n of epochs 1 ... n:

- smoothed: the running median of three (of two at the ends);
- noise(x): the robust standard deviation of independent noise on a smooth curve, from second differences:
  1.4826 median |x_{i-1} - 2 x_i + x_{i+1}| / sqrt(6), whose variance is 6 times that of the noise (Gasser,
  Sroka and Jennen-Steinmetz 1986, with a median in the place of the mean).

Overfits from epoch k + 1: k is the epoch of the least smoothed validation loss (or the one beside it, if less
before smoothing); at least ``AFTER`` epochs follow it; the mean of the last ``AFTER`` values lies above that
least value by more than ``RISE`` of it and more than ``CLEAR`` times the noise; and training loss, from its
mean over the ``AFTER`` epochs that begin with k to its mean over the last ``AFTER``, falls by more than
``FALL`` of itself and twice its noise. Training loss is that of augmented images and smoothed labels where
these are on: only its direction counts.

Still improving: the mean validation accuracy of the last w = max(2, n // 5) epochs exceeds that of the w
before by more than ``GAIN`` and twice the noise of a difference of such means; or validation loss has fallen
in the same way, by more than ``FALL`` of itself. In fewer than ``SHORT`` epochs: each one improved accuracy,
the last by more than ``GAIN``.

Plateau from epoch p: not still improving, and p is the first epoch whose smoothed accuracy comes within
``GAIN`` or twice the noise of its maximum, a quarter of the epochs and at least ``AFTER`` follow it, and the
curve also ends within that distance.

Does not learn: after at least two epochs smoothed accuracy never exceeds guessing among K classes, 1 / K, by
more than half of it, or a tenth of what is left to 1 where that is less.

Training in two phases (supervised contrast) is judged by its second one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from spaces.config import Configuration, SupervisedContrastive
from spaces.text import short_number
from studies.record import Outcome, curve_of, history_of, outcome_of, reports_of, setup_of

AFTER = 3
"""Epochs that a trend is judged by at its end."""
RISE = 0.05
"""Share by which validation loss must rise for overfitting."""
FALL = 0.01
"""Share by which training loss must fall meanwhile."""
CLEAR = 4.0
"""Multiples of the noise by which validation loss must rise; its least value is the least of many."""
GAIN = 0.005
"""Accuracy, in [0, 1], that counts as better."""
SHORT = 5
"""Epochs below which noise cannot be told from trend."""
ANNEALED = 0.1
"""Share of the highest learning rate at or below which it has run out."""

Kind = Literal[
    "running",
    "failed",
    "diverged",
    "pruned",
    "stopped early",
    "does not learn",
    "overfits",
    "still improving",
    "plateau",
]


@dataclass(frozen=True)
class Observation:
    """One thing that was observed."""

    kind: Kind
    text: str
    """For people, as one sentence without its full stop."""
    epoch: int | None = None
    """The epoch, from 1, from which it holds or at which it happened."""


def observe(trial: FrozenTrial, classes: int) -> list[Observation]:
    """All that can be observed of a trial, how it ended first; empty where nothing stands out.

    Args:
        trial: of any state.
        classes: how many there are, which says what guessing gives.
    """
    outcome, history = outcome_of(trial), history_of(trial)
    first = _first_epoch(trial)
    accuracy, val_loss = curve_of(trial)[first:], history.val_loss[first:]
    found = _ending(trial, outcome)
    found += overfitting(history.train_loss[first:], val_loss, accuracy, first)
    learns = not_learning(accuracy, classes)
    if learns or trial.state != TrialState.COMPLETE:
        return found + learns
    rising = improving(accuracy, val_loss, history.lr[first:])
    return found + (rising or plateau(accuracy, first))


def _first_epoch(trial: FrozenTrial) -> int:
    """How many epochs precede those that learn classes."""
    setup = setup_of(trial)
    if setup is None or setup.configuration.get("loss", {}).get("name") != "supervised-contrastive":
        return 0
    configuration = Configuration.read(setup.configuration, f"trial {trial.number}")
    assert isinstance(configuration.loss, SupervisedContrastive)
    return configuration.loss.feature_epochs(configuration.training.epochs)


def _ending(trial: FrozenTrial, outcome: Outcome | None) -> list[Observation]:
    """How the trial ended, unless it simply finished."""
    epoch = max(reports_of(trial), default=None)
    if trial.state in (TrialState.RUNNING, TrialState.WAITING):
        return [Observation("running", f"{trial.state.name.lower()} at epoch {epoch or 0}", epoch)]
    reason = outcome.reason if outcome else "lost"
    if reason == "finished" or (outcome is None and trial.state == TrialState.COMPLETE):
        return []
    if reason == "pruned":
        reached = f" at {_percent(curve_of(trial)[-1])}" if epoch else ""
        return [Observation("pruned", f"pruned after epoch {epoch or 0}{reached}", epoch)]
    if reason == "stopped early" and outcome:
        text = f"stopped early after epoch {epoch}, and returned to epoch {outcome.epoch}"
        return [Observation("stopped early", text, epoch)]
    if reason == "diverged":
        return [Observation("diverged", f"diverged in epoch {epoch}: the loss was no finite number", epoch)]
    return [Observation("failed", f"failed ({reason}){_cause(outcome)}", epoch)]


def _cause(outcome: Outcome | None) -> str:
    """The last line of the message: of a traceback the error itself."""
    lines = outcome.message.strip().splitlines() if outcome else []
    return f": {lines[-1].strip()}" if lines else ""


def overfitting(
    train_loss: Sequence[float | None],
    val_loss: Sequence[float | None],
    accuracy: Sequence[float] = (),
    before: int = 0,
) -> list[Observation]:
    """The observation that validation loss rises while training loss falls, or nothing.

    Args:
        train_loss: of each epoch; None where it was no finite number, from where on nothing is judged.
        val_loss: likewise.
        accuracy: validation accuracy of each epoch, for the wording.
        before: epochs that precede, for the wording.
    """
    train, val = _finite(train_loss), _finite(val_loss)
    count = min(len(train), len(val))
    train, val = train[:count], val[:count]
    if count < SHORT:
        return []
    smooth = smoothed(val)
    best, least = _least(val, smooth), min(smooth)
    rise = statistics.fmean(val[-AFTER:]) - least
    fall = statistics.fmean(train[best : best + AFTER]) - statistics.fmean(train[-AFTER:])
    enough = count - 1 - best >= AFTER
    rises = rise > max(RISE * abs(least), CLEAR * noise(val))
    falls = fall > max(FALL * abs(train[best]), 2 * noise(train))
    if not (enough and rises and falls):
        return []
    text = (
        f"overfits from epoch {before + best + 2}: validation loss rises from {_short(least)} to "
        f"{_short(statistics.fmean(val[-AFTER:]))} while training loss falls"
    )
    if len(accuracy) >= count:
        text += (
            f"; validation accuracy {_percent(accuracy[best])} before, "
            f"{_percent(accuracy[count - 1])} at the end"
        )
    return [Observation("overfits", text, before + best + 2)]


def _least(values: Sequence[float], smooth: Sequence[float]) -> int:
    """The index of the least value beside or at the first least smoothed one."""
    middle = smooth.index(min(smooth))
    return min(range(max(0, middle - 1), min(middle + 2, len(values))), key=lambda index: values[index])


def not_learning(accuracy: Sequence[float], classes: int) -> list[Observation]:
    """The observation that a run never got clearly beyond guessing, or nothing."""
    guessing = 1 / classes
    if len(accuracy) < 2 or max(smoothed(accuracy)) > guessing + min(guessing / 2, (1 - guessing) / 10):
        return []
    text = f"does not learn: at most {_percent(max(accuracy))}, where guessing gives {_percent(guessing)}"
    return [Observation("does not learn", text)]


def improving(
    accuracy: Sequence[float], val_loss: Sequence[float | None] = (), lr: Sequence[float] = ()
) -> list[Observation]:
    """The observation that validation accuracy still rose, or its loss fell, at the end; or nothing."""
    width = max(2, len(accuracy) // 5) if len(accuracy) >= SHORT else 1
    loss = _finite(val_loss)
    if gain := _late_gain(accuracy, width):
        text = f"{100 * gain:+.1f} points in the last {_epochs(width)}"
    elif len(loss) == len(accuracy) and _falls_late(loss, width):
        text = f"validation loss fell by {_short(-_late_change(loss, width))} in the last {_epochs(width)}"
    else:
        return []
    annealed = ", as the learning rate ran out" if lr and lr[-1] <= ANNEALED * max(lr) else ""
    return [Observation("still improving", f"still improving at the end: {text}{annealed}")]


def _late_gain(accuracy: Sequence[float], width: int) -> float:
    """What the last ``width`` epochs gained over as many before, where that is clear, else 0."""
    if len(accuracy) < SHORT:
        steps = [right - left for left, right in pairwise(accuracy)]
        return steps[-1] if steps and min(steps) > 0 and steps[-1] > GAIN else 0.0
    gain = _late_change(accuracy, width)
    return gain if gain > max(GAIN, _unclear(accuracy, width)) else 0.0


def _falls_late(loss: Sequence[float], width: int) -> bool:
    if len(loss) < SHORT:
        return False
    return -_late_change(loss, width) > max(FALL * abs(loss[-1]), _unclear(loss, width))


def _late_change(values: Sequence[float], width: int) -> float:
    return statistics.fmean(values[-width:]) - statistics.fmean(values[-2 * width : -width])


def _unclear(values: Sequence[float], width: int) -> float:
    """Twice the noise of a difference of two means over ``width`` values."""
    return 2 * noise(values) * math.sqrt(2 / width)


def plateau(accuracy: Sequence[float], before: int = 0) -> list[Observation]:
    """The observation that validation accuracy had stopped rising well before the end, or nothing."""
    count = len(accuracy)
    if count < SHORT or improving(accuracy):
        return []
    smooth = smoothed(accuracy)
    band = max(GAIN, 2 * noise(accuracy))
    start = next(index for index, value in enumerate(smooth) if value >= max(smooth) - band)
    if count - 1 - start < max(AFTER, count / 4) or smooth[-1] < max(smooth) - band:
        return []
    text = (
        f"plateau from epoch {before + start + 1}, within {100 * band:.1f} points of {_percent(max(smooth))}"
    )
    return [Observation("plateau", text, before + start + 1)]


def smoothed(values: Sequence[float]) -> list[float]:
    """The running median of three, of two at the ends."""
    return [statistics.median(values[max(0, index - 1) : index + 2]) for index in range(len(values))]


def noise(values: Sequence[float]) -> float:
    """The standard deviation of independent noise on a smooth curve; 0 for fewer than three values."""
    triples = zip(values, values[1:], values[2:], strict=False)
    seconds = [abs(left - 2 * middle + right) for left, middle, right in triples]
    return 1.4826 * statistics.median(seconds) / math.sqrt(6) if seconds else 0.0


def _finite(values: Sequence[float | None]) -> list[float]:
    """The values up to the first that is none."""
    end = next((index for index, value in enumerate(values) if value is None), len(values))
    return [value for value in values[:end] if value is not None]


def _epochs(count: int) -> str:
    return "epoch" if count == 1 else f"{count} epochs"


def _short(number: float) -> str:
    return short_number(float(f"{number:.3g}"))


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} %"
