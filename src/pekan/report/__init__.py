"""Verdicts as people and machines read them: terminal text and JSON."""

from pekan.report.files import keep_verdict
from pekan.report.terminal import headline, print_summary, print_verdict, verdict_json

__all__ = ["headline", "keep_verdict", "print_summary", "print_verdict", "verdict_json"]
