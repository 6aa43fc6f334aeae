"""A comparison as Markdown, for a pull request, and as JUnit XML, for a CI's list of tests."""

import xml.etree.ElementTree as ET

from hgpu.artifacts.payloads.comparison import ComparedRow, ComparisonPayload, Verdict
from hgpu.report.comparison import HEADS, cells, remarks, title

SIGNS = {
    Verdict.OK: "✅",
    Verdict.IMPROVED: "🎉",
    Verdict.REGRESSED: "❌",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.INVALID: "🚫",
}


def comparison_markdown(payload: ComparisonPayload) -> str:
    """Return the verdict as a heading, its reasons as a list, and a table of the metrics."""
    lines = [f"### {SIGNS[payload.verdict]} {payload.verdict}: {_plain(title(payload))}", ""]
    lines += [f"- {_plain(line)}" for line in (*payload.reasons, *remarks(payload))]
    if payload.rows:
        aligned = ["---:" if head.startswith(">") else "---" for head in HEADS]
        lines += ["", _line([head.lstrip(">") for head in HEADS]), _line(aligned)]
        lines += [_line([_plain(text) for text in cells(row)]) for row in payload.rows]
    return "\n".join(lines) + "\n"


def comparison_junit(payload: ComparisonPayload) -> str:
    """Return a test case a confirmatory metric: failed where it regressed, skipped where the runs don't tell.

    What can't be compared is one case in error.
    """
    rows = [row for row in payload.rows if row.confirmatory]
    suite = ET.Element("testsuite", name=f"hgpu bench compare {payload.compares}")
    for row in rows:
        _case(suite, row)
    if payload.verdict is Verdict.INVALID:
        case = ET.SubElement(suite, "testcase", classname=f"hgpu.{payload.compares}", name="comparable")
        ET.SubElement(case, "error", message=_legal("; ".join(payload.reasons)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"./testcase/{tag}"))))
    suite.set("tests", str(len(suite)))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, row: ComparedRow) -> None:
    place = f"hgpu.{row.point}" if row.point else "hgpu"
    case = ET.SubElement(suite, "testcase", classname=_legal(place), name=row.metric)
    _, _, base, head, change, interval, tolerance, verdict = cells(row)
    told = f"{verdict}: {base} to {head}, {change} ({interval or 'no interval'}), tolerance {tolerance}"
    told = _legal(told)
    if row.verdict is Verdict.REGRESSED:
        ET.SubElement(case, "failure", message=told)
    elif row.verdict is Verdict.INCONCLUSIVE:
        ET.SubElement(case, "skipped", message=told)
    else:
        ET.SubElement(case, "system-out").text = told


def _legal(text: str) -> str:
    """Keep out what XML has no way to say: control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _plain(text: str) -> str:
    """Keep a name that a user chose from ending a cell, a line, or beginning HTML."""
    for raw, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(raw, safe)
    return text
