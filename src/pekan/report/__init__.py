"""Verdicts as people and machines read them: terminal text and JSON."""

from pekan.report.faults import fault_table, faults_json, print_faults, timeline
from pekan.report.files import keep_verdict
from pekan.report.terminal import (
    Hints,
    document_json,
    findings_json,
    headline,
    print_findings,
    print_summary,
    print_table,
    print_verdict,
    verdict_json,
    versions,
)

__all__ = [
    "Hints",
    "document_json",
    "fault_table",
    "faults_json",
    "findings_json",
    "headline",
    "keep_verdict",
    "print_faults",
    "print_findings",
    "print_summary",
    "print_table",
    "print_verdict",
    "timeline",
    "verdict_json",
    "versions",
]
