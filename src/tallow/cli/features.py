"""``tallow features``: what a model of pictures sees in a photo, as a picture."""

from __future__ import annotations

import argparse
from typing import Any

DEFAULT_VISION_MODEL = "facebook/dinov3-vits16-pretrain-lvd1689m"
_WRITTEN = (".png", ".jpg", ".jpeg", ".webp")
_DESCRIPTION = """
Draw the features of a photo's patches beside it: their first three principal components as red, green and blue. Patches
of one colour are of one kind. With --point, a second map shows how much each patch has in common with the one there.
"""
_EXAMPLES = """
examples:
  tallow features photo.jpg --out map.png
  tallow features photo.jpg --out map.png --point 640 200 --size 1024
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    from tallow.cli.language import add_model_options

    parser = commands.add_parser(
        "features",
        help="draw what a model sees in a photo",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photo", metavar="PHOTO", help="any picture; - reads the standard input")
    parser.add_argument("--out", required=True, metavar="FILE", help=f"where to draw ({', '.join(_WRITTEN)})")
    parser.add_argument("--point", type=int, nargs=2, metavar=("X", "Y"), help="a place in the photo, in its pixels")
    parser.add_argument(
        "--size", type=int, default=768, metavar="N",
        help="the model sees about N × N pixels, in the photo's proportions (768)",
    )  # fmt: skip
    add_model_options(parser, DEFAULT_VISION_MODEL)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Draw one photo."""
    from tallow.cli.files import opened
    from tallow.cli.language import load_model
    from tallow.cli.vectors import check_output
    from tallow.errors import ArgumentError
    from tallow.media.image import open_rgb
    from tallow.models.dinov3 import maps
    from tallow.models.dinov3.vision import VisionModel

    if not args.out.lower().endswith(_WRITTEN):
        args.parser.error(f"--out writes {', '.join(_WRITTEN)}, not {args.out}")
    check_output(args.out)
    photo = open_rgb(opened(args.photo))
    if args.point and not (0 <= args.point[0] < photo.width and 0 <= args.point[1] < photo.height):
        raise ArgumentError(
            f"--point {args.point[0]} {args.point[1]}: the photo has {photo.width} × {photo.height} pixels"
        )
    model = load_model(args)
    if not isinstance(model, VisionModel):
        raise ArgumentError(f"{args.model} is a {type(model).__name__}; features are of models of pictures, as DINOv3")
    patches = model.features(photo, size=args.size, proportional=True).patches
    rows, columns = patches.shape[:2]
    drawn = [maps.principal_colours(patches)]
    if args.point:
        column, row = args.point[0] * columns // photo.width, args.point[1] * rows // photo.height
        drawn.append(maps.heat(maps.similarities(patches, row, column)))
    maps.side_by_side(photo, drawn, model.unit).save(args.out)
    print(f"{args.out}: {rows} × {columns} patches")
    return 0
