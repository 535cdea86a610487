"""From the measurements of ``throughput.py`` to its bars, tables and chart."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recording import Spread, Table, publish

from search.pictures.canvas import INK, SOFT, TEN, literal, new_figure, quiet_axes, save, title

Measurement = dict[str, Any]
NOT_MEASURED = "not measured"
LARGE = 12
"""Points, for a chart that is shown at half its size."""


def report(path: Path, quiet: bool = False) -> None:
    """Print the tables, unless ``quiet``; draw the chart beside the JSON file, and publish both."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    done = [one for one in stored["measurements"] if "error" not in one]
    results = Results(done, stored["settings"]["device"])
    tables = [searches(results, stored["settings"]), loads(results)] if results.of_group("search") else []
    tables += [repeats(results, stored["settings"])] if results.of_group("accuracy", "fast") else []
    tables += [pruned_searches(results)] if results.of_group("pruned") else []
    tables += [bars_table(results, stored["settings"]["device"])]
    for table in [] if quiet else tables:
        table.show()
    if results.of_group("search"):
        draw(results, stored, path.with_suffix(".png"))
    publish(path.stem, tables, path, picture=path.with_suffix(".png"))
    if not quiet:
        print(f"stored in {path}")


@dataclass(frozen=True)
class Results:
    """All measurements that succeeded."""

    done: list[Measurement]
    device: str

    def of_group(self, *groups: str) -> list[str]:
        """The arms measured of these groups, in their order."""
        return list(dict.fromkeys(one["arm"] for one in self.done if one["group"] in groups))

    def of(self, arm: str) -> list[Measurement]:
        return [one for one in self.done if one["arm"] == arm]

    def values(self, arm: str, key: str) -> list[float]:
        """One for each round, where it was measured."""
        return [one[key] for one in self.of(arm) if one.get(key) is not None]

    def spread(self, arm: str, key: str) -> Spread | None:
        values = self.values(arm, key)
        return Spread.of(values) if values else None

    def text(self, arm: str, key: str, digits: int = 0, unit: str = "", factor: float = 1.0) -> str:
        """Median and range of the rounds."""
        spread = self.spread(arm, key)
        return scaled(spread, factor).text(digits, unit) if spread else NOT_MEASURED

    def best_of_ours(self) -> str | None:
        """The arm of ours with the most trials an hour in the median."""
        arms = [arm for arm in self.of_group("search") if arm.startswith("ours")]
        return max(arms, key=lambda arm: statistics.median(self.values(arm, "trials_per_hour")), default=None)

    def ratio(self, arm: str | None, other: str, key: str = "trials_per_hour") -> Spread | None:
        """Within the rounds that measured both."""
        others = {one["round"]: one[key] for one in self.of(other)}
        ours = self.of(arm) if arm else []
        ratios = [one[key] / others[one["round"]] for one in ours if one["round"] in others]
        return Spread.of(ratios) if ratios else None

    def eager_text(self, arm: str) -> str:
        """How many trials or runs of our engine were not captured in CUDA graphs; a CPU has none."""
        done = [one for one in self.of(arm) if "eager" in one]
        if self.device != "cuda" or not done:
            return "-"
        return ", ".join(dict.fromkeys(f"{one['eager']} of {finished(one)}" for one in done))

    def eager_notes(self, *groups: str) -> list[str]:
        """Why the first trial or run of an arm was not."""
        reasons = {
            one["arm"]: one["eager_reason"]
            for one in self.done
            if one["group"] in groups and one.get("eager")
        }
        return [f"{arm} ran without CUDA graphs: {reason}" for arm, reason in reasons.items()]


def finished(one: Measurement) -> int:
    """Trials or runs."""
    return one["trials_measured"] if "trials_measured" in one else len(one["accuracies"])


def searches(results: Results, settings: dict[str, Any]) -> Table:
    """How fast each search arm was."""
    columns = ("arm", "trials measured", "trials/h", "images/s", "in epoch", "first result")
    rounds = max(one["round"] for one in results.done)
    heading = (
        f"A search of {settings['trials']} trials, {settings['epochs']} epochs of {settings['train_images']} "
        f"{settings['images']} images in batches of {settings['batch_size']}; medians and ranges of {rounds} "
        f"round{'s' if rounds > 1 else ''}"
    )
    rows = [
        (
            arm,
            ", ".join(dict.fromkeys(map(trials_text, results.of(arm)))),
            results.text(arm, "trials_per_hour"),
            results.text(arm, "images_per_second"),
            results.text(arm, "epoch_images_per_second"),
            results.text(arm, "first_result_seconds", 1, " s"),
        )
        for arm in results.of_group("search")
    ]
    return Table(heading, columns, rows)


def loads(results: Results) -> Table:
    """What each search arm left idle, needed, and was kept from."""
    columns = ("arm", "idle", "searching idle", "MiB", "others", "without graphs")
    rows = []
    for arm in results.of_group("search"):
        others = results.values(arm, "others_share")
        rows.append(
            (
                arm,
                results.text(arm, "idle_share", 0, " %", 100),
                results.text(arm, "searching_idle_share", 0, " %", 100),
                results.text(arm, "peak_memory_mib"),
                f"{100 * max(others):.0f} %" if others else NOT_MEASURED,
                results.eager_text(arm),
            )
        )
    heading = "Idle device in the whole command and while searching, most memory, and time taken by others"
    return Table(heading, columns, rows, results.eager_notes("search"))


def trials_text(one: Measurement) -> str:
    return f"{one['trials_measured']}{cut_off_text(one)}"


def cut_off_text(one: Measurement) -> str:
    return " (cut off)" if one.get("cut_off") else ""


def repeats(results: Results, settings: dict[str, Any]) -> Table:
    """A row for each arm that trains one configuration with several seeds."""
    columns = (
        "arm",
        "accuracy",
        "with test-time augmentation",
        "compiling",
        "first run",
        "later runs (median)",
        "without graphs",
    )
    rows = []
    for arm in results.of_group("accuracy", "fast"):
        (one,) = results.of(arm)
        seconds, compiling = one.get("run_seconds"), one.get("compile_seconds")
        rows.append(
            (
                arm + cut_off_text(one),
                mean_and_spread(one["accuracies"]),
                mean_and_spread(one.get("tta_accuracies")),
                f"{compiling:.1f} s" if compiling else "-",
                f"{seconds[0]:.2f} s" if seconds else "-",
                f"{statistics.median(seconds[1:]):.2f} s" if seconds and seconds[1:] else "-",
                results.eager_text(arm),
            )
        )
    trees = settings["configurations"]
    epochs = {name: trees[name]["training"]["epochs"] for name in ("vgg", "fast")}
    heading = (
        f"One configuration, several seeds (VGG: {epochs['vgg']} epochs, fast-94: {epochs['fast']}): "
        "validation accuracy (mean, standard deviation) and time"
    )
    return Table(heading, columns, rows, results.eager_notes("accuracy", "fast"))


def pruned_searches(results: Results) -> Table:
    columns = ("arm", "trials measured", "without graphs", "pruned", "time", "best accuracy")
    rows = []
    for arm in results.of_group("pruned"):
        (one,) = results.of(arm)
        accuracy = one["best_accuracy"]
        rows.append(
            (
                arm,
                trials_text(one),
                results.eager_text(arm),
                str(one["pruned"]),
                f"{one['search_seconds']:.0f} s",
                NOT_MEASURED if accuracy is None else f"{100 * accuracy:.2f} %",
            )
        )
    heading = (
        "A built-in space with its pruner; where it was cut off, the time with all trials is an estimate"
    )
    return Table(heading, columns, rows, results.eager_notes("pruned"))


def mean_and_spread(values: Sequence[float | None] | None) -> str:
    known = [100 * value for value in values or () if value is not None]
    if len(known) < 2:
        return "-"
    return f"{statistics.fmean(known):.2f} % ± {statistics.stdev(known):.2f} (n = {len(known)})"


# The bars.


@dataclass(frozen=True)
class Bar:
    """What was asked for, and what was measured."""

    text: str
    bound: str
    measured: str = NOT_MEASURED
    met: bool | None = None
    """None: not measured here."""

    def row(self) -> tuple[str, ...]:
        verdict = {None: NOT_MEASURED, True: "met", False: "not met"}[self.met]
        return (self.text, self.bound, self.measured, verdict)


def bars_table(results: Results, device: str) -> Table:
    bars = gpu_bars(results) if device == "cuda" else cpu_bars(results)
    where = "one H200 with all of CIFAR-10" if device == "cuda" else "two CPU cores"
    return Table(
        f"Bars (asked for on {where})", ("bar", "asked for", "measured", ""), [bar.row() for bar in bars]
    )


def cpu_bars(results: Results) -> list[Bar]:
    best = results.best_of_ours()
    return [speed_bar(results, best, f"plain-{workers}", 1.5) for workers in (0, 2)]


def gpu_bars(results: Results) -> list[Bar]:
    best = results.best_of_ours()
    idle = results.spread(best, "searching_idle_share") if best else None
    return [
        speed_bar(results, best, "plain-8", 10),
        speed_bar(results, best, "plain-0", 30),
        *fast_bars(results),
        pruned_bar(results),
        below(f"device idle while searching ({best})", idle and scaled(idle, 100), 10, " %", 1),
    ]


def speed_bar(results: Results, best: str | None, plain: str, least: float) -> Bar:
    ratio = results.ratio(best, plain)
    text, bound = f"trials an hour, {best or 'ours'} / {plain}", f"at least {least:g}"
    return Bar(text, bound, ratio.text(2), ratio.median >= least) if ratio else Bar(text, bound)


def pruned_bar(results: Results) -> Bar:
    done = results.of("pruned-50")
    estimated = f" (estimated from {done[0]['trials_measured']})" if done and done[0].get("cut_off") else ""
    spread = results.spread("pruned-50", "search_seconds")
    return below(f"50 pruned trials of `regularization`{estimated}", spread, 90, " s", 0)


def below(text: str, spread: Spread | None, most: float, unit: str, digits: int) -> Bar:
    bound = f"at most {most:g}{unit}"
    return Bar(text, bound, spread.text(digits, unit), spread.median <= most) if spread else Bar(text, bound)


def scaled(spread: Spread, factor: float) -> Spread:
    return Spread(factor * spread.median, factor * spread.least, factor * spread.most)


def fast_bars(results: Results) -> list[Bar]:
    """``fast-94`` against the compiled training: seconds of later runs, of the first with all that comes
    before it, and accuracy."""
    warm = Bar("fast-94, wall time of ours / compiled, compilation not counted", "at most 1.2")
    cold = Bar("fast-94, compiled / ours, compilation and first run counted", "at least 10")
    equal = Bar("fast-94, accuracy of ours - compiled, test-time augmented", "at least 0, within 2 errors")
    if not (results.of("fast-ours") and results.of("fast-compiled")):
        return [warm, cold, equal]
    (ours,), (other,) = results.of("fast-ours"), results.of("fast-compiled")
    faster = (other["compile_seconds"] + other["run_seconds"][0]) / ours["run_seconds"][0]
    cold = Bar(cold.text, cold.bound, f"{faster:.1f}", faster >= 10)
    if min(len(ours["run_seconds"]), len(other["run_seconds"])) < 2:  # an arm was cut off
        return [warm, cold, equal]
    slower = statistics.median(ours["run_seconds"][1:]) / statistics.median(other["run_seconds"][1:])
    gap, error = difference(ours["tta_accuracies"], other["tta_accuracies"])
    return [
        Bar(warm.text, warm.bound, f"{slower:.2f}", slower <= 1.2),
        cold,
        Bar(equal.text, equal.bound, f"{100 * gap:+.2f} ± {100 * error:.2f} points", gap + 2 * error >= 0),
    ]


def difference(ones: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Of two means, and its standard error."""
    variance = statistics.variance(ones) / len(ones) + statistics.variance(others) / len(others)
    return statistics.fmean(ones) - statistics.fmean(others), variance**0.5


# The chart.


def draw(results: Results, stored: dict[str, Any], path: Path) -> None:
    """Trials an hour of each search arm: the median as a bar, the range of the rounds as a whisker."""
    arms = results.of_group("search")[::-1]
    spreads = [Spread.of(results.values(arm, "trials_per_hour")) for arm in arms]
    figure = new_figure(9, 1.6 + 0.62 * len(arms))
    axes = figure.subplots()
    quiet_axes(axes)
    medians = [spread.median for spread in spreads]
    whiskers = [
        [spread.median - spread.least for spread in spreads],
        [spread.most - spread.median for spread in spreads],
    ]
    colours = [TEN[0] if arm.startswith("ours") else TEN[1] for arm in arms]
    axes.barh(range(len(arms)), medians, color=colours, height=0.66)
    if any(map(any, whiskers)):
        axes.errorbar(medians, range(len(arms)), xerr=whiskers, fmt="none", ecolor=INK, capsize=4)
    axes.grid(visible=False, axis="y")
    for place, spread in enumerate(spreads):
        axes.text(spread.most, place, f"  {spread.median:,.0f}", va="center", fontsize=LARGE, color=INK)
    axes.set_yticks(range(len(arms)), [label(results, arm) for arm in arms], fontsize=LARGE, color=INK)
    axes.set_xlim(0, 1.15 * max(spread.most for spread in spreads))
    axes.set_xlabel("trials an hour, start-up included", fontsize=LARGE, color=INK)
    axes.tick_params(axis="x", labelsize=LARGE, colors=SOFT)
    settings, machine = stored["settings"], stored["hardware"]
    heading = f"The same search of {settings['trials']} trials: three-block VGG, epochs: {settings['epochs']}"
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    about = f"{where}; {settings['train_images']} {settings['images']} images; {stored['date'][:10]}"
    title(figure, heading)
    figure.supxlabel(literal(about), x=0.01, ha="left", fontsize=LARGE - 2, color=SOFT)
    save(figure, path)


def label(results: Results, arm: str) -> str:
    """What the arm is, on two lines, with the trials measured where they are not all."""
    one = results.of(arm)[0]
    words = one["description"].partition(", ")
    cut = ", cut off" if one.get("cut_off") else ""
    partial = one["trials_measured"] < one.get("trials_wanted", 0)  # older files do not say
    measured = f" ({one['trials_measured']} trials measured{cut})" if partial else ""
    return f"{words[0]}\n{words[2]}{measured}"
