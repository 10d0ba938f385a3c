"""Where other people's code finds MSMN and the conversion of its checkpoints: they stand in `kept_hf.models`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    "kept_hf.models",
    submod_attrs={"modeling_msmn": ["MSMNForICDCoding"], "conversion_msmn": ["convert_msmn_state_dict"]},
)
