"""What may stand inside a saved model, known to Keras before the room that holds it is loaded."""

import importlib
from typing import Any

ROOM_OF = {
    "Augmentation": "augmentation",
    "DecomposedLayer": "quantization",
    "FakeQuantize": "quantization",
    "Preprocess": "transfer",
    "QuantizedLayer": "quantization",
    "RenamedLayer": "quantization",
    "Scheme": "quantization",
    "WithVariables": "quantization",
}


def announce(keras: Any) -> None:
    """Registers a stand-in for each class; it loads the room when a saved model needs it.

    So `keras.models.load_model` works after `import kerasopt` alone. The room replaces the
    stand-in by the class itself.
    """
    known = keras.saving.get_custom_objects()
    for name, room in ROOM_OF.items():
        known.setdefault(f"kerasopt>{name}", _stand_in(name, room))


def _stand_in(name: str, room: str) -> type[Any]:
    def from_config(config: dict[str, Any]) -> Any:
        return getattr(importlib.import_module(f"kerasopt.{room}"), name).from_config(config)

    return type(name, (), {"from_config": staticmethod(from_config)})
