"""Write a trained model as an ONNX graph, with a program that runs it without PyTorch.

    merhan export outputs/quickstart --to onnx
    merhan export me/merhan-meld --to onnx --precision int8 --out merhan-meld-int8
    python quickstart-onnx/run_onnx.py a.wav I cannot believe it

The folder is complete: copy it to where it is needed. run_onnx.py needs onnxruntime, tokenizers and numpy, and
soundfile to read files.
"""

import argparse

from merhan.cli.options import OutputPath


HELP = "write a model as an ONNX graph that runs without PyTorch"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id")
    parser.add_argument("--to", choices=("onnx",), default="onnx", help="the format (default: onnx)")
    parser.add_argument(
        "--out", type=OutputPath("folder"), help="folder to write (default: the model's name with -onnx behind it)"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="fp16 and int8 are smaller and less exact (default: fp32)",
    )


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.models.export import export

    export(arguments.checkpoint, arguments.out, arguments.precision)
