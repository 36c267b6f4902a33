"""A page of results: one file, whatever the texts in it."""

import math

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from refer3d import page
from refer3d.page import Picture, Table, read_curves, write_page
from tests.pages import read_page

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_every_text_and_number_is_shown_as_it_is(tmp_path):
    odd = "</table><script>alert('&amp;')</script>"
    rows = [(odd, 1, 0.25, None), ("a", -3, math.nan, True)]
    options = {odd: odd, "train": {"lr": 0.1, "views": ["a", "b"]}}
    write_page(tmp_path / "a.html", odd, [Table(odd, ("x", odd, "y", "z"), rows)], options)
    table, shown = read_page(tmp_path / "a.html").tables
    assert table == [["x", odd, "y", "z"], [odd, "1", "0.250", ""], ["a", "-3", "", "True"]]
    assert shown[1:] == [[odd, odd], ["train.lr", "0.1"], ["train.views", "['a', 'b']"]]
    text = (tmp_path / "a.html").read_text()
    assert text.count("<script>") == 1
    assert 'data-value="0.25"' in text  # sorted by the number, not by what is shown of it


def test_pictures_are_small_and_their_bytes_bounded(tmp_path, monkeypatch):
    large = Picture.of(np.tile(NOISE, (30, 30, 1)))
    assert (large.width, large.height) == (320, 240)
    small = Picture.of(NOISE)
    assert (small.width, small.height) == (40, 30)
    monkeypatch.setattr(page, "PICTURE_BYTES", int(3.5 * len(small.jpeg)))
    table = Table("t", ("picture", "name"), [(small, f"{index}") for index in range(5)])
    write_page(tmp_path / "a.html", "a", [table], {})
    read = read_page(tmp_path / "a.html")
    assert read.pictures == 3
    assert [row[1] for row in read.tables[0]] == ["name", *"01234"]


def test_curves_are_those_of_the_log(tmp_path):
    assert read_curves(tmp_path) == {}
    for start, stop, factor in ((0, 1500, 7), (1000, 2000, 1)):  # stopped, and resumed
        with SummaryWriter(str(tmp_path), purge_step=start) as writer:
            for step in range(start, stop, 2):
                value = 1 / (1 + step) if step < 1000 else factor / (1 + step)
                writer.add_scalar("rgb/loss", value, step)
    with SummaryWriter(str(tmp_path), purge_step=0) as writer:  # another stage
        writer.add_scalar("referring/bce", 0.5, 1)
    curves = read_curves(tmp_path)
    assert curves.pop("referring/bce") == [(1, 0.5)]
    assert curves["rgb/loss"][0] == (0, 1.0)
    assert len(curves["rgb/loss"]) == 1000
    curves |= {"one": [(5, 0.5)], "none": [], "broken": [(1, math.nan)]}
    write_page(tmp_path / "a.html", "a", [], {}, curves)
    loss, one = read_page(tmp_path / "a.html").curves
    assert loss == "rgb/loss: 0.0005003 at step 1998, 0.0005003 to 1"
    assert one == "one: 0.5 at step 5, 0.5 to 0.5"


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    class Fails:
        def __str__(self):
            raise ValueError

    path = tmp_path / "a.html"
    write_page(path, "a", [], {})
    before = path.read_bytes()
    with pytest.raises(ValueError):  # noqa: PT011
        write_page(path, "b", [Table("t", ("x",), [(Fails(),)])], {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]
