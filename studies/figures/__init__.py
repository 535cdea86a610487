"""Figures of studies: each a chart, that is a plotly figure together with the table that it shows.

Whatever comes from users (names of studies, levels, classes) is escaped on its way into a figure, since
plotly takes text for HTML.
"""

from studies.figures.ablation import ablation_chart
from studies.figures.chart import Cell, Chart, Column, Table
from studies.figures.confusion import confusion_chart
from studies.figures.cost import cost_chart, pareto_front
from studies.figures.curves import curves_chart, loss_chart
from studies.figures.effects import importance_chart, interaction_charts, level_charts
from studies.figures.finalists import finalists_chart
from studies.figures.leaderboard import leaderboard_chart
from studies.figures.progress import Progress, progress_chart, progress_of
from studies.figures.pruning import pruning_chart

__all__ = [
    "Cell", "Chart", "Column", "Progress", "Table", "ablation_chart", "confusion_chart", "cost_chart",
    "curves_chart", "finalists_chart", "importance_chart", "interaction_charts", "leaderboard_chart",
    "level_charts", "loss_chart", "pareto_front", "progress_chart", "progress_of", "pruning_chart",
]  # fmt: skip
