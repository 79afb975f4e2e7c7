"""Text that was meant as numbers or dates: one odd cell makes a whole column text, and then every number a category."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relaxloss.validation import listed

MOSTLY = 0.95  # of the different values. Codes mix more: of the ICD-9 codes, one in ten starts with a letter
ENOUGH = 10  # numbers; fewer may be an ordered category, such as 0, 1, 2, 3 or more
FEW = 3  # dates, or numbers that are written with commas, spaces or signs of per cent or money
SHOWN = 5
CODES = "; if they are codes and no quantities, write a letter before each"

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
WRITTEN = re.compile(  # 61,9 and 1,234.5 and 1.017.256 and 12 % and $5 and −3 (which is no hyphen) and 1,5e-3
    r"\s*\(?(?:[$€£¥]|EUR|USD|CHF|GBP)?\s*[+\-−–]?\s*[$€£¥]?\s*(\d{1,3}([.,' \u00a0\u2009\u202f’]\d{3})+|\d+)([.,]\d+)?"
    r"([eE][+\-−]?\d+)?\s*(?:[%$€£¥]|EUR|USD|CHF|GBP)?\)?\s*"
)
DATE = re.compile(
    r"\s*(\d{1,2}[./-]\d{1,2}[./-]\d{4}|\d{1,2}[./]\d{1,2}[./]\d{2}|\d{4}[./-]\d{1,2}[./-]\d{1,2})([ T,].*)?\s*"
)
BESIDE = re.compile(  # what stands among measurements: bounds, and words for a missing value
    r"\s*([<>≤≥]=?\s*[\d.,]+|[\d.,]+\s*[+*]|[-–—.?*/]*|n\.?/?[ad]\.?|nan|unknown|missing|none|null|not? .*|trace.*)\s*",
    re.IGNORECASE,
)


def mistaken(values: Sequence[str]) -> str:
    """What is wrong with a text column of these different values, and what to do; empty if they may be categories."""
    numbers, written, dates = ({value for value in values if form.fullmatch(value)} for form in (NUMBER, WRITTEN, DATE))
    if len(dates) >= FEW and len(dates) >= MOSTLY * len(values):
        odd = _odd(values, dates, "but for")
        return f"dates as text ({min(dates)!r}, ...){odd}; expected YYYY-MM-DD in every row, or an empty cell{CODES}"
    if len(numbers) == len(values):  # codes that somebody wrote down as text
        return ""
    if len(written - numbers) >= FEW and len(written | numbers) >= MOSTLY * len(values):
        odd = _odd(values, written | numbers, "and also")
        return (
            f"numbers written as {min(written - numbers)!r}{odd}; expected plain ones: a point before decimals, "
            f"nothing between thousands, no sign of per cent or money, - for minus{CODES}"
        )
    strange = [value for value in values if value not in numbers]
    measured = len(strange) == 1 or len(numbers) >= MOSTLY * len(values) or all(map(BESIDE.fullmatch, strange))
    if len(numbers) >= ENOUGH and measured:
        return (
            f"{len(numbers):,} different numbers{_odd(values, numbers, 'and also')}; expected numbers only: write a "
            f"number there or leave the cell empty (missing){CODES}"
        )
    return ""


def _odd(values: Sequence[str], fine: set[str], word: str) -> str:
    odd = [repr(value) for value in values if value not in fine]
    return f" {word} {listed(odd, SHOWN)}" if odd else ""
