"""Views of an image: mirrored and moved copies, whose answers are averaged."""

import torch
from torch import nn

from pipeline.models.tta import Views


class Corner(nn.Module):
    """Answers with the pixel in the upper left corner, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.num_calls = 0

    def forward(self, images):
        self.num_calls += 1
        return images[:, :, 0, 0]


def test_two_views_are_the_image_and_its_mirror_image():
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    model = Corner()
    assert Views(model, 2)(images).item() == (0 + 3) / 2
    assert model.num_calls == 2


def test_six_views_are_weighed_half_by_the_two_in_place():
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    model = Corner()
    in_place = (0 + 3) / 2
    # Moved, the corner shows what lies diagonally of it, reflected at the border.
    up, down = (5 + 6) / 2, (5 + 6) / 2
    assert Views(model, 6)(images).item() == in_place / 2 + (up + down) / 4
    assert model.num_calls == 6
