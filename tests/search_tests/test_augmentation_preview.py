"""The preview of a space's augmentations: which configuration each row gets, and that the rows say so."""

import numpy as np
from PIL import Image

from search.data.request import DataRequest
from search.look import _configurations, describe_data
from spaces.space import Space

FEW = """
question: What does each one look like?
parameters:
  augmentation:
    choice: {nothing: {}, solarize: {solarize: 1.0, solarize_threshold: 0}, erasing: {erasing: 1.0}}
    role: scientific
"""
MANY = """
question: What does each one look like?
parameters:
  augmentation.rotation: {float: [0.0, 30.0], role: scientific}
"""


def test_a_small_grid_is_shown_in_turn():
    rows = _configurations(Space.read(FEW, "few", "few"), 5)
    assert [row["augmentation"] for row in rows] == ["nothing", "solarize", "erasing", "nothing", "solarize"]


def test_what_has_no_small_grid_is_drawn():
    rows = _configurations(Space.read(MANY, "many", "many"), 10)
    assert len({row["augmentation.rotation"] for row in rows}) == 10


def test_rows_are_augmented_as_they_say(tmp_path, capsys):
    (tmp_path / "few.yaml").write_text(FEW)
    request = DataRequest("digits", tmp_path)
    plain, augmented = tmp_path / "plain.png", tmp_path / "augmented.png"
    describe_data(request, (None, None, 0), plain, None, True)
    capsys.readouterr()
    describe_data(request, (None, None, 0), augmented, str(tmp_path / "few.yaml"), False)
    printed = capsys.readouterr().out.splitlines()
    assert "row 2: augmentation solarize" in printed
    assert "row 10: augmentation nothing" in printed
    rows = [
        np.array_split(np.asarray(Image.open(path).convert("L"), dtype=int)[8:], 10)
        for path in (plain, augmented)
    ]
    tile = (slice(0, 96), slice(8, 104))
    assert np.array_equal(rows[0][0][tile], rows[1][0][tile])
    assert np.array_equal(255 - rows[0][1][tile], rows[1][1][tile])
