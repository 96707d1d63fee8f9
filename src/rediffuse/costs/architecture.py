"""What a model costs before it is loaded: its weights, and the passes of its networks by row."""

from collections.abc import Mapping
from dataclasses import dataclass

from rediffuse.costs import networks
from rediffuse.costs.counts import Counts, counted
from rediffuse.costs.networks import Settings
from rediffuse.costs.tape import FULL, Learns, Tape
from rediffuse.costs.work import Work

HALF = 2
"""Bytes of a number in bf16 and fp16."""


@dataclass(frozen=True)
class Architecture:
    """A model's costs. A row is one sample at one step, with both passes of guidance if it is
    guided.

    Attributes:
        network: The trained network, for one latent.
        decoder: From a latent to a sample; None: decoding costs nothing.
        text: The text encoder, for one text; None: there is none.
        other_parameters: Weights that are loaded and not used in a run.
        learns: What is trained.
        precision: Of the networks: fp32, bf16 or fp16.
        is_guided: Whether a row is two latents for the network.
        is_checkpointed: Whether gradient checkpointing is on.
        latent_numbers: The size of a latent.
        sample_numbers: The size of a decoded sample.
        embedding_numbers: The size of an embedded text.
    """

    network: Counts
    decoder: Counts | None
    text: Counts | None
    other_parameters: int
    learns: Learns
    precision: str
    is_guided: bool
    is_checkpointed: bool
    latent_numbers: int
    sample_numbers: int
    embedding_numbers: int

    @property
    def trains_all(self) -> bool:
        """Whether all weights of the network are trained."""
        return self.learns.rank is None

    @property
    def latents(self) -> int:
        """How many latents of the network a row is."""
        return 2 if self.is_guided else 1

    @property
    def width(self) -> int:
        """Bytes of a number of a frozen weight."""
        return FULL if self.trains_all else width_of(self.precision)

    @property
    def weights(self) -> dict[str, int]:
        """Bytes of the weights of each part, without an adapter."""
        found = {"network": self.network.parameters * self.width}
        if self.decoder is not None:
            decoder = self.decoder.parameters + self.other_parameters
            found["autoencoder"] = decoder * self.width
        if self.text is not None:
            found["text encoder"] = self.text.parameters * self.width
        return found

    @property
    def optimizer_bytes(self) -> int:
        """Trained parameters beside frozen ones, their gradients, the sum of those of several
        parts, and both moments of Adam, all in fp32.
        """
        return self.network.trained * FULL * (4 if self.trains_all else 5)

    @property
    def sampling_bytes(self) -> int:
        """Of results that are alive at a time, for one row without gradients."""
        return self.network.passing_bytes * self.latents

    @property
    def decoding_bytes(self) -> int:
        """Of results that are alive at a time, for one latent."""
        return self.decoder.passing_bytes if self.decoder else 0

    def training_bytes(self, *, checkpointed: bool | None = None) -> int:
        """Of activations for one row; by default with gradient checkpointing if it is on."""
        on = self.is_checkpointed if checkpointed is None else checkpointed
        saved = self.network.checkpointed_bytes if on else self.network.saved_bytes
        return saved * self.latents

    def sampling(self, rows: float) -> Work:
        """Returns the work of a pass without gradients."""
        return self.network.forward.of(rows * self.latents)

    def training(self, rows: float) -> Work:
        """Returns the work of a pass with gradients."""
        work = self.network.forward + self.network.backward
        if self.is_checkpointed:
            work += self.network.recomputed
        return work.of(rows * self.latents)

    def decoding(self, rows: float) -> Work:
        """Returns the work of decoding so many latents together."""
        return self.decoder.forward.of(rows) if self.decoder else Work()

    def encoding(self, texts: float) -> Work:
        """Returns the work of encoding texts one by one."""
        return self.text.forward.times(texts) if self.text else Work()


def width_of(precision: str) -> int:
    """Returns the bytes of a number."""
    return FULL if precision == "fp32" else HALF


def latent_diffusion(
    parts: Mapping[str, Settings],
    learns: Learns,
    *,
    precision: str,
    guidance_scale: float,
    size_pixels: int | None,
    is_checkpointed: bool,
) -> Architecture:
    """Returns the costs of a model of Stable Diffusion's classes.

    Args:
        parts: The configurations of `unet`, `vae` and `text_encoder`.
        learns: What is trained.
        precision: Of the networks.
        guidance_scale: Of classifier-free guidance; 1: there is none.
        size_pixels: The side of the images; None: as the model was trained.
        is_checkpointed: Whether gradient checkpointing is on.

    Raises:
        Unknown: For networks of other kinds.
    """
    unet, vae, text = parts["unet"], parts["vae"], parts["text_encoder"]
    per_latent = 2 ** (len(vae["block_out_channels"]) - 1)
    side = size_pixels // per_latent if size_pixels else unet.get("sample_size", 64)
    tokens = text.get("max_position_embeddings", 77)
    width = width_of(precision)
    network, decoder, encoder, words = Tape(learns, width), Tape(None, width), Tape(), Tape()
    networks.conditional_unet(network, unet, side, tokens)
    networks.decoder(decoder, vae, side)
    networks.encoder(encoder, vae, side * per_latent)
    networks.text_encoder(words, text)
    return Architecture(
        network=counted(network),
        decoder=counted(decoder),
        text=counted(words),
        other_parameters=counted(encoder).parameters,
        learns=learns,
        precision=precision,
        is_guided=guidance_scale != 1,
        is_checkpointed=is_checkpointed,
        latent_numbers=unet.get("in_channels", 4) * side**2,
        sample_numbers=3 * (side * per_latent) ** 2,
        embedding_numbers=tokens * text["hidden_size"],
    )


def pixel_diffusion(
    unet: Settings, learns: Learns, *, precision: str, is_checkpointed: bool
) -> Architecture:
    """Returns the costs of an unconditional model of pixels; the arguments are those of
    `latent_diffusion`.
    """
    side = unet["sample_size"]
    tape = Tape(learns, width_of(precision))
    networks.unconditional_unet(tape, {"in_channels": 3, "out_channels": 3, **unet}, side)
    return Architecture(
        network=counted(tape),
        decoder=None,
        text=None,
        other_parameters=0,
        learns=learns,
        precision=precision,
        is_guided=False,
        is_checkpointed=is_checkpointed,
        latent_numbers=unet.get("in_channels", 3) * side**2,
        sample_numbers=3 * side**2,
        embedding_numbers=0,
    )
