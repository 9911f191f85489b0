import re
from html.parser import HTMLParser

from mirror_analysis.notebook import shaded_table


class Cells(HTMLParser):
    """Text by row and column, with the attributes of each cell."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.attributes, self.depth = [], [], 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.depth += 1
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
            self.attributes.append(dict(attrs))

    def handle_endtag(self, tag):
        self.depth -= 1

    def handle_data(self, data):
        if self.rows:
            self.rows[-1][-1] += data


def table(values, **changes):
    settings = {
        "rows": [f"r{i}" for i in range(len(values))],
        "columns": [f"c{i}" for i in range(len(values[0]))],
        "hints": [["said" for _ in line] for line in values],
        "caption": "above",
    }
    return shaded_table(values, **(settings | changes))


def shades(page):
    return [tuple(bytes.fromhex(s)) for s in re.findall(r"background:#([0-9a-f]{6})", page)]


def test_numbers_stand_where_they_belong():
    found = Cells(table([[0.1, None], [0.25, 1.0]]))
    assert found.rows == [
        ["", "c0", "c1"],
        ["r0", "0.100", "not defined"],
        ["r1", "0.250", "1.000"],
    ]
    assert found.depth == 0


def test_the_larger_the_darker_from_0_or_the_least():
    white, darkest = (255, 255, 255), (0x8C, 0xBF, 0xE6)
    low, middle, high = shades(table([[0.0, 0.5, 1.0]]))
    assert (low, high) == (white, darkest)
    assert all(a > b > c for a, b, c in zip(low, middle, high, strict=True))
    assert shades(table([[0.5, 1.0]]))[0] == middle  # counted from 0
    assert shades(table([[-0.5, 0.5]])) == [white, darkest]
    assert shades(table([[0.0, 0.0]])) == [white, white]
    assert shades(table([[None]])) == []


def test_names_are_text_and_not_markup():
    nasty = """<b>&"'"""
    page = table(
        [[0.5, None]], rows=[nasty], columns=[nasty, "c"], hints=[[nasty] * 2], caption=nasty
    )
    assert "<b>" not in page
    assert "<caption>&lt;b&gt;&amp;&quot;&#x27;</caption>" in page
    found = Cells(page)
    assert found.rows[0][1] == found.rows[1][0] == nasty
    assert [a["title"] for a in found.attributes if "title" in a] == [nasty, nasty]
