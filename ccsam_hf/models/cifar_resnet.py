"""The CIFAR residual networks of He et al. (2016), section 4.2, as timm architectures.

One 3x3 convolution, three stages of n residual blocks with 16, 32 and 64 channels, global average pooling and one
linear layer: 6n + 2 weighted layers. Shortcuts carry no parameters: where a stage begins they take every second pixel
and fill the new channels with zeros ("option A"). ResNet-32 has 31 convolutions, 1 linear layer and 464,154
parameters at 10 classes.

A published checkpoint can ship this one file as its remote code (`add_remote_code`): it imports nothing of the
package, and importing it registers the architectures.

K. He, X. Zhang, S. Ren, J. Sun: Deep residual learning for image recognition. CVPR 2016.
"""

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from transformers import TimmWrapperForImageClassification

__all__ = ["CifarResNet", "CifarResNetForImageClassification"]

CHANNELS = (16, 32, 64)


def shortcut(x: torch.Tensor, channels: int, stride: int) -> torch.Tensor:
    """Identity of option A: [N, C, H, W] -> [N, channels, ceil(H / stride), ceil(W / stride)], new channels zero."""
    new = channels - x.shape[1]
    if new == 0 and stride == 1:
        return x
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, new // 2, new - new // 2))


class CifarBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.act2(out + shortcut(x, self.channels, self.stride))


def make_stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = CifarBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(CifarBlock(channels, channels, 1) for _ in range(blocks - 1)))


class CifarResNet(nn.Module):
    """A CIFAR ResNet with `blocks` residual blocks in each of its three stages.

    Any input size and number of channels works; the published numbers are for 3 x 32 x 32. `drop_rate` is dropout on
    the pooled features. `num_classes=0` leaves the pooled features as output.
    """

    def __init__(
        self,
        blocks: int,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False

        self.conv1 = nn.Conv2d(in_chans, CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(CHANNELS[0])
        self.act1 = nn.ReLU(inplace=True)
        self.layer1 = make_stage(CHANNELS[0], CHANNELS[0], blocks, stride=1)
        self.layer2 = make_stage(CHANNELS[0], CHANNELS[1], blocks, stride=2)
        self.layer3 = make_stage(CHANNELS[1], CHANNELS[2], blocks, stride=2)
        self.feature_info = [
            {"num_chs": channels, "reduction": 2**i, "module": f"layer{i + 1}"} for i, channels in enumerate(CHANNELS)
        ]

        self.num_features = CHANNELS[-1]
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.init_weights()

    @torch.jit.ignore
    def init_weights(self) -> None:
        """He et al. (2015): normal with variance 2 / fan-in for every convolution and the linear layer, biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        init_classifier(self.fc)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Patterns of the parameter groups for layer-wise learning rates."""
        return {"stem": r"^conv1|^bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The linear layer, `nn.Identity` when `num_classes` is 0."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace pooling and linear layer by freshly initialised ones; the pooling stays when it is None."""
        weight = self.conv1.weight
        self.num_classes = num_classes
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        pool, fc = create_classifier(self.num_features, num_classes, pool_type=pool_type)
        init_classifier(fc)
        self.global_pool, self.fc = (m.to(weight.device, weight.dtype).train(self.training) for m in (pool, fc))
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The outputs of the chosen stages (all when `indices` is None), and the last one in front unless not wanted.

        Batch normalisation is inside the blocks, so `norm` changes nothing.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r} is not supported: the stages give 'NCHW'.")
        wanted, last = feature_take_indices(len(CHANNELS), indices)
        intermediates = []
        x = self.act1(self.bn1(self.conv1(x)))
        for i, stage in enumerate((self.layer1, self.layer2, self.layer3)):
            if stop_early and i > last:
                break
            x = self._stage(stage, x)
            if i in wanted:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def _stage(self, stage: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(stage, x)
        return stage(x)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_chans, H, W] -> [N, 64, ceil(H / 4), ceil(W / 4)]."""
        x = self.act1(self.bn1(self.conv1(x)))
        x = self._stage(self.layer1, x)
        x = self._stage(self.layer2, x)
        return self._stage(self.layer3, x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Pooled features [N, 64] with `pre_logits`, logits [N, num_classes] otherwise."""
        x = self.global_pool(x)
        if self.drop_rate:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


def init_classifier(fc: nn.Module) -> None:
    if isinstance(fc, nn.Linear):
        nn.init.kaiming_normal_(fc.weight, nonlinearity="relu")
        nn.init.zeros_(fc.bias)


def _cfg(**kwargs: Any) -> dict[str, Any]:
    # Mean and standard deviation of the CIFAR-10 training images. Crop 1: the images are used whole.
    return {
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "min_input_size": (3, 4, 4),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "first_conv": "conv1",
        "classifier": "fc",
        **kwargs,
    }


default_cfgs = generate_default_cfgs({f"cifar_resnet{depth}": _cfg() for depth in (8, 20, 32, 44, 56, 110)})


def _create_cifar_resnet(variant: str, blocks: int, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(
        CifarResNet,
        variant,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2)},
        blocks=blocks,
        **kwargs,
    )


@register_model
def cifar_resnet8(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """1 block in each stage; 7 convolutions and 1 linear layer. Smaller than the paper's, for trials on few cores."""
    return _create_cifar_resnet("cifar_resnet8", 1, pretrained, **kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """3 blocks in each stage; 19 convolutions and 1 linear layer."""
    return _create_cifar_resnet("cifar_resnet20", 3, pretrained, **kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """5 blocks in each stage; 31 convolutions and 1 linear layer."""
    return _create_cifar_resnet("cifar_resnet32", 5, pretrained, **kwargs)


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """7 blocks in each stage; 43 convolutions and 1 linear layer."""
    return _create_cifar_resnet("cifar_resnet44", 7, pretrained, **kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """9 blocks in each stage; 55 convolutions and 1 linear layer."""
    return _create_cifar_resnet("cifar_resnet56", 9, pretrained, **kwargs)


@register_model
def cifar_resnet110(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """18 blocks in each stage; 109 convolutions and 1 linear layer."""
    return _create_cifar_resnet("cifar_resnet110", 18, pretrained, **kwargs)


class CifarResNetForImageClassification(TimmWrapperForImageClassification):
    """transformers' timm wrapper, under a name of this file that the `auto_map` of a checkpoint can point to."""
