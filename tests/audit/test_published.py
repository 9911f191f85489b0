"""The published points give the published numbers, and altered ones do not."""

from mirror_analysis.audit import published as record
from mirror_analysis.audit.published import points, published


def test_the_record_is_whole():
    sizes = {"VLA": 12, "VLM": 8, "WAM": 3, "VQA": 8, "video": 3, "freezing": 2}
    assert {name: len(points(name)[0]) for name in sizes} == sizes
    assert points("WAM") == ([0.169906, 0.164073, 0.099013], [92.25, 87.85, 41.65])


def test_published_numbers_are_found_again():
    assert [check.name for check in published(0) if check.passed is False] == []
    assert sum(check.passed is True for check in published(0)) == 19


def test_altered_points_are_misses(monkeypatch):
    def altered(panel):
        x, y = points(panel)
        return x, [y[0] + (1 if panel == "VLA" else 0), *y[1:]]

    monkeypatch.setattr(record, "points", altered)
    missed = {check.name for check in published(0) if check.passed is False}
    assert "VLA: Pearson r" in missed and not any(name.startswith("VLM") for name in missed)
