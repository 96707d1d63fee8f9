"""Makes the figures of docs/ and the README: the fixed evaluation images of a run after some epochs
of training, with one band of images for each.

python benchmarks/strips.py RUN docs/NAME.png --epochs 0 6 11 [--columns 12] [--rows 1] \\
    [--pixels 72]
"""

import argparse
from pathlib import Path

from PIL import Image

from rediffuse.errors import ConfigError
from rediffuse.runs import folder

GAP = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("out", type=Path, metavar="PNG")
    parser.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        required=True,
        help="epochs done; 0 is the pretrained model",
    )
    parser.add_argument("--columns", type=int, default=12, help="prompts")
    parser.add_argument("--rows", type=int, default=1, help="pictures of each prompt")
    parser.add_argument("--pixels", type=int, default=72, help="the side of a picture")
    args = parser.parse_args()
    bands = [
        band(stage(args.run, epoch), args.columns, args.rows, args.pixels) for epoch in args.epochs
    ]
    height = sum(each.height for each in bands) + GAP * (len(bands) - 1)
    strip, down = Image.new("RGB", (bands[0].width, height), "white"), 0
    for each in bands:
        strip.paste(each, (0, down))
        down += each.height + GAP
    strip.quantize(256, dither=Image.Dither.NONE).save(args.out, optimize=True)
    print(args.out, strip.size)


def stage(path: Path, epoch: int) -> Path:
    """Raises ConfigError, naming the stages that there are."""
    run = folder.existing(path)
    grid = run.samples / f"epoch-{epoch:05d}" / "grid.png"
    if not grid.exists():
        known = sorted(
            int(each.parent.name.removeprefix("epoch-"))
            for each in run.samples.glob("epoch-*/grid.png")
        )
        raise ConfigError(f"--epochs: {path} has no pictures after {epoch} epochs; it has {known}.")
    return grid


def band(grid: Path, columns: int, rows: int, pixels: int) -> Image.Image:
    with Image.open(grid) as whole, Image.open(grid.parent / "000.png") as single:
        part = whole.crop((0, 0, columns * single.width, rows * single.height))
    return part.resize(
        (columns * pixels, rows * pixels),
        Image.Resampling.NEAREST if pixels >= 64 else Image.Resampling.LANCZOS,
    )


if __name__ == "__main__":
    main()
