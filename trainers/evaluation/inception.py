"""Inception-v3 pool features, the same as those of clean-fid (Parmar, Zhang and Zhu, 2022)."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.errors import InputError
from trainers.evaluation.resize import full_precision, resize
from trainers.evaluation.weights import first_line, load_script, quiet_script

DIM = 2048
SIZE = 299
#: Largest difference between features of the plain and the scripted network, relative to their norm.
TOLERANCE = 1e-4
_EPSILON = 1e-3


class Inception:
    """Maps uint8 images [N, 1 or 3, H, W] to features [N, 2048]; gray counts as three equal channels."""

    def __init__(self, layers: nn.Module, device: torch.device | str, dtype: torch.dtype) -> None:
        """`layers` maps [N, 3, 299, 299] in [-1, 1] to 2048 numbers per image, in any shape."""
        self._device, self._dtype = torch.device(device), dtype
        # On a CPU convolutions are faster with channels last.
        self._order = torch.channels_last if self._device.type == "cpu" else torch.contiguous_format
        layers.eval().to(self._device, dtype).to(memory_format=self._order)  # type: ignore[call-overload]
        scripted_here = isinstance(layers, torch.jit.ScriptModule) and self._device.type == "cpu"
        self._layers = _streamlined(layers) if scripted_here else layers

    def __call__(self, images: Tensor) -> Tensor:
        x = resize(images.to(self._device).expand(-1, 3, -1, -1), SIZE, self._dtype)
        with torch.no_grad(), full_precision():
            features: Tensor = self._layers(x.sub_(128).div_(128).contiguous(memory_format=self._order))
        return features.reshape(len(images), DIM)


def scripted(path: Path, device: torch.device | str, dtype: torch.dtype) -> Inception:
    """The network of the official TorchScript file, run by its own code. Raises InputError for another file."""
    network = _scripted("inception", path, device, dtype)
    _probe("inception", path, network)
    return network


def plain(path: Path, device: torch.device | str, dtype: torch.dtype) -> Inception:
    """The same network in plain PyTorch, with the weights of the official file.

    Raises InputError if names or shapes of the weights are not the expected ones, or if the features of a test image
    differ from those of the file's own code.
    """
    layers = inception_layers()
    fold(layers, _weights_of(path), path)
    network = Inception(layers, device, dtype)
    expected = _probe("inception-pt", path, _scripted("inception-pt", path, device, dtype))
    difference = float((_probe("inception-pt", path, network) - expected).norm() / expected.norm())
    if difference > TOLERANCE:
        raise InputError(
            f"extractor inception-pt: the code in {path} gives features that differ by {difference:.1e} of their norm "
            f"from this network's, allowed are {TOLERANCE:g}; use `inception`"
        )
    return network


def _streamlined(layers: nn.Module) -> nn.Module:
    """The same function, without operations that prevent channels last in memory and the folding of batch norms.

    The official code copies every branch to the default memory order before it joins them, and casts every weight to
    the type that it already has. clean-fid, which runs it unchanged, takes 1.7 times as long.
    """
    with quiet_script():
        frozen: nn.Module = torch.jit.freeze(layers, optimize_numerics=False)
        graph: Any = frozen.graph
        # Only a view depends on the memory order.
        copies = [] if graph.findAllNodes("aten::view") else graph.findAllNodes("aten::contiguous")
        for node in copies + [cast for cast in graph.findAllNodes("aten::to") if _keeps_the_type(cast)]:
            node.output().replaceAllUsesWith(next(node.inputs()))
            node.destroy()
        torch.jit.run_frozen_optimizations(frozen)  # type: ignore[attr-defined]
    return frozen


def _keeps_the_type(cast: Any) -> bool:
    """Whether a node casts a constant to the type of an activation; all have the type that the module was moved to."""
    value, dtype, *_ = cast.inputs()
    return bool(value.node().kind() == "prim::Constant" and dtype.node().kind() == "prim::dtype")


def _scripted(extractor: str, path: Path, device: torch.device | str, dtype: torch.dtype) -> Inception:
    module = load_script(extractor, path, device)
    if not isinstance(getattr(module, "layers", None), nn.Module):
        raise InputError(f"extractor {extractor}: {path} is no Inception: it has no module `layers`")
    return Inception(module.layers, device, dtype)


def _probe(extractor: str, path: Path, network: Inception) -> Tensor:
    """Features of one image of noise. Raises InputError if the network fails or they are not finite."""
    image = torch.randint(256, (1, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    try:
        features = network(image)
    except RuntimeError as error:
        raise InputError(
            f"extractor {extractor}: {path} is no Inception: {DIM} features of an image are wanted "
            f"({first_line(error)})"
        ) from error
    if not torch.isfinite(features).all():
        raise InputError(f"extractor {extractor}: {path} gives features that are not finite; fetch the file again")
    return features


def _weights_of(path: Path) -> dict[str, Tensor]:
    """The weights of all layers but the classifier's, named without the prefix `layers.`."""
    weights: dict[str, Tensor] = load_script("inception-pt", path, "cpu").state_dict()
    kept = {name: weight for name, weight in weights.items() if name not in ("output.weight", "output.bias")}
    return {name.removeprefix("layers."): weight for name, weight in kept.items()}


class Unit(nn.Conv2d):
    """Convolution and ReLU; weight and bias include a folded batch norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, same: bool = True
    ) -> None:
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (size[0] // 2, size[1] // 2) if same else (0, 0)
        super().__init__(inputs, outputs, size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu_()


class Side(nn.Sequential):
    """Applies its modules to the same input and joins the results along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        parts = []  # TorchScript supports a loop over modules, but no comprehension
        for branch in self:
            parts.append(branch(x))
        return join(parts)


class Split(nn.Module):
    """The last two blocks, in which two branches split again."""

    def __init__(self, inputs: int, pool: nn.Module) -> None:
        super().__init__()
        self.conv = Unit(inputs, 320, 1)
        self.tower_conv = Unit(inputs, 384, 1)
        self.tower_mixed_conv = Unit(384, 384, (1, 3))
        self.tower_mixed_conv_1 = Unit(384, 384, (3, 1))
        self.tower_1_conv = Unit(inputs, 448, 1)
        self.tower_1_conv_1 = Unit(448, 384, 3)
        self.tower_1_mixed_conv = Unit(384, 384, (1, 3))
        self.tower_1_mixed_conv_1 = Unit(384, 384, (3, 1))
        self.tower_2_pool = pool
        self.tower_2_conv = Unit(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        short = self.tower_conv(x)
        long = self.tower_1_conv_1(self.tower_1_conv(x))
        parts = [
            self.conv(x),
            self.tower_mixed_conv(short),
            self.tower_mixed_conv_1(short),
            self.tower_1_mixed_conv(long),
            self.tower_1_mixed_conv_1(long),
            self.tower_2_conv(self.tower_2_pool(x)),
        ]
        return join(parts)


def join(parts: list[Tensor]) -> Tensor:
    """The branches joined along the channels."""
    return torch.cat(parts, 1)


def inception_layers() -> nn.Sequential:
    """Inception-v3 (Szegedy et al., 2016) as of 2015-12-05: [N, 3, 299, 299] in [-1, 1] to [N, 2048, 1, 1].

    It differs from the published network: average pooling ignores the padding, and the last block uses maximum pooling.
    Modules have the names of the official file.
    """
    return _chain(
        conv=Unit(3, 32, 3, stride=2, same=False),
        conv_1=Unit(32, 32, 3, same=False),
        conv_2=Unit(32, 64, 3),
        pool0=nn.MaxPool2d(3, 2),
        conv_3=Unit(64, 80, 1),
        conv_4=Unit(80, 192, 3, same=False),
        pool1=nn.MaxPool2d(3, 2),
        mixed=_block_35(192, 32),
        mixed_1=_block_35(256, 64),
        mixed_2=_block_35(288, 64),
        mixed_3=_reduction_35(288),
        mixed_4=_block_17(128),
        mixed_5=_block_17(160),
        mixed_6=_block_17(160),
        mixed_7=_block_17(192),
        mixed_8=_reduction_17(768),
        mixed_9=Split(1280, _average()),
        mixed_10=Split(2048, nn.MaxPool2d(3, 1, padding=1)),
        pool2=nn.AvgPool2d(8),
    )


def fold(layers: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Sets every Unit of `layers` to its convolution and its batch norm, which has no gain, from `weights`.

    The names in `weights` are `<module>.weight`, `.beta`, `.mean` and `.var`. Raises InputError, which names `path`, if
    one of them is missing, has another shape, or belongs to no Unit.
    """
    rest = dict(weights)
    for name, unit in layers.named_modules():
        if not isinstance(unit, Unit):
            continue
        wanted = {"weight": unit.weight.shape} | dict.fromkeys(("beta", "mean", "var"), unit.weight.shape[:1])
        parts = {part: rest.pop(f"{name}.{part}", None) for part in wanted}
        for part, shape in wanted.items():
            found = parts[part]
            if found is None or found.shape != shape:
                given = "is missing" if found is None else f"has the shape {tuple(found.shape)}"
                raise InputError(
                    f"extractor inception-pt: {path}: {name}.{part} {given}, wanted is {tuple(shape)}; use `inception`"
                )
        weight, beta, mean, var = (part.double() for part in parts.values() if part is not None)
        scale = (var + _EPSILON).rsqrt()
        # Folded in float64, which is kept until the network is converted to its type.
        unit.weight = nn.Parameter(weight * scale.view(-1, 1, 1, 1))
        unit.bias = nn.Parameter(beta - mean * scale)
    if rest:
        raise InputError(f"extractor inception-pt: {path}: unknown weights {', '.join(sorted(rest))}; use `inception`")


def _chain(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _side(**modules: nn.Module) -> Side:
    return Side(OrderedDict(modules))


def _average() -> nn.Module:
    return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)


def _block_35(inputs: int, pooled: int) -> nn.Module:
    return _side(
        conv=Unit(inputs, 64, 1),
        tower=_chain(conv=Unit(inputs, 48, 1), conv_1=Unit(48, 64, 5)),
        tower_1=_chain(conv=Unit(inputs, 64, 1), conv_1=Unit(64, 96, 3), conv_2=Unit(96, 96, 3)),
        tower_2=_chain(pool=_average(), conv=Unit(inputs, pooled, 1)),
    )


def _reduction_35(inputs: int) -> nn.Module:
    return _side(
        conv=Unit(inputs, 384, 3, stride=2, same=False),
        tower=_chain(conv=Unit(inputs, 64, 1), conv_1=Unit(64, 96, 3), conv_2=Unit(96, 96, 3, stride=2, same=False)),
        pool=nn.MaxPool2d(3, 2),
    )


def _block_17(width: int) -> nn.Module:
    return _side(
        conv=Unit(768, 192, 1),
        tower=_chain(conv=Unit(768, width, 1), conv_1=Unit(width, width, (1, 7)), conv_2=Unit(width, 192, (7, 1))),
        tower_1=_chain(
            conv=Unit(768, width, 1),
            conv_1=Unit(width, width, (7, 1)),
            conv_2=Unit(width, width, (1, 7)),
            conv_3=Unit(width, width, (7, 1)),
            conv_4=Unit(width, 192, (1, 7)),
        ),
        tower_2=_chain(pool=_average(), conv=Unit(768, 192, 1)),
    )


def _reduction_17(inputs: int) -> nn.Module:
    return _side(
        tower=_chain(conv=Unit(inputs, 192, 1), conv_1=Unit(192, 320, 3, stride=2, same=False)),
        tower_1=_chain(
            conv=Unit(inputs, 192, 1),
            conv_1=Unit(192, 192, (1, 7)),
            conv_2=Unit(192, 192, (7, 1)),
            conv_3=Unit(192, 192, 3, stride=2, same=False),
        ),
        pool=nn.MaxPool2d(3, 2),
    )
