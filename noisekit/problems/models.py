"""The networks that the catalog trains: none mixes samples, so each sample has a gradient of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


def mlp(
    widths: Sequence[int], *, activation: type[nn.Module] = nn.Tanh, flatten: bool = False
) -> nn.Sequential:
    """Return a fully connected network with layers of these ``widths``, input and output included."""
    layers: list[nn.Module] = [nn.Flatten()] if flatten else []
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        if i > 0:
            layers.append(activation())
        layers.append(nn.Linear(n_in, n_out))
    return nn.Sequential(*layers)


def cnn(channels: int, side: int, n_classes: int, *, widths: tuple[int, int] = (8, 16)) -> nn.Sequential:
    """Return a light convolutional network of two strided convolutions for square images.

    Strides do the shrinking, so that most work is done on few positions.
    """
    first, second = widths
    after = (side + 7) // 8
    return nn.Sequential(
        nn.Conv2d(channels, first, kernel_size=5, stride=4, padding=2),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * after * after, n_classes),
    )


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions with GroupNorm beside a shortcut, He et al. 2016, arXiv 1512.03385."""

    def __init__(self, n_in: int, n_out: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, n_out)
        same = stride == 1 and n_in == n_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.relu(y + self.shortcut(x))


def resnet(
    channels: int,
    n_classes: int,
    *,
    widths: Sequence[int] = (8, 16, 32),
    blocks: int = 1,
    stem_stride: int = 4,
    groups: int = 4,
) -> nn.Sequential:
    """Return a residual network with GroupNorm, which keeps samples apart where BatchNorm would mix them.

    Args:
        channels: of the images.
        n_classes: outputs.
        widths: channels of each stage; every stage after the first halves the image.
        blocks: residual blocks in a stage; 3 with widths (16, 32, 64) and ``stem_stride`` 1 is ResNet-20.
        stem_stride: how much the first convolution shrinks the image.
        groups: of every GroupNorm (Wu, He 2018, arXiv 1803.08494).
    """
    stem = max(3, stem_stride + 1 - stem_stride % 2)
    layers: list[nn.Module] = [
        nn.Conv2d(channels, widths[0], stem, stride=stem_stride, padding=stem // 2, bias=False),
        nn.GroupNorm(groups, widths[0]),
        nn.ReLU(),
    ]
    n_in = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(ResidualBlock(n_in, width, stride=stride, groups=groups))
            n_in = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_classes)]
    return nn.Sequential(*layers)
