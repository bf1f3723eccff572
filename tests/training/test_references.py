from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optuna_demix.errors import DemixError
from tests.training.samples import BATCH, SEQUENCE, WORDS, Make, record, train, weights

pytest.importorskip("torch")
pytest.importorskip("transformers")


class TestReferences:
    def test_sampled_mixtures_are_recorded(self, make: Make) -> None:
        config = make()
        models = train(config, references=3)
        names = [f"references/{i}" for i in range(3)]
        assert list(models)[-3:] == names
        composition = np.array([[1, 0, 0], [0.25, 0.75, 0], [0.25, 0, 0.75]])
        for name in names:
            model = models[name]
            assert model.path == config.run_path / "models" / name
            kept = record(model)
            assert sum(kept["merge_weights"].values()) == pytest.approx(1.0)
            asked = {d: facts["share_asked"] for d, facts in kept["data"].items()}
            assert sum(asked.values()) == pytest.approx(1.0)
            assert sum(model.data_shares.values()) == pytest.approx(1.0)
            expected = np.array(list(kept["merge_weights"].values())) @ composition
            for share, dataset in zip(expected, WORDS, strict=True):
                assert asked.get(dataset, 0.0) == pytest.approx(share)
                assert abs(model.data_shares.get(dataset, 0.0) - share) <= 1 / (9 * BATCH)
        assert len({tuple(models[name].data_shares.values()) for name in names}) == 3

    def test_more_references_keep_the_first(self, make: Make) -> None:
        config = make()
        train(config, references=1)
        models = train(config, references=2)
        assert models["references/0"].skipped and not models["references/1"].skipped

    def test_a_reference_on_a_components_data_is_that_component(self, make: Make) -> None:
        models = train(make(), reference_mixtures=[{"code": 0.75, "web": 0.25}])
        assert weights(models["references/0"]) == weights(models["code"])
        assert record(models["references/0"])["merge_weights"] is None

    def test_reference_has_its_own_budget(self, make: Make) -> None:
        step = SEQUENCE * BATCH
        budget = {"tokens": 5 * step, "learning_rate": 0.001}
        config = make(changes={"training.reference": budget})
        models = train(config, references=1, only=["base", "references"])
        assert list(models) == ["base", "references/0"]
        assert models["references/0"].steps == 5

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"reference_mixtures": [{"web": 0.5}]}, "reference 0: .* sum to 1, not to 0.5"),
            ({"reference_mixtures": [{"webb": 1.0}]}, "no dataset 'webb'; did you mean 'web'"),
            (
                {"reference_mixtures": [{"web": 1.5, "code": -0.5}]},
                "the share of 'code' must be a number from 0 to 1, got -0.5",
            ),
            ({"reference_mixtures": [{"web": float("nan")}]}, "got nan"),
            ({"references": -1}, "must not be negative"),
            ({"references": 1, "reference_mixtures": []}, "not both"),
        ],
    )
    def test_bad_mixtures_are_refused(
        self, make: Make, options: dict[str, Any], message: str
    ) -> None:
        config = make()
        with pytest.raises(DemixError, match=message):
            train(config, **options)
        assert not config.run_path.exists()
