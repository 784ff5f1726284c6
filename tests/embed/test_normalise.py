from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from embedcore.embed.normalise import Normaliser, as_tensor, in_one_kernel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0, 0, 0), (1, 1, 1))])
def test_equals_torchvision_bit_for_bit(mean, std):
    pixels = np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(1, 16, 16, 3)
    pixels = np.concatenate([pixels, pixels[:, ::-1]])
    whole = transforms.Compose([transforms.ToTensor(), transforms.Normalize(torch.tensor(mean), torch.tensor(std))])
    expected = torch.stack([whole(Image.fromarray(image)) for image in pixels])
    assert torch.equal(Normaliser(mean, std)(as_tensor(pixels)), expected)


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0, 0, 0), (1, 1, 1))])
def test_one_kernel_computes_the_same_for_every_value(mean, std):
    pixels = as_tensor(np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 1, 256, 3))
    normalise = Normaliser(mean, std)
    found = in_one_kernel(pixels.flatten(2), normalise.scale.repeat(256), normalise.shift.repeat(256))
    assert found.dtype == torch.float32
    expected = normalise(pixels).permute(0, 2, 3, 1).flatten(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_output_is_channels_last_and_input_unchanged():
    pixels = np.full((2, 4, 6, 3), 7, dtype=np.uint8)
    out = Normaliser(MEAN, STD)(as_tensor(pixels))
    assert out.shape == (2, 3, 4, 6)
    assert out.is_contiguous(memory_format=torch.channels_last)
    other = Normaliser(MEAN, STD, channels_last=False)(as_tensor(pixels))
    assert other.is_contiguous() and torch.equal(other, out)
    assert (pixels == 7).all()


def test_read_only_pixels_give_no_warning(recwarn):
    pixels = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    assert as_tensor(pixels).shape == (1, 2, 2, 3)
    assert not recwarn.list
