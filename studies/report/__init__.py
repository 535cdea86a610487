"""One self-contained page on one study or several, that could be handed in."""

from studies.report.content import Report, make_report
from studies.report.files import write_tables
from studies.report.page import render
from studies.report.pictures import write_pictures

__all__ = ["Report", "make_report", "render", "write_pictures", "write_tables"]
