"""scikit-learn in workers: each case is computed here and there, and compared.

``python -m tests.integration.sklearn_program [ENV]``; the last line is ``N cases``. ``ENV`` is an
environment with scikit-learn; without it, workers of this one.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import MeanShift
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import RFECV, SequentialFeatureSelector
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LassoCV, LogisticRegression, Ridge
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from wetlands_executor.integrations.joblib import register

X, y = make_classification(200, 8, random_state=0)
LARGE, labels = make_classification(20_000, 10, random_state=0)  # 1.6 MB: shared
logistic, tree = LogisticRegression(), DecisionTreeClassifier(max_depth=3, random_state=0)

CASES: dict[str, Callable[[], Any]] = {
    "GridSearchCV": lambda: (
        GridSearchCV(SVC(), {"C": [0.1, 1, 10]}, cv=3).fit(X, y).cv_results_["mean_test_score"]
    ),
    "GridSearchCV of a forest": lambda: (
        GridSearchCV(
            RandomForestClassifier(random_state=0, n_jobs=2), {"n_estimators": [3, 5]}, cv=2
        )
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "GridSearchCV of a pipeline": lambda: (
        GridSearchCV(
            make_pipeline(StandardScaler(), SVC()), {"svc__C": [1, 2]}, cv=2, refit=True
        )
        .fit(X, y)
        .predict(X)
    ),
    "RandomizedSearchCV": lambda: (
        RandomizedSearchCV(tree, {"max_depth": [2, 3, 4, 5]}, n_iter=3, cv=2, random_state=0)
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "cross_val_score": lambda: cross_val_score(logistic, X, y),
    "cross_val_score of large data": lambda: cross_val_score(tree, LARGE, labels, cv=4),
    "cross_val_predict": lambda: cross_val_predict(logistic, X, y),
    "cross_validate": lambda: cross_validate(logistic, X, y)["test_score"],
    "learning_curve": lambda: learning_curve(logistic, X, y)[2],
    "validation_curve": lambda: validation_curve(
        SVC(), X, y, param_name="C", param_range=[0.1, 1.0]
    )[1],
    "permutation_test_score": lambda: permutation_test_score(
        logistic, X, y, n_permutations=6, random_state=0
    )[1],
    "permutation_importance": lambda: permutation_importance(
        tree.fit(X, y), X, y, random_state=0
    ).importances,
    "permutation_importance of large data": lambda: permutation_importance(
        tree.fit(LARGE, labels), LARGE, labels, n_repeats=2, random_state=0
    ).importances,
    "RandomForestClassifier": lambda: (
        RandomForestClassifier(8, random_state=0).fit(X, y).predict_proba(X)
    ),
    "ExtraTreesRegressor": lambda: ExtraTreesRegressor(8, random_state=0).fit(X, y).predict(X),
    "IsolationForest": lambda: (
        IsolationForest(n_estimators=8, random_state=0).fit(X).score_samples(X)
    ),
    "BaggingClassifier": lambda: (
        BaggingClassifier(tree, 6, random_state=0).fit(X, y).predict_proba(X)
    ),
    "VotingClassifier": lambda: (
        VotingClassifier([("a", logistic), ("b", tree)]).fit(X, y).predict(X)
    ),
    "StackingClassifier": lambda: (
        StackingClassifier([("a", logistic), ("b", tree)], cv=2).fit(X, y).predict(X)
    ),
    "OneVsRestClassifier": lambda: OneVsRestClassifier(logistic).fit(X, y % 3).predict(X),
    "MultiOutputRegressor": lambda: (
        MultiOutputRegressor(Ridge()).fit(X, np.column_stack([y, -y])).predict(X)
    ),
    "CalibratedClassifierCV": lambda: (
        CalibratedClassifierCV(tree, cv=3).fit(X, y).predict_proba(X)
    ),
    "RFECV": lambda: RFECV(logistic, cv=2).fit(X, y).ranking_,
    "SequentialFeatureSelector": lambda: (
        SequentialFeatureSelector(logistic, n_features_to_select=2, cv=2).fit(X, y).support_
    ),
    "LassoCV": lambda: LassoCV(cv=3).fit(X, y).coef_,
    "ColumnTransformer": lambda: ColumnTransformer(
        [("a", StandardScaler(), [0, 1]), ("b", StandardScaler(), [2, 3])]
    ).fit_transform(X),
    "FeatureUnion": lambda: FeatureUnion(
        [("a", StandardScaler()), ("b", StandardScaler())]
    ).fit_transform(X),
    "MeanShift": lambda: MeanShift(bandwidth=3, bin_seeding=True).fit(X).labels_,
    "pairwise_distances": lambda: pairwise_distances(X, metric="cityblock", n_jobs=2),
}


def main(env: str | None) -> None:
    warnings.simplefilter("ignore")
    register()
    for name, case in CASES.items():
        expected = case()
        with joblib.parallel_config(backend="wetlands", env=env, n_jobs=2):
            found = case()
        np.testing.assert_allclose(found, expected, err_msg=name)
    print(len(CASES), "cases")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
