"""Text that was meant as numbers or dates: one odd cell makes a whole column text, and then every number a category."""

from __future__ import annotations

import re
from collections.abc import Sequence

MOSTLY = 0.95  # of the different values. Codes mix more: of the ICD-9 codes, one in ten starts with a letter
ENOUGH = 10  # numbers; fewer may be an ordered category, such as 0, 1, 2, 3 or more
DATES = 3
SHOWN = 5

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
COMMA = re.compile(r"\s*[+-]?\d+(\.\d{3})*(,\d+)?\s*")
DATE = re.compile(r"\s*(\d{1,2}[./-]\d{1,2}[./-](\d{4}|\d{2})|\d{4}[./-]\d{1,2}[./-]\d{1,2})([ T,].*)?\s*")


def mistaken(values: Sequence[str]) -> str:
    """What is wrong with a text column of these different values, and what to do; empty if they may be categories."""
    numbers, commas, dates = ({value for value in values if form.fullmatch(value)} for form in (NUMBER, COMMA, DATE))
    if len(dates) >= DATES and len(dates) >= MOSTLY * len(values):
        odd = _odd(values, dates, "but for")
        return f"dates as text ({min(dates)!r}, ...){odd}; expected YYYY-MM-DD in every row, or an empty cell"
    if len(numbers) == len(values):  # codes that somebody wrote down as text
        return ""
    decimals = sum("," in value for value in commas)
    if decimals >= DATES and len(commas) >= MOSTLY * len(values):
        odd = _odd(values, commas, "and also")
        return f"numbers with a decimal comma{odd}; expected a decimal point: write 61.9 for 61,9"
    strange = len(values) - len(numbers)
    if len(numbers) >= ENOUGH and (strange == 1 or len(numbers) >= MOSTLY * len(values)):
        odd = _odd(values, numbers, "and also")
        return (
            f"{len(numbers):,} different numbers{odd}; expected numbers only: write a number there or leave the cell "
            "empty (missing); if they are codes and no quantities, write a letter before each"
        )
    return ""


def _odd(values: Sequence[str], fine: set[str], word: str) -> str:
    odd = [value for value in values if value not in fine]
    more = f" and {len(odd) - SHOWN:,} more" if len(odd) > SHOWN else ""
    return f" {word} {', '.join(map(repr, odd[:SHOWN]))}{more}" if odd else ""
