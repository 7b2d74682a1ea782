"""The student's compiled metrics, where the photos have no labels."""

from typing import Any

from kerasopt._backend import keras, tf


def build_metrics(model: Any) -> tuple[str, ...]:
    """Builds compiled metrics that no label has built, and returns their names.

    Keras builds them on the first labels of `fit`, and without any fails at the end of the epoch.
    What validation counts with them is right all the same.

    Args:
        model: the student.
    """
    try:
        model.get_metrics_result()
    except ValueError:
        pass
    else:
        return ()
    with tf.init_scope(), model.distribute_strategy.scope():
        outputs = tf.zeros([1, *(size or 1 for size in model.output_shape[1:])])
        labels = tf.zeros(outputs.shape[:-1], "int32") if _is_sparse(model.loss) else outputs
        with keras.StatelessScope():
            type(model).compute_metrics(model, None, labels, outputs)
    return tuple(name for name in model.get_metrics_result() if name != "loss")


def _is_sparse(loss: Any) -> bool:
    return loss is None or "sparse" in str(getattr(loss, "name", loss)).lower()
