"""Networks out of files: proven before they are used, and refused in one sentence where they are something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from trainers.data.files import digest
from trainers.data.images import ImageData
from trainers.errors import InputError
from trainers.evaluation import extractors, inception, weights
from trainers.evaluation.extractors import Extractor, build_extractor, check_extractor
from trainers.evaluation.spec import ExtractorSpec

# The official weights are in this format, and so is their stand-in.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class _Layers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, (32, 64))[:, 1:2].contiguous()


class _StandIn(nn.Module):
    """What clean-fid uses of the official module: `layers`, from [-1, 1] to 2048 features in any shape."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = _Layers()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "stand-in.pt"
    torch.jit.save(torch.jit.script(_StandIn()), str(path))
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: Path) -> None:
        target.write_bytes(b"half a file")
        raise OSError("connection lost")

    monkeypatch.setattr(weights, "download", fail)


def _data(shape: tuple[int, ...] = (3, 20, 20)) -> ImageData:
    images = torch.randint(0, 256, (5, *shape), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return ImageData(images, torch.arange(5) % 2, 2, "noise", "train")


def _build(spec: ExtractorSpec, cache: Path) -> Extractor:
    return build_extractor(spec, _data(), _data(), cache, "cpu")


def test_custom_weights_say_so_in_the_id(stand_in: Path, tmp_path: Path) -> None:
    spec = ExtractorSpec(name="inception", weights=stand_in, sha256=digest(stand_in))
    check_extractor(spec, tmp_path)
    assert _build(spec, tmp_path).id.startswith(f"inception-custom-{digest(stand_in)[:12]}-")


def test_inception_sees_images_as_clean_fid_prepares_them(stand_in: Path, tmp_path: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 20, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    seen = _build(ExtractorSpec(name="inception", weights=stand_in), tmp_path)(images)
    green = images[2, 1].float().numpy()
    resized = np.asarray(Image.fromarray(green).resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
    expected = torch.nn.functional.adaptive_avg_pool2d((torch.from_numpy(resized)[None] - 128) / 128, (32, 64))
    assert seen.logits is None
    torch.testing.assert_close(seen.features[2], expected.flatten())


def test_gray_counts_as_three_equal_channels(stand_in: Path, tmp_path: Path) -> None:
    extractor = _build(ExtractorSpec(name="inception", weights=stand_in), tmp_path)
    gray = torch.randint(0, 256, (2, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(extractor(gray).features, extractor(gray.expand(-1, 3, -1, -1)).features)


def test_batches_do_not_change_features(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _data().images
    spec = ExtractorSpec(name="inception", weights=stand_in)
    whole = _build(spec, tmp_path)(images).features
    monkeypatch.setitem(extractors.INCEPTION_BATCH, "cpu", 2)
    torch.testing.assert_close(_build(spec, tmp_path)(images).features, whole)


def test_weights_with_another_checksum_are_refused(stand_in: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{stand_in} has the sha256 {digest(stand_in)}, not {'0' * 64}"):
        check_extractor(ExtractorSpec(name="inception", weights=stand_in, sha256="0" * 64), tmp_path)
    with pytest.raises(InputError, match=r"none\.pt does not exist"):
        check_extractor(ExtractorSpec(name="inception", weights=tmp_path / "none.pt"), tmp_path)
    shutil.copy(stand_in, tmp_path / weights.NAME)
    with pytest.raises(InputError, match=weights.SHA256):
        check_extractor(ExtractorSpec(name="inception"), tmp_path)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.pt"
    path.write_bytes(b"no network")
    with pytest.raises(InputError, match=r"some\.pt is no whole TorchScript file"):
        _build(ExtractorSpec(name="inception", weights=path), tmp_path)


@pytest.mark.usefixtures("offline")
def test_missing_weights_are_one_sentence_that_says_where_the_file_belongs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="connection lost") as caught:
        check_extractor(ExtractorSpec(name="inception"), tmp_path)
    assert str(tmp_path / weights.NAME) in str(caught.value)
    assert weights.URL in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_download_of_something_else_never_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "download", lambda target: target.write_bytes(b"an error page"))
    with pytest.raises(InputError, match="what arrived has the sha256"):
        check_extractor(ExtractorSpec(name="inception"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_good_download_is_kept(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SHA256", digest(stand_in))
    monkeypatch.setattr(weights, "download", lambda target: shutil.copyfile(stand_in, target))
    check_extractor(ExtractorSpec(name="inception"), tmp_path)
    monkeypatch.setattr(weights, "download", lambda target: pytest.fail("downloaded again"))
    extractor = _build(ExtractorSpec(name="inception"), tmp_path)
    assert extractor.id == f"inception-{digest(stand_in)[:12]}-float32-bicubic299"
    assert extractor.dim == inception.DIM


@pytest.mark.usefixtures("offline")
def test_a_failed_download_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="connection lost"):
        check_extractor(ExtractorSpec(name="inception"), tmp_path / "new" / "cache")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("offline")
def test_a_failed_download_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "other").touch()
    with pytest.raises(InputError, match="connection lost"):
        check_extractor(ExtractorSpec(name="inception"), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["other"]


# Files that are something else


@pytest.mark.parametrize("name", ["inception", "inception-pt", "custom"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_weights_are_refused(share: float, name: str, stand_in: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.pt"
    path.write_bytes(stand_in.read_bytes()[: int(share * stand_in.stat().st_size)])
    spec = ExtractorSpec.model_validate({"name": name, "weights": path})
    with pytest.raises(InputError, match=rf"extractor {name}: .*half\.pt is no whole TorchScript file \(.+\)$"):
        _build(spec, tmp_path)
    promised = spec.model_copy(update={"sha256": digest(stand_in)})
    with pytest.raises(InputError, match=f"half.pt has the sha256 {digest(path)}, not {digest(stand_in)}"):
        check_extractor(promised, tmp_path)


def test_an_html_page_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = b"\n<!DOCTYPE html><title>Sign in</title>"
    (tmp_path / "page.pt").write_bytes(page)
    with pytest.raises(InputError, match=r"page\.pt is an HTML page, not weights"):
        check_extractor(ExtractorSpec(name="inception", weights=tmp_path / "page.pt"), tmp_path)
    monkeypatch.setattr(weights, "download", lambda target: target.write_bytes(page))
    with pytest.raises(InputError, match="what arrived is an HTML page with the sha256"):
        check_extractor(ExtractorSpec(name="inception"), tmp_path / "cache")


def _script(module: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module), str(path))
    return path


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = x.mean(dim=(2, 3))
        return features, self.linear(features)


class _Means(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class _Picture(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class _Gray(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(x, torch.ones(2, 1, 1, 1)).mean(dim=(2, 3))


class _Overflow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = _Means()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features.log()


def test_a_module_that_is_no_inception_is_refused(tmp_path: Path) -> None:
    for name, wanted in (("inception", "has no module `layers`"), ("inception-pt", "unknown weights|is missing")):
        spec = ExtractorSpec.model_validate({"name": name, "weights": _script(_Head(), tmp_path / "head.pt")})
        with pytest.raises(InputError, match=rf"extractor {name}: .*head\.pt.*({wanted})"):
            _build(spec, tmp_path)
    spec = ExtractorSpec(name="inception", weights=_script(_Overflow(), tmp_path / "means.pt"))
    with pytest.raises(InputError, match=r"means\.pt is no Inception: 2048 features of an image are wanted"):
        _build(spec, tmp_path)


# The plain network


def _weights(layers: nn.Module) -> dict[str, Tensor]:
    units = {name: unit for name, unit in layers.named_modules() if isinstance(unit, inception.Unit)}
    shapes = {f"{name}.weight": unit.weight.shape for name, unit in units.items()}
    shapes |= {
        f"{name}.{part}": unit.weight.shape[:1] for name, unit in units.items() for part in ("beta", "mean", "var")
    }
    values = {"weight": 2.0, "beta": 3.0, "mean": 5.0, "var": 7.0}
    return {name: torch.full(shape, values[name.rpartition(".")[2]]) for name, shape in shapes.items()}


def test_the_plain_network_has_the_published_size() -> None:
    layers = inception.inception_layers()
    assert sum(isinstance(module, inception.Unit) for module in layers.modules()) == 94
    # The usual 23,834,568 (without the second classifier) less the classifier and the gains of the batch norms.
    assert sum(p.numel() for p in layers.parameters()) == 23_834_568 - 1000 * 2049 - 17_216
    with torch.no_grad():
        assert tuple(layers(torch.zeros(1, 3, 299, 299)).shape) == (1, 2048, 1, 1)


def test_every_weight_is_used_exactly_once() -> None:
    path = Path("file.pt")
    layers = inception.inception_layers()
    given = _weights(layers)
    inception.fold(layers, given, path)
    scale = (7 + 1e-3) ** -0.5
    for unit in (module for module in layers.modules() if isinstance(module, inception.Unit)):
        torch.testing.assert_close(unit.weight, torch.full_like(unit.weight, 2 * scale))
        assert unit.bias is not None
        torch.testing.assert_close(unit.bias, torch.full_like(unit.bias, 3 - 5 * scale))
    for name in ("conv.weight", "mixed_4.tower.conv_1.beta", "mixed_10.tower_1_mixed_conv.var"):
        rest = {key: value for key, value in given.items() if key != name}
        with pytest.raises(InputError, match=rf"file\.pt: {name} is missing"):
            inception.fold(inception.inception_layers(), rest, path)
        with pytest.raises(InputError, match=rf"file\.pt: {name} has the shape \(7,\), wanted is"):
            inception.fold(inception.inception_layers(), given | {name: torch.ones(7)}, path)
    with pytest.raises(InputError, match=r"file\.pt: unknown weights mixed_11\.beta"):
        inception.fold(layers, given | {"mixed_11.beta": torch.ones(3)}, path)


# Any network


def test_a_custom_network_sees_the_images_as_they_are(tmp_path: Path) -> None:
    path = _script(_Means(), tmp_path / "means.pt")
    extractor = _build(ExtractorSpec(name="custom", weights=path, sha256=digest(path)), tmp_path)
    seen = extractor(_data().images)
    assert extractor.id == f"custom-{digest(path)[:12]}-float32-asis"
    assert (extractor.dim, extractor.classes, seen.logits) == (3, None, None)
    torch.testing.assert_close(seen.features, _data().images.float().mean(dim=(2, 3)))


def test_a_custom_network_may_classify(tmp_path: Path) -> None:
    extractor = _build(ExtractorSpec(name="custom", weights=_script(_Head(), tmp_path / "head.pt")), tmp_path)
    seen = extractor(_data().images)
    assert seen.logits is not None
    assert (extractor.dim, extractor.classes, tuple(seen.logits.shape)) == (3, 5, (5, 5))


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (_Picture(), r"gives \(2, 3, 20, 20\) for 2 images; allowed are floating features \[N, D\]"),
        (_Gray(), r"takes no float32 images \(2, 3, 20, 20\) in \[0, 255\]"),
    ],
)
def test_a_custom_network_of_another_kind_is_refused(module: nn.Module, complaint: str, tmp_path: Path) -> None:
    spec = ExtractorSpec(name="custom", weights=_script(module, tmp_path / "other.pt"))
    with pytest.raises(InputError, match=rf"extractor custom: .*other\.pt {complaint}"):
        _build(spec, tmp_path)
