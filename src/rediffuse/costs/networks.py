"""diffusers' U-Nets and autoencoders and CLIP's text encoder, recorded from their configurations.

Each function raises Unknown for a configuration with parts that it does not know.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rediffuse.costs.blocks import Attention, attended, middle, resnet
from rediffuse.costs.tape import Tape, Value

Settings = Mapping[str, Any]
"""The content of a config.json."""
USUAL = {
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "downsample_type": ("conv",),
    "dual_cross_attention": (False,),
    "encoder_hid_dim_type": (None,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_embedding_type": ("positional",),
    "addition_embed_type": (None, "text"),
    "upsample_type": ("conv",),
}
"""Settings in which networks could differ from those recorded here, and their known values."""


class Unknown(ValueError):
    """A network with parts that are not known here."""


def conditional_unet(tape: Tape, settings: Settings, side: int, tokens: int) -> None:
    """UNet2DConditionModel, for latents of a width and height and a text of so many tokens."""
    _refuse_others(settings)
    channels = settings["block_out_channels"]
    width = settings.get("cross_attention_dim", 1280)
    depths = _each(settings.get("transformer_layers_per_block", 1), channels)
    heads = _each(
        settings.get("num_attention_heads") or settings.get("attention_head_dim", 8), channels
    )
    text = tape.input(tokens, width)
    linear = bool(settings.get("use_linear_projection", False))

    def attention(level: int) -> Attention:
        return Attention(heads[level], depths[level], text, linear)

    given = None
    if settings.get("addition_embed_type") == "text":
        given = pooled_text(tape, text, settings.get("time_embedding_dim") or 4 * channels[0])
    has_middle = settings.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    inner = attention(-1) if has_middle == "UNetMidBlock2DCrossAttn" else None
    levels = [attention(level) for level in range(len(channels))]
    _unet(tape, settings, side, levels, inner, given, has_middle=bool(has_middle))


def unconditional_unet(tape: Tape, settings: Settings, side: int) -> None:
    """UNet2DModel."""
    _refuse_others(settings)
    channels = settings["block_out_channels"]
    width = settings.get("attention_head_dim", 8)
    levels = [Attention(each // (width or each)) for each in channels]
    inner = levels[-1] if settings.get("add_attention", True) else None
    has_middle = bool(settings.get("mid_block_type", "UNetMidBlock2D"))
    _unet(tape, settings, side, levels, inner, None, has_middle=has_middle)


def _unet(
    tape: Tape,
    settings: Settings,
    side: int,
    levels: Sequence[Attention],
    inner: Attention | None,
    given: Value | None,
    *,
    has_middle: bool,
) -> None:
    """given: what is added to the embedded time."""
    channels = list(settings["block_out_channels"])
    layers = _each(settings.get("layers_per_block", 2), channels)
    time = _embedded_time(tape, settings, channels[0], given)
    sample = tape.input(settings.get("in_channels", 4), side, side)
    x = tape.conv("conv_in", sample, channels[0])
    skips = [x]
    for level, kind in enumerate(settings["down_block_types"]):
        name = f"down_blocks.{level}"
        for number in range(layers[level]):
            x = resnet(tape, f"{name}.resnets.{number}", x, time, channels[level])
            if _attends(kind):
                x = attended(tape, f"{name}.attentions.{number}", x, levels[level])
            skips.append(x)
        if level < len(channels) - 1:
            x = tape.conv(f"{name}.downsamplers.0.conv", x, channels[level], stride=2)
            skips.append(x)
    if has_middle:
        x = middle(tape, "mid_block", x, time, inner)
    for place, kind in enumerate(settings["up_block_types"]):
        name, level = f"up_blocks.{place}", len(channels) - 1 - place
        for number in range(layers[level] + 1):
            x = tape.joined(x, skips.pop())
            x = resnet(tape, f"{name}.resnets.{number}", x, time, channels[level])
            if _attends(kind):
                x = attended(tape, f"{name}.attentions.{number}", x, levels[level])
        if level:
            x = tape.conv(f"{name}.upsamplers.0.conv", tape.upsampled(x), channels[level])
    x = tape.activation(tape.norm("conv_norm_out", x, channels[0]))
    tape.conv("conv_out", x, settings.get("out_channels", 4))


def _embedded_time(tape: Tape, settings: Settings, first: int, given: Value | None) -> Value:
    width = settings.get("time_embedding_dim") or 4 * first
    time = tape.linear("time_embedding.linear_1", tape.input(first), width)
    time = tape.linear("time_embedding.linear_2", tape.activation(time), width)
    return time if given is None else tape.add(time, given)


def pooled_text(tape: Tape, text: Value, out: int) -> Value:
    """TextTimeEmbedding: one vector of the whole text, by attention pooling."""
    tokens, width = text.shape
    name, normed = "add_embedding", tape.norm("add_embedding.norm1", text, width)
    place = tape.embedding(f"{name}.pool", width, (1, width))
    mean = tape.add(tape.copied(normed, 1, width), place)
    every = tape.copied(normed, tokens + 1, width)
    query = tape.linear(f"{name}.pool.q_proj", mean, width)
    key = tape.linear(f"{name}.pool.k_proj", every, width)
    value = tape.linear(f"{name}.pool.v_proj", every, width)
    pooled = tape.attention(query, key, value, 1).view(width)
    return tape.norm(f"{name}.norm2", tape.linear(f"{name}.proj", pooled, out), out)


def decoder(tape: Tape, settings: Settings, side: int) -> None:
    """The decoder of AutoencoderKL, for latents of a width and height."""
    _refuse_others(settings)
    channels, latent = list(settings["block_out_channels"]), settings.get("latent_channels", 4)
    x = tape.input(latent, side, side)
    if settings.get("use_post_quant_conv", True):
        x = tape.conv("post_quant_conv", x, latent, kernel=1)
    x = tape.conv("decoder.conv_in", x, channels[-1])
    x = middle(tape, "decoder.mid_block", x, None, _of_autoencoder(settings))
    for place, out in enumerate(reversed(channels)):
        name = f"decoder.up_blocks.{place}"
        for number in range(settings.get("layers_per_block", 1) + 1):
            x = resnet(tape, f"{name}.resnets.{number}", x, None, out)
        if place < len(channels) - 1:
            x = tape.conv(f"{name}.upsamplers.0.conv", tape.upsampled(x), out)
    x = tape.activation(tape.norm("decoder.conv_norm_out", x, channels[0]))
    tape.conv("decoder.conv_out", x, settings.get("out_channels", 3))


def encoder(tape: Tape, settings: Settings, side: int) -> None:
    """The encoder of AutoencoderKL, for images of a width and height."""
    _refuse_others(settings)
    channels, latent = list(settings["block_out_channels"]), settings.get("latent_channels", 4)
    x = tape.conv(
        "encoder.conv_in", tape.input(settings.get("in_channels", 3), side, side), channels[0]
    )
    for level, out in enumerate(channels):
        name = f"encoder.down_blocks.{level}"
        for number in range(settings.get("layers_per_block", 1)):
            x = resnet(tape, f"{name}.resnets.{number}", x, None, out)
        if level < len(channels) - 1:
            x = tape.conv(f"{name}.downsamplers.0.conv", tape.copied(x), out, stride=2)
    x = middle(tape, "encoder.mid_block", x, None, _of_autoencoder(settings))
    x = tape.activation(tape.norm("encoder.conv_norm_out", x, channels[-1]))
    x = tape.conv("encoder.conv_out", x, 2 * latent)
    if settings.get("use_quant_conv", True):
        tape.conv("quant_conv", x, 2 * latent, kernel=1)


def _of_autoencoder(settings: Settings) -> Attention | None:
    return Attention(1) if settings.get("mid_block_add_attention", True) else None


def text_encoder(tape: Tape, settings: Settings) -> None:
    """CLIPTextModel, for a text of the greatest length."""
    width, tokens = settings["hidden_size"], settings.get("max_position_embeddings", 77)
    words = tape.embedding("token_embedding", settings["vocab_size"] * width, (tokens, width))
    places = tape.embedding("position_embedding", tokens * width, (tokens, width))
    x = tape.add(words, places)
    for layer in range(settings["num_hidden_layers"]):
        name = f"layers.{layer}"
        normed = tape.norm(f"{name}.layer_norm1", x, width)
        query, key, value = (
            tape.linear(f"{name}.self_attn.{part}", normed, width)
            for part in ("q_proj", "k_proj", "v_proj")
        )
        seen = tape.attention(query, key, value, settings["num_attention_heads"])
        x = tape.add(x, tape.linear(f"{name}.self_attn.out_proj", seen, width))
        inner = tape.norm(f"{name}.layer_norm2", x, width)
        inner = tape.activation(tape.linear(f"{name}.fc1", inner, settings["intermediate_size"]))
        x = tape.add(x, tape.linear(f"{name}.fc2", inner, width))
    tape.norm("final_layer_norm", x, width)


def _attends(kind: str) -> bool:
    known = ("DownBlock2D", "UpBlock2D")
    if kind.removeprefix("CrossAttn").removeprefix("Attn") not in known:
        raise Unknown(f"blocks of type {kind}")
    return kind not in known


def _each(value: Any, channels: Sequence[int]) -> list[int]:
    """Returns a setting of each level, which may be one number for all."""
    values = [value] * len(channels) if isinstance(value, int) else list(value)
    if len(values) != len(channels) or not all(isinstance(each, int) for each in values):
        raise Unknown(f"{values} for {len(channels)} levels")
    return values


def _refuse_others(settings: Settings) -> None:
    for key, known in USUAL.items():
        if key in settings and settings[key] not in known:
            raise Unknown(f"{key}: {settings[key]}")
