"""The embedded model from nothing, in one command, the same weights from the same seed.

    npm install --prefix pretraining
    python -m pretraining.make --work ~/emoji --out src/rediffuse/models/emoji/pipeline --judges src/rediffuse/rewards/_emoji

About four hours on two CPU cores. Every stage may be stopped, and goes on from its last save when the command is given again.
Training state stays in --work, outside the repository.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from pretraining import dataset, glyphs, judge, networks

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--judges",
        type=Path,
        help="the folder to write the two judges to; without it, none are trained",
    )
    parser.add_argument("--icons", type=Path, default=HERE / "node_modules")
    parser.add_argument(
        "--processes", type=int, default=2, help="the weights depend on it: it multiplies the batch"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=80_000)
    parser.add_argument("--vae-steps", type=int, default=5000)
    parser.add_argument("--decoder-steps", type=int, default=2500)
    parser.add_argument("--unet-steps", type=int, default=16_400)
    args = parser.parse_args()
    work, scenes = args.work, args.work / "scenes"
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "glyphs.npz").exists():
        glyphs.render_all(args.icons, work / "glyphs.npz")
    if not (scenes / "captions.json").exists():
        dataset.render(work / "glyphs.npz", scenes, args.scenes, args.seed, args.processes)
    if not (work / "unet" / "tokenizer" / "tokenizer.json").exists():
        networks.tokenizer(dataset.load(scenes).captions, work / "unet" / "tokenizer")

    def trained(module: str, processes: int, **options: object) -> None:
        flags = [
            word
            for key, value in options.items()
            for word in (f"--{key.replace('_', '-')}", str(value))
        ]
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
        ]
        subprocess.run(
            [
                *launch,
                "-m",
                f"pretraining.{module}",
                "--scenes",
                str(scenes),
                *[f for f in flags if f != "True"],
            ],
            check=True,
        )

    trained("train_vae", args.processes, out=work / "vae", steps=args.vae_steps, seed=args.seed)
    decoder = {
        "start_from": work / "vae",
        "decoder_only": True,
        "batch": 32,
        "learning_rate": 1.2e-3,
        "decay_share": 1,
    }
    trained(
        "train_vae",
        1,
        out=work / "vae_decoder",
        steps=args.decoder_steps,
        seed=args.seed + 1,
        **decoder,
    )
    trained(
        "train_unet",
        args.processes,
        vae=work / "vae",
        out=work / "unet",
        steps=args.unet_steps,
        decay_share=0.3,
        seed=args.seed,
    )
    assemble = [
        "--vae",
        str(work / "vae_decoder"),
        "--unet",
        str(work / "unet"),
        "--out",
        str(args.out),
    ]
    subprocess.run([sys.executable, "-m", "pretraining.assemble", *assemble], check=True)
    for kind, name in judge.SHIPPED.items() if args.judges else ():
        where = ["--scenes", str(scenes), "--out", str(args.judges / name)]
        subprocess.run(
            [sys.executable, "-m", "pretraining.judge", "train", kind, *where], check=True
        )


if __name__ == "__main__":
    main()
