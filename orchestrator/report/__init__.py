"""The report: one self-contained HTML file."""

from orchestrator.report.page import write_report

__all__ = ["write_report"]
