"""Classical learners on the features of flowers17, and the solved head, on ten splits.

    python benchmarks/deep_features.py [--seeds 0 1 ... 9]

EfficientNet-Lite0 with ImageNet weights, 224x224 pixels. Of each class 40 photos train and 20 test
(20 for validation are not used: nothing is chosen here but by cross-validation); a seed shuffles
the photos of each class. Features are computed once for all photos. Also counts what standardized
features and lbfgs would have given the probe. Writes `results/deep_features.json`.
"""

import argparse
import statistics
import time
from typing import Any

import keras
import numpy as np
import sklearn
from _record import SHARED, record
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

import kerasopt as ko

TRAIN, VALIDATION, TEST = 40, 20, 20
LEARNERS: dict[str, Any] = {
    "SVM, RBF kernel": lambda: make_pipeline(Normalizer(), SVC(C=10)),
    "5 nearest neighbours, cosine": lambda: KNeighborsClassifier(
        5, metric="cosine", weights="distance"
    ),
    "gradient boosting": lambda: HistGradientBoostingClassifier(
        max_iter=40, learning_rate=0.2, max_leaf_nodes=8, max_features=0.1, random_state=0
    ),
}


def split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of training and of test photos."""
    rng, train, test = np.random.default_rng(seed), [], []
    for label in range(labels.max() + 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        train.append(rows[:TRAIN])
        test.append(rows[TRAIN + VALIDATION : TRAIN + VALIDATION + TEST])
    return np.concatenate(train), np.concatenate(test)


def learn(learner: Any, x: np.ndarray, y: np.ndarray, rows: Any) -> dict[str, float]:
    """Fits on the training rows and returns accuracy on the test rows, and the seconds of fit."""
    train, test = rows
    start = time.perf_counter()
    with threadpool_limits(1):
        learner.fit(x[train], y[train])
    seconds = time.perf_counter() - start
    return {"test_accuracy": float(learner.score(x[test], y[test])), "seconds": seconds}


class Global(TransformerMixin, BaseEstimator):
    """Divides all features by one number, so that their mean square is 1."""

    def fit(self, x: np.ndarray, y: Any = None) -> "Global":  # noqa: ARG002
        """Measures it."""
        self.scale_ = np.sqrt(np.mean(x**2))
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Divides by it."""
        return x / self.scale_


class CrossValidated:
    """Logistic regression as in `linear_probe`, with another scaling or solver."""

    def __init__(self, scaler: Any, solver: str) -> None:
        self.scaler, self.solver = scaler, solver

    def fit(self, x: np.ndarray, y: np.ndarray) -> "CrossValidated":
        """Chooses C by cross-validated log loss, and fits on all."""
        values = 10.0 ** np.arange(-4, 3)
        x, loss = self.scaler.fit_transform(x.astype("float64")), np.zeros(len(values))
        for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
            learner = LogisticRegression(solver=self.solver, max_iter=1000, warm_start=True)
            for index, c in enumerate(values):
                chances = learner.set_params(C=c).fit(x[train], y[train]).predict_proba(x[test])
                loss[index] -= np.log(chances[np.arange(len(test)), y[test]]).sum()
        best = LogisticRegression(C=values[loss.argmin()], solver=self.solver, max_iter=1000)
        self.learner = best.fit(x, y)
        return self

    def score(self, x: np.ndarray, y: np.ndarray) -> float:
        """Returns the accuracy."""
        return self.learner.score(self.scaler.transform(x.astype("float64")), y)


def head(x: np.ndarray, y: np.ndarray, rows: Any) -> dict[str, float]:
    """The probe on a head alone, whose images are the features; no pass through the network."""
    flat = [keras.Input((1, 1, x.shape[-1])), keras.layers.Flatten()]
    model = keras.Sequential([*flat, keras.layers.Dense(int(y.max()) + 1)])
    train, test = rows
    result = ko.transfer.linear_probe(model, (x[train][:, None, None], y[train]))
    found = model.predict(x[test][:, None, None], verbose=0).argmax(axis=-1)
    return {
        "test_accuracy": float(np.mean(found == y[test])),
        "cross_validated_accuracy": max(result.accuracy),
        "c": result.c,
        "seconds": result.seconds,
    }


def main() -> None:
    """Computes the features once, and fits every learner on every split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(10)])
    seeds = parser.parse_args().seeds
    weights = SHARED / "weights" / "efficientnet_lite0_imagenet.keras"
    files = ko.datasets.list_photos(SHARED / "data" / "flowers17")
    names = sorted({file.parent.name for file in files})
    y = np.array([names.index(file.parent.name) for file in files])

    extractor = ko.transfer.FeatureExtractor(weights).fit()
    start = time.perf_counter()
    x = extractor.transform(files)
    seconds = time.perf_counter() - start
    runs: dict[str, dict[int, Any]] = {}
    others = {
        "logistic regression, standardized, newton-cg": lambda: CrossValidated(
            StandardScaler(), "newton-cg"
        ),
        "logistic regression, l2-normalized, newton-cg": lambda: CrossValidated(
            make_pipeline(Normalizer(), StandardScaler(with_std=False), Global()), "newton-cg"
        ),
        "logistic regression, one scale, lbfgs": lambda: CrossValidated(
            make_pipeline(StandardScaler(with_std=False), Global()), "lbfgs"
        ),
    }
    for seed in seeds:
        rows = split(y, seed)
        runs.setdefault("linear_probe", {})[seed] = head(x, y, rows)
        for name, make in {**LEARNERS, **others}.items():
            runs.setdefault(name, {})[seed] = learn(make(), x, y, rows)
            print(seed, name, runs[name][seed], flush=True)
    learners = {
        name: {
            "test_accuracy": round(statistics.mean(r["test_accuracy"] for r in found.values()), 4),
            "deviation": round(statistics.stdev(r["test_accuracy"] for r in found.values()), 4),
            "seconds": round(statistics.mean(r["seconds"] for r in found.values()), 2),
            "seeds": found,
        }
        for name, found in runs.items()
    }
    record(
        "deep_features",
        {
            "scikit-learn": sklearn.__version__,
            "photos": len(files),
            "features": x.shape[-1],
            "features_seconds": round(seconds, 1),
            "learners": learners,
        },
    )


if __name__ == "__main__":
    main()
