"""A diffusers pipeline as one .safetensors file in the layout of the original Stable Diffusion, as the community ships models."""

from safetensors.torch import save_file


def save_single_file(pipeline, path):
    tensors = {
        f"model.diffusion_model.{name}": value for name, value in _unet(pipeline.unet).items()
    }
    tensors |= {f"first_stage_model.{name}": value for name, value in _vae(pipeline.vae).items()}
    for name, value in pipeline.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = (
            value
        )
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip


def _unet(unet):
    """Blocks are numbered through: each of `layers` resnets, then what changes the resolution."""
    layers, depth = unet.config.layers_per_block, len(unet.config.block_out_channels)
    places = {
        "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0", "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    }  # fmt: skip
    for i in range(depth):
        for j in range(layers):
            places[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{(layers + 1) * i + j + 1}.0"
            places[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{(layers + 1) * i + j + 1}.1"
        places[f"down_blocks.{i}.downsamplers.0.conv"] = (
            f"input_blocks.{(layers + 1) * (i + 1)}.0.op"
        )
        for j in range(layers + 1):
            places[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{(layers + 1) * i + j}.0"
            places[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{(layers + 1) * i + j}.1"
        number = 2 if "CrossAttn" in unet.config.up_block_types[i] else 1
        places[f"up_blocks.{i}.upsamplers.0.conv"] = (
            f"output_blocks.{(layers + 1) * i + layers}.{number}.conv"
        )
    return {_renamed(name, places, RESNET, {}): value for name, value in unet.state_dict().items()}


def _vae(vae):
    depth, layers = len(vae.config.block_out_channels), vae.config.layers_per_block
    places = {}
    for half in ("encoder", "decoder"):
        places |= {
            f"{half}.conv_norm_out": f"{half}.norm_out", f"{half}.mid_block.resnets.0": f"{half}.mid.block_1",
            f"{half}.mid_block.resnets.1": f"{half}.mid.block_2", f"{half}.mid_block.attentions.0": f"{half}.mid.attn_1",
        }  # fmt: skip
    for i in range(depth):
        for j in range(layers + 1):
            places[f"encoder.down_blocks.{i}.resnets.{j}"] = f"encoder.down.{i}.block.{j}"
            places[f"decoder.up_blocks.{i}.resnets.{j}"] = f"decoder.up.{depth - 1 - i}.block.{j}"
        places[f"encoder.down_blocks.{i}.downsamplers.0"] = f"encoder.down.{i}.downsample"
        places[f"decoder.up_blocks.{i}.upsamplers.0"] = f"decoder.up.{depth - 1 - i}.upsample"
    attention = {
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }
    renamed = {}
    for name, value in vae.state_dict().items():
        linear = "attentions" in name and value.ndim == 2
        renamed[_renamed(name, places, {"conv_shortcut": "nin_shortcut"}, attention)] = (
            value[..., None, None] if linear else value
        )
    return renamed


def _renamed(name, places, in_resnet, in_attention):
    for theirs in sorted(places, key=len, reverse=True):
        if name.startswith(f"{theirs}."):
            rest = name.removeprefix(theirs)
            parts = (
                in_resnet if "resnets" in theirs else in_attention if "attentions" in theirs else {}
            )
            for ours, old in parts.items():
                rest = rest.replace(f".{ours}.", f".{old}.")
            return places[theirs] + rest
    return name
