"""Warps between photos and pinhole images."""

import numpy as np
import pytest

from refersplat.data.lens import MODELS, Warp

COEFFICIENTS = {"k1": -0.12, "k2": 0.03, "p1": 0.002, "p2": -0.003, "k4": 0.01}
WIDTH, HEIGHT = 80, 60


@pytest.mark.parametrize("model", MODELS)
def test_pixels_of_the_pinhole_image_return_to_the_photo(model):
    values = {"f": 70.0, "fx": 70.0, "fy": 74.0, "cx": 41.0, "cy": 29.0} | COEFFICIENTS
    lens = MODELS[model].lens(values, WIDTH, HEIGHT, "camera")
    warp = Warp(lens, WIDTH, HEIGHT)
    row, column = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    back_column, back_row = warp.photo(column), warp.photo(row)
    inside = warp.photo(np.ones_like(row)) > 0.9999
    assert inside.mean() > 0.7
    target = warp.target
    rays = (back_column + 0.5 - target.cx) / target.fx, (back_row + 0.5 - target.cy) / target.fy
    found_column, found_row = lens.project(*rays)
    # OpenCV interpolates in steps of 1/32 pixel.
    assert np.abs(found_column - column - 0.5)[inside].max() < 0.05
    assert np.abs(found_row - row - 0.5)[inside].max() < 0.05


def test_a_smaller_image_is_enlarged_to_the_photo():
    lens = MODELS["PINHOLE"].lens({"fx": 70, "fy": 70, "cx": 40, "cy": 30}, WIDTH, HEIGHT, "camera")
    mask = np.zeros((HEIGHT // 2, WIDTH // 2), np.float32)
    mask[10:20, 5:30] = 1
    photo = Warp(lens, WIDTH // 2, HEIGHT // 2).photo(mask) >= 0.5
    assert photo.shape == (HEIGHT, WIDTH)
    assert photo[20:40, 10:60].all()
    assert photo.sum() == 20 * 50
