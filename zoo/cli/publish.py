"""``zoo publish``: what `zoo train` and `zoo quantize` wrote -> a folder of weights that every verb takes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from zoo.errors import ZooError


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "publish",
        help=help,
        description="Writes the averaged weights of a finished run and a card that says what they were trained on; of a "
        "compressor also its entropy tables, counted on the run's pictures. Other verbs take the folder as --weights DIR. With "
        "--quantized: adds an int8 model to the float weights that it was made from, which the folder holds already.",
    )
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="folder of a finished `zoo train`")
    parser.add_argument(
        "--quantized", type=Path, metavar="FILE", help="file of `zoo quantize`; of a compressor one of its two"
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="where weights and card go")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="training pictures of a compressor's run (default: where it had them)"
    )
    parser.add_argument(
        "--licences",
        metavar="TEXT",
        help="of the training pictures, for the card (default: what a card says of the same ones)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from zoo.files import check_folder

    if args.run is None and args.quantized is None:
        raise ZooError("nothing to publish; give the folder of a run, or --quantized FILE")
    if args.run and args.quantized:
        raise ZooError("give a run or --quantized FILE; an int8 model is added to float weights that are there")
    if args.run is None and (args.data or args.licences):
        raise ZooError("--data and --licences belong to a run; leave them out with --quantized")
    check_folder(args.output_dir)
    if args.run:
        from zoo.training.publish import publish

        file = publish(args.run, args.output_dir, data=args.data, licences=args.licences)
    else:
        from quantize import check_installed

        check_installed()
        from quantize.publish import publish_quantized

        file = publish_quantized(args.quantized, args.output_dir)
    print(json.dumps({"path": str(file)}) if args.json else file)
