"""What the tiny tokenizers, code sets and models of the tests are made of."""

import torch

SENTENCES = (
    "yes",
    "no",
    "chief complaint: fever and cough. history of present illness: the patient was admitted with sepsis.",
    "unspecified essential hypertension, acute kidney failure, unspecified septicemia, atrial fibrillation.",
    "brief hospital course: treated with fluids; discharge diagnosis: pneumonia. discharge condition: stable",
    "seen by doctor. past medical history of diabetes mellitus without mention of complication.",
)
WORDS = (
    "yes no chief complaint fever and cough the patient was admitted with sepsis essential hypertension acute kidney "
    "failure septicemia atrial fibrillation brief hospital course treated discharge diagnosis condition stable of"
)
CODES = {
    "401.9": "Unspecified essential hypertension",
    "038.9": "Unspecified septicemia",
    "584.9": "Acute kidney failure, unspecified",
    "V45.81": "Aortocoronary bypass status",
    "250.00": "Diabetes mellitus without mention of complication, type II or unspecified type, not stated as "
    "uncontrolled, and this long title goes on",
    "E888.9": "Unspecified fall",
}


def randomize(model, seed=0, scale=0.3):
    """Fill every parameter, biases and norms too, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, scale, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter += 1.0
    return model
