"""The blocks that diffusers' U-Nets and autoencoders are made of, recorded on a tape."""

from dataclasses import dataclass

from rediffuse.costs.tape import Tape, Value


@dataclass(frozen=True)
class Attention:
    """The attention of a block.

    Attributes:
        heads: The number of heads.
        layers: The number of transformer layers; 0: one attention without a transformer.
        text: The embedded text (tokens, channels); None: it attends to itself alone.
        linear: Whether a transformer projects its input by a matrix instead of a convolution.
    """

    heads: int
    layers: int = 0
    text: Value | None = None
    linear: bool = False


def resnet(tape: Tape, name: str, x: Value, time: Value | None, out: int) -> Value:
    """Two convolutions with norms, an embedded time between them, and a shortcut."""
    with tape.checkpointed():
        inner = tape.activation(tape.norm(f"{name}.norm1", x, x.shape[0]))
        inner = tape.conv(f"{name}.conv1", inner, out)
        if time is not None:
            shift = tape.linear(f"{name}.time_emb_proj", tape.activation(time), out)
            inner = tape.add(inner, shift)
        inner = tape.activation(tape.norm(f"{name}.norm2", inner, out))
        inner = tape.conv(f"{name}.conv2", inner, out)
        if x.shape[0] != out:
            x = tape.conv(f"{name}.conv_shortcut", x, out, kernel=1)
        return tape.add(tape.add(x, inner))


def attended(tape: Tape, name: str, x: Value, attention: Attention) -> Value:
    """Attention over the places of an image, with a transformer around it if it has layers."""
    channels, high, wide = x.shape
    if not attention.layers:
        normed = tape.norm(f"{name}.group_norm", x, channels).view(high * wide, channels)
        given = projected(tape, name, normed, normed, attention.heads, bias=True)
        return tape.add(tape.add(given.view(channels, high, wide), x))
    inner = tape.norm(f"{name}.norm", x, channels)
    if attention.linear:
        inner = tape.linear(f"{name}.proj_in", inner.view(high * wide, channels), channels)
    else:
        inner = tape.conv(f"{name}.proj_in", inner, channels, kernel=1).view(high * wide, channels)
    for number in range(attention.layers):
        inner = transformer(tape, f"{name}.transformer_blocks.{number}", inner, attention)
    if attention.linear:
        inner = tape.linear(f"{name}.proj_out", inner, channels)
        inner = tape.copied(inner).view(channels, high, wide)
    else:
        inner = tape.copied(inner).view(channels, high, wide)
        inner = tape.conv(f"{name}.proj_out", inner, channels, kernel=1)
    return tape.add(inner, x)


def transformer(tape: Tape, name: str, x: Value, attention: Attention) -> Value:
    """Self-attention, attention to the text, and a gated feed-forward layer, each with its norm and
    a residual connection.
    """
    width = x.shape[-1]
    with tape.checkpointed():
        normed = tape.norm(f"{name}.norm1", x, width)
        x = tape.add(projected(tape, f"{name}.attn1", normed, normed, attention.heads), x)
        if attention.text is not None:
            normed = tape.norm(f"{name}.norm2", x, width)
            seen = projected(tape, f"{name}.attn2", normed, attention.text, attention.heads)
            x = tape.add(seen, x)
        normed = tape.norm(f"{name}.norm3", x, width)
        wide = tape.linear(f"{name}.ff.net.0.proj", normed, 8 * width)
        return tape.add(tape.linear(f"{name}.ff.net.2", tape.gate(wide), width), x)


def projected(
    tape: Tape, name: str, x: Value, seen: Value, heads: int, *, bias: bool = False
) -> Value:
    """Attention of x to what is seen, with its four projections."""
    width = x.shape[-1]
    query = tape.linear(f"{name}.to_q", x, width, bias=bias)
    key = tape.linear(f"{name}.to_k", seen, width, bias=bias)
    value = tape.linear(f"{name}.to_v", seen, width, bias=bias)
    given = tape.attention(query, key, value, heads)
    return tape.add(tape.linear(f"{name}.to_out.0", given, width))


def middle(
    tape: Tape, name: str, x: Value, time: Value | None, attention: Attention | None
) -> Value:
    """A ResNet block and, around each attention, another one."""
    x = resnet(tape, f"{name}.resnets.0", x, time, x.shape[0])
    if attention is not None:
        x = attended(tape, f"{name}.attentions.0", x, attention)
    return resnet(tape, f"{name}.resnets.1", x, time, x.shape[0])
