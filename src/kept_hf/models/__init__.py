"""All that is published with a model: this folder is the list of the files that travel to the Hub.

It lies flat, and imports nothing but torch, numpy, transformers with what that needs, and its own files, because
transformers copies files that lie side by side only. `auto_map` and `auto_map_msmn` name the classes that transformers'
Auto classes are to find; here they are registered, as soon as a process has loaded those.
"""

from __future__ import annotations

import importlib
import sys
import threading
from importlib.abc import MetaPathFinder

_AUTO_CLASSES = "transformers.models.auto.configuration_auto"
_PACKAGES = ("transformers", __package__.partition(".")[0])


def register_with_transformers() -> None:
    """Register the models with transformers' Auto classes and the pipeline with its tasks.

    At once, if a process has loaded the Auto classes; otherwise when it has: to load them here would take seconds, and
    torch, which not every module of this package needs.
    """
    if _AUTO_CLASSES in sys.modules:
        _register()
    elif not any(isinstance(finder, _RegisterAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterAfterImport())


class _RegisterAfterImport(MetaPathFinder):
    """Registers once, when the first import that loads the Auto classes has ended, with all the imports inside it.

    Before that end, modules of either package may be half loaded.
    """

    def __init__(self) -> None:
        self.imports = threading.local()

    def find_spec(self, name, path=None, target=None):
        """The module's own specification; of either package, it ends with a look at what is loaded."""
        if name.partition(".")[0] not in _PACKAGES:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = self._then_register(spec.loader.exec_module)
        return spec

    def _then_register(self, exec_module):
        def execute(module) -> None:
            depth = getattr(self.imports, "depth", 0)
            self.imports.depth = depth + 1
            try:
                exec_module(module)
            finally:
                self.imports.depth = depth
            if depth == 0 and _AUTO_CLASSES in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        return execute


def _register() -> None:
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    from .auto_map import AUTO_CLASSES, PIPELINES
    from .auto_map_msmn import MSMN_AUTO_CLASSES

    for classes in (*AUTO_CLASSES.values(), MSMN_AUTO_CLASSES):
        config_class = _class(classes["AutoConfig"])
        transformers.AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        for name, place in classes.items():
            if name != "AutoConfig":
                getattr(transformers, name).register(config_class, _class(place), exist_ok=True)
    for task, place in PIPELINES.items():
        PIPELINE_REGISTRY.register_pipeline(
            task,
            pipeline_class=_class(place),
            pt_model=(transformers.AutoModelForSequenceClassification,),
            type="text",
        )


def _class(place: str) -> type:
    """The class that "module.Class" names, of this folder."""
    module, _, name = place.partition(".")
    return getattr(importlib.import_module(f".{module}", __package__), name)
