"""Publish a trained model, a corpus or the metric module on the Hub.

kept-hf push model outputs/demo your-name/kept-demo --private       # what train, train-msmn or pretrain wrote
kept-hf push dataset demo-parquet your-name/demo-notes --private    # what export wrote
kept-hf push metric your-name/icd_coding                            # for evaluate.load

Log in first: hf auth login. What comes from data with restricted access goes to private repositories only. Predictions,
checkpoints and settings are never published. A push that was interrupted goes on when it is started again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from ..hub.push import push_dataset, push_metric, push_model


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, push, print the address."""
    parser = argparse.ArgumentParser(
        "kept-hf push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, made_by in (("model", "kept-hf train, train-msmn or pretrain"), ("dataset", "kept-hf export")):
        command = kinds.add_parser(kind, help=f"publish the output folder of {made_by}")
        command.add_argument("folder", help=f"output folder of {made_by}")
        command.add_argument(
            "--permitted_by", help="licence or permission that allows publication of what restricted data gave"
        )
    model = kinds.choices["model"]
    model.add_argument("--base_model", help="model id of the weights that training started from, for the card")
    model.add_argument("--base_license", help="licence of those weights, as the Hub writes it")
    kinds.add_parser("metric", help="publish the metric module as a Space; its name must be icd_coding")
    for command in kinds.choices.values():
        command.add_argument("repo_id", help="owner/name on the Hub; created if need be")
        command.add_argument("--private", action="store_true", default=None, help="a new repository is private")
    arguments = vars(parser.parse_args(argv))
    push = {"model": push_model, "dataset": push_dataset, "metric": push_metric}[arguments.pop("kind")]
    try:
        print(push(**arguments))
    except (OSError, ValueError, LocalTokenNotFoundError) as error:
        hint = " Is the token valid, and may it write there? hf auth login" if isinstance(error, HfHubHTTPError) else ""
        parser.error(f"{error}{hint}")
    except RuntimeError as error:  # what huggingface_hub makes of an upload that broke off
        parser.error(f"{error} Nothing is published yet; start the command again to go on.")


if __name__ == "__main__":
    main()
