"""How fast texts are written: our own loop, and vLLM where it is installed, beside lm-eval's HFLM.

A random Llama, its prompts as token ids of made-up words, in three workloads:

- shared: prompts that begin with the same worked examples and end in a question of their own,
  texts of very different lengths, as in GSM8K;
- unshared: as long, but each with examples of its own;
- code: shorter prompts with nothing in common, longer texts, as in HumanEval.

All ways write the same texts, one after another in the same process. On a CPU with one thread, and
seconds are those of the process's CPU time, since other programs may run. With ``--device cuda``
the model has the shape of one of 1.7 billion parameters, in bfloat16, seconds are those of the
clock after a first run, and our loop and vLLM write as many texts at once as memory lets a study.

In bfloat16 rounding may tip a token: the share of texts that differ is counted for our loop, and
beside it for lm-eval's own with another batch size.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from _common import parser, print_table, provenance, quiet, write

ROWS = 32
_COLUMNS = {
    "workload": "",
    "way": "",
    "cpu_s": ".2f",
    "wall_s": ".2f",
    "peak_gb": ".1f",
    "tokens_per_second": ".0f",
    "ratio": ".2f",
    "texts_equal": "",
}


@dataclass(frozen=True)
class Workload:
    """Prompts and texts of one kind, in tokens."""

    name: str
    documents: int
    shared: int
    own: tuple[int, int]
    longest_text: int


WORKLOADS = (
    Workload("shared", documents=64, shared=669, own=(25, 90), longest_text=256),
    Workload("unshared", documents=64, shared=0, own=(694, 759), longest_text=256),
    Workload("code", documents=32, shared=0, own=(60, 250), longest_text=512),
)
QUICK = tuple(
    replace(each, documents=each.documents // 4, longest_text=each.longest_text // 4)
    for each in WORKLOADS
)


@dataclass(frozen=True)
class Setup:
    """What differs between devices.

    Attributes:
        device: The device.
        fields: Of the model's configuration.
        dtype: Of the model.
        ending: The end token's weights, times those of others: it is the likeliest at times.
        rows: Texts that our loop and vLLM write at once.
        times: Documents, times those of the workloads.
        kv_cache_memory_bytes: Memory of vLLM's keys and values.
        targets: Least ratios to HFLM 32 of our loop and of vLLM.
    """

    device: str
    fields: dict[str, Any]
    dtype: str
    ending: float
    rows: int
    times: int
    kv_cache_memory_bytes: int
    targets: dict[str, dict[str, float]]

    @property
    def vocabulary(self) -> int:
        """Tokens of the model."""
        return int(self.fields["vocab_size"])


CPU = Setup(
    device="cpu",
    fields={
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "vocab_size": 4096,
        "initializer_range": 0.08,
        "tie_word_embeddings": False,
    },
    dtype="float32",
    ending=1.5,
    rows=ROWS,
    times=1,
    kv_cache_memory_bytes=400_000_000,
    targets={"ours": {"unshared": 2.0, "shared": 4.0, "code": 3.0}},
)
CUDA = Setup(
    device="cuda",
    fields={
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "vocab_size": 151_936,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
    },
    dtype="bfloat16",
    ending=1.9,
    rows=256,
    times=4,
    kv_cache_memory_bytes=40_000_000_000,
    targets={
        "ours": {"unshared": 5.0, "shared": 5.0, "code": 5.0},
        "vllm": {"unshared": 20.0, "shared": 20.0, "code": 20.0},
    },
)


def random_model(setup: Setup, seed: int) -> Any:
    """A random Llama whose end token is the likeliest once in a while."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=0, **setup.fields
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, setup.dtype))
    try:
        with torch.device(setup.device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        model.lm_head.weight[0] *= setup.ending
    return model.eval().requires_grad_(False)


def words(count: int) -> Any:
    """A tokenizer of as many words as the model has tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(["<eos>", "<unk>", "Question:"])}
    ids |= {f"w{i}": i for i in range(len(ids), count)}
    raw = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", unk_token="<unk>")


def requests(workload: Workload, vocabulary: int, seed: int) -> list[Any]:
    """lm-eval's requests."""
    from lm_eval.api.instance import Instance

    draw = random.Random(seed)

    def text(length: int) -> str:
        return " ".join(f"w{draw.randrange(3, vocabulary)}" for _ in range(length))

    shared = text(workload.shared)
    arguments = {"until": ["Question:", "\n\n"], "max_gen_toks": workload.longest_text}
    return [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(f"{shared} {text(draw.randint(*workload.own))}".strip(), dict(arguments)),
            idx=0,
            metadata=(workload.name, number, 1),
        )
        for number in range(workload.documents)
    ]


def measure(call: Callable[[], Any], device: str) -> tuple[Any, dict[str, float]]:
    """What a call returns; its CPU seconds, or on a GPU those of the clock and its memory."""
    if device == "cpu":
        start = time.process_time()
        result = call()
        return result, {"cpu_s": round(time.process_time() - start, 3)}
    import torch

    call()  # kernels are chosen and compiled
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = call()
    torch.cuda.synchronize()
    seconds = round(time.perf_counter() - start, 3)
    return result, {"wall_s": seconds, "peak_gb": torch.cuda.max_memory_allocated() / 1e9}


def equal(one: Sequence[str], other: Sequence[str]) -> int:
    """How many texts are equal."""
    return sum(a == b for a, b in zip(one, other, strict=True))


def ways(
    model: Any, asked: list[Any], setup: Setup, batches: Sequence[int]
) -> dict[str, Callable[[], list[str]]]:
    """What writes the texts; HFLM with 32 rows first."""
    import torch

    from optuna_demix.scoring import VllmSettings
    from optuna_demix.scoring.harness import PreparedModel
    from optuna_demix.scoring.vllm_extra import vllm_version

    tokenizer = words(setup.vocabulary)
    vllm = VllmSettings(setup.kv_cache_memory_bytes, max_num_seqs=setup.rows)

    def way(generation: str, rows: int) -> Callable[[], list[str]]:
        lm = PreparedModel(model, tokenizer, batch_size=rows, generation=generation, vllm=vllm)
        (plan,) = lm.prepare("generate_until", [asked])
        own = sum(prompt is not None for prompt in plan.prompts)
        assert own == (0 if generation == "hf" else len(asked)), f"{generation} refuses"

        def texts() -> list[str]:
            lm.weights_changed()
            with torch.inference_mode():
                return lm.answer(plan)

        return texts

    found = {f"hflm{rows}": way("hf", rows) for rows in batches}
    found["ours"] = way("auto", setup.rows)
    if vllm_version() is not None:
        found["vllm"] = way("vllm", setup.rows)
    return found


def compare(
    workload: Workload, model: Any, setup: Setup, batches: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """Rows of one workload."""
    asked = requests(workload, setup.vocabulary, seed)
    rows: list[dict[str, Any]] = []
    first: list[str] = []
    for way, write_texts in ways(model, asked, setup, batches).items():
        texts, measured = measure(write_texts, setup.device)
        first = first or texts
        seconds = measured.get("cpu_s") or measured["wall_s"]
        written = sum(min(len(text.split()) + 1, workload.longest_text) for text in first)
        rows.append(
            {
                "workload": workload.name,
                "way": way,
                **measured,
                "tokens_per_second": round(written / seconds, 1),
                "ratio": round(rows[0]["seconds"] / seconds, 3) if rows else 1.0,
                "texts_equal": f"{equal(first, texts)}/{len(first)}",
                "seconds": seconds,
            }
        )
        print(f"{workload.name}, {way}: {seconds:.2f} s", flush=True)
    lengths = sorted(len(text.split()) for text in first)
    print(f"{workload.name}: texts of {lengths[0]} to {lengths[-1]} words, {sum(lengths)} in all")
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def in_bfloat16(workload: Workload, setup: Setup, seed: int) -> dict[str, float]:
    """Shares of texts that differ from lm-eval's in bfloat16."""
    import torch

    model = random_model(setup, seed).to(torch.bfloat16)
    asked = requests(workload, setup.vocabulary, seed)
    some = ways(model, asked, setup, (ROWS, 4))
    theirs = some["hflm32"]()
    return {
        way: 1 - equal(theirs, write_texts()) / len(theirs)
        for way, write_texts in some.items()
        if way != "hflm32"
    }


def ratios(rows: Sequence[dict[str, Any]], way: str) -> dict[str, float]:
    """How many times as fast as HFLM with 32 rows, by workload."""
    return {row["workload"]: row["ratio"] for row in rows if row["way"] == way}


def targets(
    rows: Sequence[dict[str, Any]], wanted: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """Whether each way was as fast as it should be, in every workload."""
    found = []
    for way, least in wanted.items():
        measured = ratios(rows, way)
        if not measured:
            continue
        met = all(measured[name] >= bound for name, bound in least.items())
        found.append({"target": f"{way}: times HFLM 32", "bound": least, "met": met, **measured})
    return found


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument(
        "--hflm", type=int, nargs="*", default=[8, 16], help="HFLM's further batch sizes"
    )
    given = arguments.parse_args()
    quiet()
    setup = CUDA if given.device == "cuda" else CPU
    chosen = [
        replace(each, documents=each.documents * setup.times)
        for each in (QUICK if given.quick else WORKLOADS)
    ]
    model = random_model(setup, given.seed)
    batches = [ROWS, *given.hflm]
    rows = [r for each in chosen for r in compare(each, model, setup, batches, given.seed)]
    shares = in_bfloat16(replace(QUICK[0], shared=100), setup, given.seed) if setup is CPU else {}
    print_table(rows, _COLUMNS)
    for way, share in shares.items():
        print(f"bfloat16, {QUICK[0].documents} texts: {share:.2f} differ, hflm32 and {way}")
    wanted = dict(setup.targets)
    if setup is CPU:
        wanted["vllm"] = ratios(rows, "ours")  # at least as fast as our own
    reached = targets(rows, wanted)
    for target in reached:
        print(f"{'met' if target['met'] else 'MISSED'}: {target}")
    about = {**provenance(), "quick": given.quick, "seed": given.seed, "device": given.device}
    result = {"rows": rows, "ratios": ratios(rows, "ours"), "vllm": ratios(rows, "vllm")}
    write(given.out, {**about, **result, "bfloat16": shares, "targets": reached})


if __name__ == "__main__":
    main()
