"""Ask a model about codes that it was never trained on: a description is all that it needs.

kept-hf train && python examples/zero_shot.py
"""

from transformers import pipeline

import kept_hf  # noqa: F401  registers the pipeline

MODEL = "outputs/demo"  # made by `kept-hf train`
CODES = {
    "R00.1": "Bradycardia, unspecified",
    "N39.0": "Urinary tract infection, site not specified",
    "J45.909": "Unspecified asthma, uncomplicated",
}
NOTE = """Brief Hospital Course:
Treated for a urinary tract infection. Heart rate in the forties, asymptomatic; metoprolol was stopped.
"""


def main() -> None:
    """Print how likely each code is."""
    coder = pipeline("icd-coding", model=MODEL)
    for code in coder(NOTE, codes=CODES):
        print(f"{code['code']:8} {code['probability']:6.1%}  {code['description']}")


if __name__ == "__main__":
    main()
