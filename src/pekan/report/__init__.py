"""Verdicts as people and machines read them: terminal text and JSON."""

from pekan.report.faults import fault_table, faults_json, print_faults, timeline
from pekan.report.files import keep_verdict
from pekan.report.terminal import headline, print_summary, print_verdict, verdict_json

__all__ = [
    "fault_table",
    "faults_json",
    "headline",
    "keep_verdict",
    "print_faults",
    "print_summary",
    "print_verdict",
    "timeline",
    "verdict_json",
]
