"""Blank data, for a Trainer that needs data but learns nothing from them."""

from __future__ import annotations

import torch

from trainers.data.images import blank


def test_blank_data_have_every_class_even_in_a_small_batch() -> None:
    data = blank((3, 8, 16), classes=5, count=2)
    assert data.images.shape == (5, 3, 8, 16)
    assert data.images.dtype == torch.uint8
    assert not data.images.any()
    assert data.labels.tolist() == [0, 1, 2, 3, 4]
    assert data.labels.dtype == torch.int64
    assert data.classes == 5


def test_blank_data_repeat_the_classes_in_a_large_batch() -> None:
    assert blank((1, 2, 2), classes=3, count=7).labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
