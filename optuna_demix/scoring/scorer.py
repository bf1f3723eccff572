"""``HarnessScorer``: the scores of a live model, again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optuna_demix._progress import Report
from optuna_demix.scoring.benchmark import Benchmark
from optuna_demix.scoring.block_scores import BlockScores
from optuna_demix.scoring.checks import IncludePath, check_names, specs_of, task_folders
from optuna_demix.scoring.digest import digest
from optuna_demix.scoring.screening import CheapScores, Screening, answers_of_units
from optuna_demix.scoring.settings import (
    TaskSettings,
    check_bos,
    check_positive,
    check_template,
    resolve,
)
from optuna_demix.scoring.vllm_extra import VllmSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from optuna_demix.scoring.generation import Watcher
    from optuna_demix.scoring.replay import Replay
    from optuna_demix.scoring.workload import Workload


class HarnessScorer:
    """Scores a model on benchmarks whose requests are prepared once.

    Construction loads the tasks, draws the few-shot examples, tokenizes every request and lays
    out the batches. Each :meth:`score` then costs the forward passes and the metrics' arithmetic.
    The weights may change in place between calls, as those of a merged proxy do: nothing that
    depends on them is kept.

    Without overrides in a benchmark the scores are those of
    ``lm_eval.simple_evaluate(HFLM(pretrained=model, ...), tasks=[...])`` on the same weights, with
    the same settings, ``fewshot_random_seed=seed``, an empty cache of processed data sets and the
    tasks in the order of the benchmarks, to the last bit. Only the name of a chat template means
    more than in lm-eval, which takes any name for the default.

    Not safe for use from several threads at once.

    Args:
        benchmarks: What to score.
        model: A causal language model of transformers, on its device.
        tokenizer: Its tokenizer; left unchanged.
        include_path: Directory or directories of local tasks, searched before lm-eval's own.
        batch_size: Rows of one forward pass, fewer after memory has run out. Always a number: a
            search for the largest one would be repeated on each call, and the last bits of a
            score depend on it.
        max_length: Longest input in tokens; ``None`` for the model's own.
        limit: Documents of every task, a number (>= 1) or a fraction (< 1); ``None`` for all.
        num_fewshot: Few-shot examples of every task that does not fix them to 0; ``None`` for
            each task's own number.
        apply_chat_template: As all to ``think_end_token``, of every task: see
            :class:`~optuna_demix.scoring.settings.TaskSettings`.
        system_instruction: Likewise.
        fewshot_as_multiturn: Likewise.
        gen_kwargs: Likewise.
        repeats: Likewise.
        metadata: Likewise.
        think_end_token: Likewise.
        add_bos_token: Begin texts with the tokenizer's BOS token, or do not; ``None`` leaves it to
            the tokenizer.
        seed: Of the choice of few-shot examples, and of texts that :meth:`seed_of` is asked for.
        confirm_run_unsafe_code: Allow tasks that run code which the model wrote, in a sandbox.
        confirm_run_unsafe_code_unsandboxed: Allow them without one: as the worker itself.
        mixed_precision_dtype: Run forward passes under autocast to ``"bfloat16"`` or
            ``"float16"``.
        shared_prefixes: Compute what several requests begin with alike only once, and the output
            head for continuations only. Several times faster on tasks of multiple choice; each
            log-likelihood differs by its rounding, up to about 1e-4 nats in float32. Checked on a
            few inputs with the weights the model has now, and left off with a warning where the
            model cannot do it.
        generation: ``"auto"`` writes texts of plain greedy search by our own loop, in which rows
            leave when they end, ``"vllm"`` by vLLM, and others, with a warning, by lm-eval, as
            ``"hf"`` all. In float32 the texts are equal, unless two tokens are as likely up to
            rounding. Checked on a few tokens with the weights the model has now.
        vllm: What vLLM may use.
        blocks: Score the documents in so many blocks, for :meth:`race`: every benchmark deals an
            equal share of its documents, shuffled, to each. Batches do not reach over blocks,
            which may move the last bits of a score.
        screening: Benchmarks whose texts :meth:`score_cheaply` leaves out; ``None`` for none.
        report: Called with a line before each long step, and now and then within.

    Raises:
        TaskError: A task or metric that does not exist or cannot be scored, a task file that
            cannot be read, missing data, or an unusable setting.
    """

    def __init__(
        self,
        benchmarks: Sequence[Benchmark],
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        include_path: IncludePath = None,
        batch_size: int = 32,
        max_length: int | None = None,
        limit: float | None = None,
        num_fewshot: int | None = None,
        apply_chat_template: bool | str | None = None,
        system_instruction: str | None = None,
        fewshot_as_multiturn: bool | None = None,
        gen_kwargs: Mapping[str, Any] | None = None,
        repeats: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        think_end_token: str | int | None = None,
        add_bos_token: bool | None = None,
        seed: int = 1234,
        confirm_run_unsafe_code: bool = False,
        confirm_run_unsafe_code_unsandboxed: bool = False,
        mixed_precision_dtype: str | None = None,
        shared_prefixes: bool = False,
        generation: Literal["auto", "hf", "vllm"] = "auto",
        vllm: VllmSettings | None = None,
        blocks: int | None = None,
        screening: Screening | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.benchmarks = tuple(benchmarks)
        check_names(self.benchmarks)
        check_positive("batch_size", batch_size)
        for setting, value in (("max_length", max_length), ("blocks", blocks)):
            if value is not None:
                check_positive(setting, value)
        common = TaskSettings(
            num_fewshot=num_fewshot,
            limit=limit,
            apply_chat_template=apply_chat_template,
            system_instruction=system_instruction,
            fewshot_as_multiturn=fewshot_as_multiturn,
            gen_kwargs=gen_kwargs,
            repeats=repeats,
            metadata=metadata,
            think_end_token=think_end_token,
        )
        common.check("scorer")
        runs = resolve(common, {b.name: b for b in self.benchmarks}, where="scorer")

        from optuna_demix.scoring.harness import Catalog, PreparedModel
        from optuna_demix.scoring.harness.tasks import LM_EVAL_VERSION
        from optuna_demix.scoring.readings import Readings, addresses_of
        from optuna_demix.scoring.suite import Suite
        from optuna_demix.scoring.units import UnitKey, wanted_of

        catalog = Catalog(task_folders(include_path))
        allowed = confirm_run_unsafe_code or confirm_run_unsafe_code_unsandboxed
        specs = specs_of(self.benchmarks, catalog, confirm_run_unsafe_code=allowed)

        self._settings = {
            "batch_size": batch_size,
            "limit": limit,
            "num_fewshot": num_fewshot,
            "mixed_precision_dtype": mixed_precision_dtype,
            "blocks": blocks,
        }
        self._seed = seed
        self._keys = {b.name: UnitKey(b.task, runs[b.name]) for b in self.benchmarks}
        addresses = addresses_of(self.benchmarks, self._keys, specs)
        chosen = {} if screening is None else screening.resolve(self.benchmarks, specs)
        answers = answers_of_units(chosen, self._keys, self.benchmarks)
        self._screened = tuple(chosen)
        check_bos(tokenizer, add_bos_token)
        for run in runs.values():
            check_template(tokenizer, run.apply_chat_template)
        self._lm = PreparedModel(
            model,
            tokenizer,
            batch_size=batch_size,
            max_length=max_length,
            mixed_precision_dtype=mixed_precision_dtype,
            shared_prefixes=shared_prefixes,
            add_bos_token=add_bos_token,
            generation=generation,
            vllm=vllm,
        )
        self._suite = Suite(
            catalog,
            {self._keys[name]: spec for name, spec in specs.items()},
            wanted_of(addresses.values(), answers),
            self._lm,
            seed=seed,
            n_blocks=1 if blocks is None else blocks,
            screened=answers,
            report=Report.of(report),
            sandboxed=not confirm_run_unsafe_code_unsandboxed,
        )
        self._readings = Readings(self._suite, self.benchmarks, addresses, specs)
        self._version = LM_EVAL_VERSION
        self._digest: str | None = None
        self._scored = False

    def seed_of(self, number: int) -> int | None:
        """The seed of a trial's sampled texts, the same on every worker; ``None`` without any."""
        if not self._suite.samples():
            return None
        return int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])

    def score(self, *, seed: int | None = None) -> dict[str, float]:
        """Score the model with the weights it has now.

        Args:
            seed: Of sampled texts; by default they are those of ``simple_evaluate``.

        Returns:
            Score of each benchmark by name, oriented so that higher is better: a metric of which
            less is better is negated. NaN where the model answers with NaN or the metric is not
            finite.

        Raises:
            TaskError: If a task turns out not to give a metric that only its code could name.
        """
        self._suite.run(seed)
        self._scored = True
        return self._readings.scores()

    def score_cheaply(self, *, seed: int | None = None) -> CheapScores:
        """Score the model on all but the texts of screened benchmarks.

        Args:
            seed: As of :meth:`score`, also of the texts that are written later.

        Raises:
            TaskError: As :meth:`score`.
        """
        self._scored = False
        self._suite.run_cheaply(seed)
        cheap = {
            name: -self._suite.unit(self._keys[name]).cheap_value() for name in self._screened
        }
        return CheapScores(self._readings.scores(without=self._screened), cheap)

    def score_screened(self) -> dict[str, float]:
        """Go on after :meth:`score_cheaply` with the same weights: all scores."""
        self._suite.run_screened()
        self._scored = True
        return self._readings.scores()

    def watch(self, watcher: Watcher | None) -> None:
        """Be told, while texts are written, of the tokens written and of those expected.

        Texts that lm-eval writes are not counted.

        Args:
            watcher: Called with both numbers after each step; ``None`` for nobody.
        """
        self._lm.progress.watcher = watcher

    def race(self, *, seed: int | None = None) -> Iterator[BlockScores]:
        """Score the model block by block, so that the caller can stop early.

        After the last block :meth:`items` and its like work as after :meth:`score`.

        Args:
            seed: As of :meth:`score`.

        Yields:
            What is known after each block.

        Raises:
            TaskError: As :meth:`score`.
        """
        self._suite.reset(seed)
        self._scored = False
        for block in range(self._suite.n_blocks):
            self._suite.run_block(block)
            self._scored = block + 1 == self._suite.n_blocks
            done = range(block + 1)
            yield BlockScores(
                block=self._readings.scores((block,)),
                so_far=self._readings.scores(done),
                items={
                    name: self._suite.unit(key).n_documents(done)
                    for name, key in self._keys.items()
                },
                last=block + 1 == self._suite.n_blocks,
            )

    def items(self) -> dict[str, NDArray[np.float64]]:
        """Values of the single documents in the last :meth:`score`, higher is better.

        A document's value is the metric of that document alone; a group has the documents of its
        tasks, one task after another. Benchmarks without such values (F1, BLEU, a NaN score) are
        left out.

        Returns:
            Arrays (n,) by benchmark, in the documents' order, which never changes.
        """
        self._require_score()
        signs = self._readings.signs
        return {name: signs[name] * t.values for name, t in self._readings.tables().items()}

    def item_weights(self) -> dict[str, NDArray[np.float64]]:
        """Share of each of :meth:`items` in its score.

        Equal shares for a mean, shares of bytes for bits per byte; ``weights @ items`` is the
        score for both, and close to it for perplexities.

        Returns:
            Arrays (n,) by benchmark, each summing to 1.
        """
        self._require_score()
        return {name: table.weights for name, table in self._readings.tables().items()}

    def standard_errors(self) -> dict[str, float]:
        """Standard error of each score of the last :meth:`score`, over the choice of documents.

        A mean has lm-eval's own, bits per byte and perplexities the linearized one of
        :func:`optuna_demix.scoring.items.standard_error`, a group what lm-eval pools from its
        tasks; nothing is bootstrapped.

        Returns:
            By benchmark; NaN where there is none.
        """
        self._require_score()
        return self._readings.errors()

    def replay(self) -> Replay:
        """Scores on the same requests of log-likelihoods that are given, not computed.

        The last :meth:`score` is forgotten: its answers make way for the given ones.

        Raises:
            NeedsModelError: If benchmarks need more of a model than log-likelihoods.
        """
        from optuna_demix.scoring.replay import Replay

        self._scored = False
        return Replay(self._suite, self._readings.addresses, self._readings.signs)

    def workload(self) -> Workload:
        """What the model is given for one :meth:`score`, known without running it."""
        return self._suite.workload()

    def plan_digest(self) -> str:
        """Hash of everything but the weights that the scores depend on.

        Task configurations and the source of their functions, documents, prompts, token ids and
        their batches, benchmarks, settings, dtype and lm-eval's version; no paths, so that two
        hosts agree.

        Returns:
            64 hexadecimal digits.
        """
        if self._digest is None:
            described = self._description()
            del described["device"], described["forward_passes"]
            self._digest = digest([described, self._suite.digest()])
        return self._digest

    def describe(self) -> dict[str, Any]:
        """What is scored and how, JSON-able."""
        return {
            **self._description(),
            "settings": {
                name: {k: value for k, value in vars(key.settings).items() if value is not None}
                for name, key in self._keys.items()
            },
            "plan_digest": self.plan_digest(),
        }

    def _description(self) -> dict[str, Any]:
        return {
            "lm_eval": self._version,
            "dtype": str(self._lm.model.dtype).removeprefix("torch."),
            "device": str(self._lm.device),
            **self._settings,
            "max_length": self._lm.max_length,
            "seed": self._seed,
            "requests": self._suite.requests(),
            "forward_passes": self._suite.forward_passes(),
            "shared_prefixes": self._lm.packs,
            "generation": self._suite.writers(),
            "benchmarks": [
                {
                    "name": b.name,
                    "task": b.task,
                    "metric": b.measure,
                    "filter": self._readings.addresses[b.name][2],
                    "higher_is_better": self._readings.higher[b.name],
                    "limit": self._keys[b.name].settings.limit,
                    "tasks": self._suite.unit(self._keys[b.name]).describe(),
                }
                for b in self.benchmarks
            ],
        }

    def _require_score(self) -> None:
        if not self._scored:
            raise RuntimeError("nothing has been scored yet: call score() first")
