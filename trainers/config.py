"""Typed, frozen configuration of one training run.

Every field is a search dimension under the same name: in the sweep file, in the study, in MLflow.
"""

from __future__ import annotations

import json
import reprlib
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainers import formats
from trainers.errors import InputError

#: Images in one kimg, the unit in which people read and write training length.
KIMG = 1000

Lipschitz = Literal["none", "clip", "penalty", "spectral", "clip+penalty", "clip+spectral", "penalty+spectral"]


LARGEST_BATCH = 4096


class Config(BaseModel):
    """Hyper-parameters that every GAN shares; a family adds its own by subclassing.

    Unknown keys, wrong types and values out of range are errors.

    A field with a default may be added at any time, and goes on under running sweeps and old checkpoints: the default
    in the class means what the program did before the field existed, and does not change later; a better value for new
    sweeps is set in the defaults of the systems. A field is renamed or removed with an entry in `formats.SETTINGS`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Length and data
    kimg: float = Field(100.0, gt=0, description="length of the run in kimg: thousands of images shown to G")
    batch: int = Field(64, ge=2, le=LARGEST_BATCH, description="images per step, real and generated alike")
    sampling: Literal["random", "shuffled", "sequential"] = Field(
        "shuffled",
        description="batches drawn at random with replacement, or epochs, shuffled or not, without their last part",
    )
    drawn_classes: int = Field(0, ge=0, description="classes asked of G in training: the first n, or all for 0")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of initial weights, data order and noise")
    threads: int = Field(1, ge=1, le=256, description="CPU threads; gradients differ in the last bits between counts")

    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="arithmetic of convolutions and matrix products in training; weights stay float32"
    )

    # Optimisation
    optimizer: Literal["adam", "rmsprop", "sgd"] = Field("adam", description="optimizer of every network")
    g_lr: float = Field(2e-4, gt=0, le=1, description="learning rate of the generator")
    d_lr: float = Field(2e-4, gt=0, le=1, description="learning rate of the discriminator (TTUR if unlike g_lr)")
    beta1: float = Field(0.5, ge=0, lt=1, description="first-moment decay of Adam, momentum of SGD")
    beta2: float = Field(0.999, ge=0, lt=1, description="second-moment decay of Adam, decay of RMSprop")
    n_critic: int = Field(1, ge=1, le=100, description="discriminator steps per generator step, each on a fresh batch")
    schedule: Literal["constant", "exponential", "cosine", "linear"] = Field(
        "constant", description="law of both learning rates; cosine and linear reach 0 at kimg"
    )
    schedule_rate: float = Field(0.95, gt=0, le=1, description="factor of one step of the exponential schedule")
    schedule_period: int = Field(500, ge=1, description="generator steps between two steps of the exponential schedule")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay per step of the averaged generator; 0 is no average")

    # Losses
    loss: Literal["bce", "hinge", "least-squares", "wasserstein"] = Field("bce", description="adversarial loss")
    saturating: bool = Field(False, description="whether G minimises log(1 - D(G(z))) under bce, not -log D(G(z))")
    smoothing: Literal["none", "fixed", "random", "two-sided"] = Field(
        "none", description="real target 1 - s, one drawn from [1 - s, 1], or 1 - s with fake target s"
    )
    smoothing_strength: float = Field(0.1, ge=0, lt=0.5, description="strength s of label smoothing")
    label_flip: float = Field(0.0, ge=0, lt=0.5, description="share of real images that D is told are fake")

    # Lipschitz control of the discriminator
    lipschitz: Lipschitz = Field(
        "none", description="weight clipping, gradient penalty, spectral normalisation, or two of them"
    )
    clip_value: float = Field(0.01, gt=0, le=10, description="bound of the clipped parameters")
    clip_scope: Literal["trainable", "weights", "all-but-norm"] = Field(
        "trainable", description="what is clipped: all, convolutions' and dense layers' weights, all but normalisation"
    )
    penalty_weight: float = Field(10.0, gt=0, le=1000, description="weight of the gradient penalty")

    # Changes to real images
    cutmix: float = Field(0.0, ge=0, le=1, description="share of real images that get a box of another one (CutMix)")
    cutmix_alpha: float = Field(1.0, gt=0, le=10, description="both parameters of CutMix's Beta distribution")
    saturation: float = Field(0.0, ge=0, le=1, description="largest change of colour saturation; gray has none")
    sharpening: float = Field(0.0, ge=0, le=1, description="amount of sharpening; shifts the training distribution")
    oversampling: int = Field(
        0, ge=0, le=10**8, description="images per epoch after drawing more, evenly over the classes"
    )

    # Networks
    latent: int = Field(100, ge=1, le=4096, description="size of the noise vector z")
    latent_law: Literal["normal", "uniform"] = Field(
        "normal", description="law of the noise: standard normal, or uniform in [-1, 1]"
    )
    width: float = Field(1.0, gt=0, le=16, description="factor on the filter counts of both networks")
    slope: float = Field(0.2, ge=0, lt=1, description="negative slope of leaky ReLU")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout at the discriminator's output layer")
    dropout_place: Literal["features", "logit"] = Field(
        "features", description="whether dropout acts on the features before D's output layer, or on its logit"
    )
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of initial weights")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.loss in ("wasserstein", "hinge") and self.smoothing != "none":
            raise ValueError(f"smoothing is {self.smoothing!r} but loss {self.loss} has no labels: allowed is 'none'")
        if self.loss in ("wasserstein", "hinge") and self.label_flip:
            raise ValueError(f"label_flip is {self.label_flip!r} but loss {self.loss} has no labels: allowed is 0")
        if self.cutmix and self.controls("penalty"):
            raise ValueError(f"cutmix is {self.cutmix!r}, but a gradient penalty needs unmixed labels: allowed is 0")
        if self.saturating and self.loss != "bce":
            raise ValueError(f"saturating is true but loss is {self.loss!r}: allowed with bce only")
        return self

    def controls(self, method: str) -> bool:
        """Whether `method` (clip, penalty or spectral) is part of the Lipschitz control."""
        return method in self.lipschitz.split("+")


AnyConfig = TypeVar("AnyConfig", bound=Config)


def renewed(kind: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    """`values` of some fields of `kind`, as an earlier release may have called them, under their names of today.

    Raises InputError for a value of a field that was removed and can no longer have its effect.
    """
    for owner in reversed(kind.__mro__):
        for migration in formats.SETTINGS.get(owner.__name__, ()):
            values = migration(values)
    return values


def from_stored(kind: type[AnyConfig], stored: Any, source: str) -> AnyConfig:
    """The configuration that this or an earlier release has stored by `model_dump(mode="json")`.

    A field that `stored` lacks is younger than it and takes the default of its class, with which everything behaves as
    it did before the field existed. Raises InputError that names `source` for fields or values that are not known.
    """
    if not isinstance(stored, dict):
        raise InputError(f"{source}: its configuration is {reprlib.repr(stored)}, and no mapping of settings")
    try:
        # As JSON: strictly, so that texts are no numbers, but with lists for tuples.
        return kind.model_validate_json(json.dumps(renewed(kind, stored)), strict=True)
    except ValidationError as error:
        found = problems(error)
        if newer := [".".join(path) for path, text in found if text == UNKNOWN]:
            text = f"this program does not know the settings {', '.join(newer)}; install a newer gansweep"
        else:
            text = "; ".join(f"{'.'.join(path) or 'configuration'}: {text}" for path, text in found)
        raise InputError(f"{source}: {text}") from None
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def overlay(config: Config, values: dict[str, Any]) -> Config:
    """`config` with `values` in place of its own, validated as a whole.

    Raises pydantic's ValidationError, whose entries name each bad key.
    """
    return type(config).model_validate({**config.model_dump(), **values})


#: What `problems` says of a key that the model lacks.
UNKNOWN = "unknown key"


def problems(error: ValidationError) -> list[tuple[tuple[str, ...], str]]:
    """Each complaint of pydantic as (path of the key, sentence with the bad value and what is allowed)."""
    return [(tuple(str(part) for part in entry["loc"]), _sentence(dict(entry))) for entry in error.errors()]


def _sentence(entry: dict[str, Any]) -> str:
    if entry["type"] == "extra_forbidden":
        return UNKNOWN
    if entry["type"] == "missing":
        return "required key is missing"
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "value_error":
        return str(message)
    return f"{message[0].lower()}{message[1:]}, got {entry['input']!r}"


def configure(defaults: Config, values: dict[str, Any], source: str) -> Config:
    """As `overlay`, for values a person wrote.

    Raises InputError that names `source`, each bad key, its value and what is allowed.
    """
    try:
        return overlay(defaults, values)
    except ValidationError as error:
        known = ", ".join(type(defaults).model_fields)
        lines = []
        for path, sentence in problems(error):
            hint = f" (known: {known})" if sentence == UNKNOWN else ""
            lines.append(f"{source}: {'.'.join(path) or 'configuration'}: {sentence}{hint}")
        raise InputError("\n".join(lines)) from None
