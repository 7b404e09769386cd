"""scikit-learn on a farm: searches, cross validation, forests, pipelines with the user's code."""

from __future__ import annotations

import os

import pytest

from remote_executor import FarmExecutor
from tests.support.tools import require_extra

require_extra("sklearn", "joblib", "sklearn")

import numpy as np  # noqa: E402
from sklearn.base import BaseEstimator, TransformerMixin  # noqa: E402
from sklearn.datasets import make_classification  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: E402

pytestmark = [
    pytest.mark.no_leak_check("joblib and OpenMP keep threads"),
    pytest.mark.timeout(120),
]


class Scaled(TransformerMixin, BaseEstimator):
    """A transformer of the test's own."""

    def __init__(self, by=1.0):
        self.by = by

    def fit(self, X, y=None):  # noqa: N803
        self.pid_ = os.getpid()
        return self

    def transform(self, X):  # noqa: N803
        return X * self.by


def shift(X):  # noqa: N803
    return X + 1


@pytest.fixture(scope="module")
def data():
    return make_classification(800, 20, random_state=0)


def compare(farm, measure):
    """Return what a measurement gives at home and on the farm."""
    home = measure()
    with farm.as_joblib():
        return home, measure()


def test_cross_validation(farm, data):
    home, away = compare(farm, lambda: cross_val_score(LogisticRegression(), *data, cv=4))

    assert np.allclose(home, away)


def test_a_grid_search_with_a_pipeline_of_the_users_own(farm, data):
    pipeline = make_pipeline(
        Scaled(), FunctionTransformer(shift), StandardScaler(), LogisticRegression()
    )
    grid = {"scaled__by": [0.5, 2.0], "logisticregression__C": [0.1, 1.0]}

    def search():
        return GridSearchCV(pipeline, grid, cv=3).fit(*data).cv_results_["mean_test_score"]

    home, away = compare(farm, search)

    assert np.allclose(home, away)


def test_a_forest(farm, data):
    def forest():
        found = RandomForestClassifier(20, random_state=0).fit(*data)
        return found.predict_proba(data[0])

    home, away = compare(farm, forest)

    assert np.allclose(home, away)


def test_an_error_score(farm, data):
    class Broken(LogisticRegression):
        def fit(self, X, y):  # noqa: N803
            raise ZeroDivisionError("mine")

    with farm.as_joblib(), pytest.raises(ValueError, match="mine"):
        cross_val_score(Broken(), *data, cv=2)


def test_on_a_farm_of_its_own_within_a_block(data):
    with FarmExecutor(2) as ex, ex.as_joblib():
        assert cross_val_score(LogisticRegression(), *data, cv=4, n_jobs=2).shape == (4,)


SCRIPT = """
import os
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from remote_executor import FarmExecutor
import sys

class Mine(TransformerMixin, BaseEstimator):
    def __init__(self, by=1.0):
        self.by = by
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return helper(X, self.by)

def helper(X, by):
    return X * by

if __name__ == "__main__":
    data = make_classification(300, 5, random_state=0)
    with FarmExecutor(addresses=sys.argv[1:] or None) as executor, executor.as_joblib():
        pipeline = make_pipeline(Mine(), LogisticRegression())
        search = GridSearchCV(pipeline, {"mine__by": [1, 2]}, cv=3)
        print(search.fit(*data).best_score_ > 0.5)
"""


@pytest.mark.parametrize("where", ["embedded", "elsewhere"])
def test_a_pipeline_of_a_script(where, run_script, addresses):
    args = addresses if where == "elsewhere" else ()
    code, out, err = run_script(SCRIPT, args=args, limit=60)

    assert (code, out) == (0, "True\n"), err
