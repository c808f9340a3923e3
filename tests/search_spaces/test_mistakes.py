"""Each mistake in a sweep file is named with its line, key and value, and with what is allowed."""

from __future__ import annotations

import pytest

from tests.support.sweep_texts import BOTH, message, sweep, sweep_text

# Each: the sections that are wrong, and what the message must say.
BAD: list[tuple[dict[str, str | None], str]] = [
    # structure
    ({"system": None}, "small.yaml: system: required key is missing"),
    ({"rungs": None}, "small.yaml: rungs: required key is missing"),
    ({"budget": "{}"}, "small.yaml:5: budget: the search would never end; give at least one of trials, gpu_hours, ho"),
    ({"budget": "{target: 1, patience: 3}"}, "small.yaml:5: budget: the search would never end"),
    ({"name": "small", "warm_start": "[small]"}, "small.yaml:7: warm_start.0: is this sweep itself"),
    ({"warm_start": "[1]"}, "warm_start: expected a list of words, got [1]"),
    ({"warm_start": "other", "sampler": "random"}, "warm_start: sampler random learns nothing from other sweeps' tria"),
    ({"budget": "{money: 3}"}, "small.yaml:5: budget: money needs price_per_gpu_hour"),
    ({"budget": "{trials: 3, hours: 0}"}, "budget.hours: input should be greater than 0, got 0"),
    ({"budget": "{hours: 3, price: 1}"}, "budget.price: unknown key 'price'"),
    ({"sampler": "grid", "search": "{slope: {choice: [0.1]}}", "budget": "{hours: 1}"}, "budget: sampler grid needs t"),
    ({"buget": "{trials: 3}"}, "small.yaml:6: buget: unknown key 'buget'; did you mean 'budget'? allowed: name, syst"),
    ({"score": "{metrik: kid}"}, "score.metrik: unknown key 'metrik'; did you mean 'metric'? allowed: metric, samples"),
    ({"dataset": "{name: mnist, pth: /tmp}"}, "dataset.pth: unknown key 'pth'; did you mean 'path'?"),
    ({"score": "{extractor: {name: lenet, weigts: x}}"}, "score.extractor.weigts: unknown key 'weigts'; did you mean"),
    ({"name": ".hidden"}, "name: allowed are letters, digits, '.', '_' and '-', not starting with '.' or '-', got '."),
    ({"name": "a/b"}, "got 'a/b'"),
    # types and ranges of the plain sections
    ({"budget": '{trials: "12"}'}, "small.yaml:5: budget.trials: input should be a valid integer, got '12'"),
    ({"budget": "{trials: 1.5}"}, "budget.trials: input should be a valid integer, got 1.5"),
    ({"budget": "{trials: true}"}, "budget.trials: input should be a valid integer, got True"),
    ({"budget": "{trials: 0}"}, "budget.trials: input should be greater than or equal to 1, got 0"),
    ({"budget": "12"}, "budget: input should be a valid dictionary"),
    ({"finals": "{trials: -1}"}, "finals.trials: input should be greater than or equal to 0, got -1"),
    ({"finals": "{samples: 1}"}, "finals.samples: input should be greater than or equal to 2, got 1"),
    ({"finals": "{trial: 3}"}, "finals.trial: unknown key 'trial'; did you mean 'trials'? allowed: trials, samples"),
    ({"resources": "{gpus_per_worker: 1.5}"}, "resources.gpus_per_worker: above 1 the number of GPUs must be whole"),
    ({"resources": "{workers_per_trial: 2, gpus_per_worker: 0.5}"}, "2 workers of a trial need whole GPUs"),
    ({"resources": "{workers_per_trial: 2, gpus_per_worker: 1, trials_per_gpu: 2}"}, "need whole GPUs, since NCCL"),
    ({"resources": "{gpus_per_worker: 2, trials_per_gpu: 2}"}, "resources.trials_per_gpu: 2 trials share one GPU"),
    ({"resources": "{gpus_per_worker: 1, trials_per_gpu: 0}"}, "resources.trials_per_gpu: allowed are 1 to 100, auto"),
    ({"resources": "{gpus_per_worker: 1, trials_per_gpu: many}"}, "resources.trials_per_gpu"),
    ({"resources": "{workers_per_trial: 3}"}, "resources.workers_per_trial: 3 workers cannot share a batch of"),
    ({"resources": "{workers_per_trial: 0}"}, "resources.workers_per_trial: input should be greater than or equal"),
    ({"resources": "{workers_per_trial: 64, batch: scaled}"}, "resources.batch: scaled by 64 workers, a batch of"),
    ({"resources": "{batch_norm: frozen}"}, "resources.batch_norm"),
    (
        {"resources": "{workers_per_trial: 100, batch_norm: local}"},
        "small.yaml:6: resources.batch_norm: local leaves a worker one image of a batch of 100 (the default of narman-",
    ),
    ({"resources": "{concurrent_trials: 0}"}, "resources.concurrent_trials: input should be greater than or equal to"),
    ({"tracking": "{uri: 'ftp://x'}"}, "tracking.uri: expected sqlite:///FILE, postgresql://USER@HOST/DATABASE, http"),
    ({"tracking": "{uri: 'sqlite://'}"}, "tracking.uri: expected sqlite:///FILE, "),
    (
        {"tracking": "{uri: 'https://me:secret@mlflow.example.org'}"},
        "tracking.uri: a password must not stand in a sweep file, which is kept and shown: set MLFLOW_TRACKING_",
    ),
    ({"study": "{storage: study.db}"}, "study.storage: expected sqlite:///FILE, postgresql://USER@HOST/DATABASE or m"),
    ({"study": "{storage: 'http://x'}"}, "study.storage: expected sqlite:///FILE"),
    (
        {"study": "{storage: 'postgresql://me:secret@db/studies'}"},
        "study.storage: a password must not stand in a sweep file, which is kept and shown: set PGPASSWORD or",
    ),
    ({"study": "{storage: 'postgresql://me@db/studies?password=secret'}"}, "study.storage: a password must not stand"),
    ({"study": "{storag: null}"}, "study.storag: unknown key 'storag'; did you mean 'storage'?"),
    ({"store": "{path: 3}"}, "store.path: input should be a valid string, got 3"),
    ({"sampler": "tpee"}, "sampler.name: unknown name 'tpee'; allowed: tpe, random, grid"),
    (
        {"sampler": "grid", "search": "{g_lr: {log_uniform: [1e-5, 1e-3]}}"},
        "search.g_lr.log_uniform: sampler grid needs a choice, an int or a constant",
    ),
    (
        {"sampler": "grid", "search": "{slope: {choice: [0.1, 0.2]}}", "budget": "{trials: 3}"},
        "budget.trials: 3 is more than the 2 points of the grid",
    ),
    (
        {"sampler": "grid", "search": "{slope: {choice: [0.1]}}", "points": "[{slope: 0.1}]", "budget": "{trials: 1}"},
        "points: sampler grid visits every point anyway",
    ),
    (
        {"sampler": "cmaes", "search": "{g_lr: {uniform: [0.1, 0.2]}, smoothing: {choice: [none, fixed]}}"},
        "small.yaml:3: search.smoothing.choice: sampler cmaes needs numbers, which have an order and a distance; use t",
    ),
    ({"sampler": "cmaes", "system": BOTH}, "small.yaml:1: system.choice: sampler cmaes needs numbers"),
    *(
        (
            {"sampler": name, "search": "{n_critic: {int: [1, 2]}, slope: {uniform: [0.1, 0.2], when: {n_critic: 1}}}"},
            f"small.yaml:3: search.slope.when: sampler {name} takes no conditions, since it learns only from what eve",
        )
        for name in ("gp", "cmaes", "nsga2")
    ),
    ({"points": "[{slope: 0.1}]"}, "points.0.slope: unknown dimension 'slope'"),
    ({"points": "{slope: 0.1}"}, "points: input should be a valid tuple"),
    (
        {"points": "[{slope: 0.3}]", "search": "{slope: {choice: [0.1, 0.2]}}"},
        "points.0.slope: slope is never 0.3; allowed: 0.1, 0.2",
    ),
    (
        {
            "points": "[{smoothing_strength: 0.1}]",
            "search": "{smoothing: {choice: [none, fixed]}, "
            "smoothing_strength: {uniform: [0.1, 0.2], when: {smoothing: fixed}}}",
        },
        "points.0.smoothing_strength: takes no part: the point must give",
    ),
    (
        {"points": "[{slope: 0.1}, {slope: 0.2}]", "search": "{slope: {choice: [0.1, 0.2]}}", "budget": "{trials: 1}"},
        "budget.trials: 1 is less than the 2 points",
    ),
    ({"sampler": "{name: random, startup: 3}"}, "sampler.startup: unknown key 'startup'; allowed: name, seed"),
    ({"pruner": "{name: median, reduction: 3}"}, "pruner.reduction: unknown key 'reduction'; allowed: name, startup,"),
    ({"pruner": "{name: percentile, percentile: 100}"}, "pruner.percentile: input should be less than 100, got 100"),
    ({"pruner": "{name: median, warmup: -1}"}, "pruner.warmup: expected a number of kimg from 0 to 1e9, got -1"),
    ({"pruner": "threshold"}, "pruner: a threshold needs lower, upper or both"),
    ({"pruner": "{name: threshold, lower: 2, upper: 1}"}, "pruner: lower 2.0 is not below upper 1.0"),
    ({"pruner": "{name: patient, patience: 0}"}, "pruner.patience: input should be greater than or equal to 1, got 0"),
    ({"pruner": "[median]"}, "pruner: expected {name: NAME, ...} with one of freeze-thaw, median, percentile, halv"),
    # verdicts
    ({"stop_on": "[mode-colapse]"}, "small.yaml:6: stop_on.0: unknown verdict 'mode-colapse'; did you mean 'mode-coll"),
    ({"stop_on": "[diverged, stuck]"}, "stop_on.1: unknown verdict 'stuck'; allowed: diverged, exploding-gradients, v"),
    ({"stop_on": "[under-trained]"}, "small.yaml:6: stop_on.0: under-trained is for information and ends no trial; al"),
    ({"stop_on": "[late-decay, late-decay]"}, "small.yaml:6: stop_on: a word is listed twice in ['late-decay', 'late"),
    ({"stop_on": "{mode-collapse: true}"}, "stop_on: expected a list of words, got {'mode-collapse': True}"),
    # rungs
    ({"rungs": "{every: 10, until: 65}"}, "small.yaml:4: rungs.until: 65 is not a multiple of every 10"),
    ({"rungs": "{every: 0, until: 60}"}, "rungs.every: input should be greater than 0, got 0"),
    ({"rungs": "{every: 10, untl: 60}"}, "rungs.untl: unknown key 'untl'; did you mean 'until'?"),
    ({"rungs": "{every: 0.1, until: 1e9}"}, "rungs.every: 0.1 makes 10000000000 rungs; allowed are at most 10000"),
    ({"rungs": "[10, 10]"}, "rungs.1: rungs must be positive and increase, got 10 in [10, 10]"),
    ({"rungs": "[0, 10]"}, "rungs.0: rungs must be positive and increase, got 0"),
    ({"rungs": "[]"}, "rungs: expected {every: KIMG, until: KIMG} or a list of kimg, got []"),
    ({"rungs": "[0.12345]"}, "rungs.0: 0.12345 kimg is 123.45 images, not a whole number"),
    ({"rungs": "[ten]"}, "rungs.0: expected a number of kimg from 0 to 1e9, got 'ten'"),
    ({"rungs": "[1.05]"}, "rungs: rung 1.05 kimg (1050 images) is not a multiple of batch 100 (the default of narman-"),
    ({"search": "{batch: 64}"}, "rungs: rung 10 kimg (10000 images) is not a multiple of batch 64 (search.batch"),
    ({"search": "{batch: {choice: [50, 96]}}"}, "is not a multiple of batch 96"),
    ({"search": "{batch: {int: [50, 52]}}"}, "batch 51 (from the int range search.batch; use choice)"),
    ({"rungs": "[0.12]", "search": "{loss: {choice: [bce, wasserstein]}, batch: {choice: [60], when: {loss: bce}}}"},
     "rung 0.12 kimg (120 images) is not a multiple of batch 100 (the default of narman-cgan)"),
    # systems, data, score
    ({"system": "narman-cgn"}, "small.yaml:1: system: unknown system 'narman-cgn'; did you mean 'narman-cgan'? allow"),
    ({"system": "{choice: []}"}, "system: expected the id of a system, or {choice: [ID, ID]}"),
    ({"system": "{choice: [narman-cgan, narman-cgan]}"}, "system: a word is listed twice"),
    ({"dataset": "mnist-mni"}, "dataset.name: unknown data set 'mnist-mni'; did you mean 'mnist-mini'?"),
    ({"dataset": "shapes32"}, "dataset: shapes32 has images of shape (3, 32, 32), but narman-cgan makes (1, 28, 28);"),
    ({"dataset": "{name: mnist-mini, size: 64}"}, "dataset: data set mnist-mini: size has no meaning here"),
    ({"dataset": "{name: folder, path: x, download: true}"}, "small.yaml:2: dataset: data set folder: download has no"),
    ({"score": "{metric: fidd}"}, "score.metric: unknown metric 'fidd'; did you mean 'fid'? allowed: kid, fid, is, a"),
    ({"score": "{also: [kidd]}"}, "score.also.0: unknown metric 'kidd'"),
    ({"score": "{also: [fid, fid]}"}, "score.also: a word is listed twice in ['fid', 'fid']"),
    ({"score": "{samples: 1}"}, "score.samples: input should be greater than or equal to 2, got 1"),
    ({"score": "{metric: is, samples: 19}"}, "score.metric: is needs at least 20 samples, got 19; allowed here: kid,"),
    ({"score": "{metric: is, extractor: inception}"}, "score.metric: is needs a classifier's logits"),
    ({"score": "{extractor: lennet}"}, "score.extractor.name: input should be 'lenet', 'cnn', 'inception'"),
    ({"score": "{metric: accuracy}", "system": "narman-dcgan"}, "accuracy needs a conditional system, which narman-d"),
    ({"score": "{metric: accuracy}", "system": BOTH}, "accuracy needs a conditional system, which narman-dcgan is not"),
    ({"score": "{also: [accuracy]}", "system": "narman-dcgan"}, "score.also.0: accuracy needs a conditional system"),
    ({"score": "{metric: tstr}"}, "score.metric: tstr trains a classifier for each value, which is too slow during a"),
    ({"score": "{also: [tstr]}"}, "score.also.0: tstr trains a classifier for each value"),
    ({"score": "{metric: intra-kid}", "system": "narman-dcgan"}, "intra-kid needs a conditional system, which narman"),
    ({"score": "{also: [intra-fid], samples: 19}"}, "score.samples: intra-fid needs at least 20 samples for 10 classe"),
    # dimensions on their own
    ({"search": "[g_lr]"}, "search: expected a mapping of fields to dimensions, got ['g_lr']"),
    ({"search": "{1: 2}"}, "search.1: a key must be a word, got 1"),
    ({"search": "{g_lr: {log_uniform: [0.01, 0.001]}}"}, "small.yaml:3: search.g_lr.log_uniform: low 0.01 is not bel"),
    ({"search": "{g_lr: {uniform: [0.1, 0.1]}}"}, "search.g_lr.uniform: low 0.1 is not below high 0.1"),
    ({"search": "{g_lr: {log_uniform: [0, 0.1]}}"}, "search.g_lr.log_uniform: low 0 must be above 0"),
    ({"search": "{g_lr: {uniform: [0, .inf]}}"}, "search.g_lr.uniform: bounds must be finite, got [0, inf]"),
    ({"search": "{g_lr: {uniform: [.nan, 1]}}"}, "search.g_lr.uniform: bounds must be finite, got [nan, 1]"),
    ({"search": "{g_lr: {uniform: [0.1]}}"}, "search.g_lr.uniform: expected [low, high], two numbers, got [0.1]"),
    ({"search": "{g_lr: {uniform: [a, b]}}"}, "expected [low, high], two numbers, got ['a', 'b']"),
    ({"search": "{n_critic: {int: [1, 2.5]}}"}, "search.n_critic.int: expected [low, high], two whole numbers"),
    ({"search": "{n_critic: {int: [3, 1]}}"}, "search.n_critic.int: low 3 is not below high 1"),
    ({"search": "{smoothing: {choice: []}}"}, "search.smoothing.choice: expected a list with at least one value, got"),
    ({"search": "{smoothing: {choice: [none, none]}}"}, "search.smoothing.choice: 'none' is listed twice"),
    ({"search": "{smoothing: {choice: [none, [fixed]]}}"}, "expected a word, a finite number, true or false, got ['fi"),
    ({"search": "{g_lr: null}"}, "search.g_lr: expected a word, a finite number, true or false, got None"),
    ({"search": "{g_lr: .inf}"}, "search.g_lr: expected a word, a finite number, true or false, got inf"),
    ({"search": "{g_lr: {loguniform: [1e-5, 1e-3]}}"}, "search.g_lr.loguniform: unknown key; allowed is one of log_un"),
    ({"search": "{g_lr: {uniform: [0, 1], choice: [1]}}"}, "search.g_lr: expected exactly one of log_uniform, uniform"),
    ({"search": "{g_lr: {when: {loss: bce}}}"}, "search.g_lr: expected exactly one of log_uniform"),
    # a scale or a step, which ranges do not have
    ({"search": "{latent: {int: [8, 100], log: true}}"}, "small.yaml:3: search.latent.log: whole numbers have neither "
     "log nor step; list the values: choice: [8, 16, 32, 64, 100]"),
    ({"search": "{batch: {int: [20, 100], step: 40}}"}, "neither log nor step; list the values: choice: [20, 60, 100]"),
    ({"search": "{latent: {int: [0, 9], log: true}}"}, "choice: [1, 2, 4, 8, 9]"),
    ({"search": "{latent: {int: [1, 4000], step: 3}}"}, "choice: [1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, "),
    ({"search": "{latent: {int: [1, 9], step: few}}"}, "choice: [1, ..., 9]"),
    ({"search": "{dropout: {uniform: [0.1, 0.4], q: 0.1}}"}, "uniform has no step; list the values: choice: [0.1, "),
    ({"search": "{g_lr: {uniform: [1e-5, 1e-3], log: true}}"}, "is written log_uniform: [1e-05, 0.001]"),
    ({"search": "{g_lr: {log_uniform: [1e-5, 1e-3], log: true}}"}, "search.g_lr.log: leave it out: log_uniform has a"),
    ({"search": "{latent: {int: [1, 9], log: false}}"}, "search.latent.log: leave it out"),
    ({"search": "{latent: {choice: [1, 9], log: true}}"}, "search.latent.log: unknown key; allowed is one of log_unif"),
    ({"search": "{latent: {log_uniform: [16, 70]}}"}, "got 16.0; list whole numbers: choice: [16, 32, 64, 70]"),
    # dimensions against the configuration
    ({"search": "{g_rl: 0.1}"}, "search.g_rl: unknown field of narman-cgan 'g_rl'; did you mean 'g_lr'? allowed: bat"),
    ({"search": "{g_lr: {uniform: [0.1, 5]}}"}, "search.g_lr.uniform: input should be less than or equal to 1, got 5"),
    ({"search": "{beta1: 1}"}, "small.yaml:3: search.beta1: input should be less than 1, got 1"),
    ({"search": "{n_critic: {uniform: [1, 3]}}"}, "search.n_critic.uniform: input should be a valid integer, got 1.0"),
    ({"search": "{n_critic: true}"}, "search.n_critic: input should be a valid integer, got True"),
    ({"search": '{batch: "100"}'}, "search.batch: input should be a valid integer, got '100'"),
    ({"search": "{smoothing: {choice: [none, some]}}"}, "search.smoothing.choice: input should be 'none', 'fixed', "),
    ({"search": "{seed: {int: [0, 9]}}"}, "search.seed: seed may only be a constant"),
    ({"search": "{kimg: 50}"}, "search.kimg: the length of a trial is that of its last rung; set rungs"),
    ({"search": "{system: narman-dcgan}"}, "search.system: the system is given at the top"),
    ({"search": "{loss: wasserstein, smoothing: {choice: [none, fixed]}}"},
     "small.yaml:3: search.loss: smoothing is 'fixed' but loss wasserstein has no labels: allowed is 'none' "
     "(system narman-cgan with loss 'wasserstein', smoothing 'fixed')"),
    ({"system": "monir-dcgan", "dataset": "shapes32", "rungs": "[6.4]", "search": "{loss: wasserstein}"},
     "smoothing is 'random' but loss wasserstein has no labels"),
    # conditions
    ({"search": "{slope: {uniform: [0, 0.5], when: {los: bce}}}"}, "search.slope.when.los: unknown dimension 'los'"),
    ({"search": "{loss: bce, slope: {uniform: [0, 0.5], when: {loss: [wasserstein]}}}"},
     "search.slope.when.loss: loss is never 'wasserstein'; allowed: 'bce'"),
    ({"search": "{n_critic: {int: [1, 3]}, slope: {uniform: [0, 0.5], when: {n_critic: 4}}}"},
     "search.slope.when.n_critic: n_critic is never 4; allowed: 1 to 3"),
    ({"search": "{beta1: {uniform: [0, 0.9]}, slope: {uniform: [0, 0.5], when: {beta1: 0.5}}}"},
     "search.slope.when.beta1: beta1 is continuous"),
    ({"search": "{slope: {choice: [0.1, 0.2], when: {slope: 0.1}}}"}, "search.slope.when: the conditions form a cycl"),
    ({"search": "{latent: {choice: [8, 9], when: {n_critic: 1}}, n_critic: {int: [1, 2], when: {latent: 8}}}"},
     "search.latent.when: the conditions form a cycle: latent -> n_critic -> latent"),
    ({"search": "{loss: {choice: [bce, wasserstein]}, n_critic: {choice: [1, 5], when: {loss: bce}}, "
                "latent: {int: [8, 9], when: {n_critic: 5, loss: wasserstein}}}"},
     "search.latent.when: never active: its conditions and those of its parents leave no value of loss"),
    ({"search": "{slope: {uniform: [0, 0.5], when: {}}}"}, "search.slope.when: expected a mapping"),
    ({"search": "{slope: {uniform: [0, 0.5], when: {system: monir-dcgan}}}"}, "system is never 'monir-dcgan'"),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "expected"), BAD, ids=[expected[:60] for _, expected in BAD])
def test_each_mistake_is_named_with_key_value_and_what_is_allowed(
    sections: dict[str, str | None], expected: str
) -> None:
    assert expected in message(sweep_text(**sections))


def test_the_file_that_the_mistakes_are_made_in_is_itself_valid() -> None:
    assert sweep().systems == ("narman-cgan",)


BROKEN = [
    ("", "a sweep file is a mapping"),
    ("- a\n- b\n", "a sweep file is a mapping"),
    ("system: [\n", "small.yaml:2: not YAML"),
    ("system: a\n---\nsystem: b\n", "not YAML"),
    ("system: !!python/object:os.system x\n", "small.yaml:1: not YAML as a sweep file needs it: the tag"),
    ("system: &a narman-cgan\nname: *a\n", "small.yaml:2: not YAML as a sweep file needs it: aliases"),
    ("system: a\x00b\n", "not YAML"),
    (
        "# \u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\nb: \x07\nc: 1\nd: 2\n",
        "small.yaml:2: not YAML as a sweep file needs it: the character",
    ),
    ("system: a\udcffb\n", "the character '\\udcff' is not allowed"),
    ("rungs: !!bool often\n", "small.yaml:1: not YAML as a sweep file needs it: 'often' is no bool"),
    ("a: 1\nrungs: !!float 1__2\n", "small.yaml:2: not YAML as a sweep file needs it: '1__2' is no float"),
    ("rungs: !!int ''\n", "'' is no int"),
    ("rungs: !!seq 5\n", "a text is no seq"),
    ("rungs: !!int [5]\n", "a collection is no int"),
    ("rungs: !!timestamp 2026-99-99\n", "the tag 'tag:yaml.org,2002:timestamp' is not supported"),
    ("rungs: !!binary '%%'\n", "the tag 'tag:yaml.org,2002:binary' is not supported"),
    ("rungs: !own {a: 1}\n", "the tag '!own' is not supported"),
    ("a:\n  b: " + "[" * 60 + "]" * 60 + "\n", "small.yaml:2: not YAML as a sweep file needs it: more than 50 levels"),
    ("a: " + "{b: " * 5000 + "\n", "more than 50 levels"),
    ("budget: " + "7" * 100_000 + "\n", "a whole number of 100,000 digits; allowed are 400"),
    ("budget: 0x" + "7" * 100_000 + "\n", "a whole number of 100,002 digits"),
    ('name: "a\\0b"\n', "small.yaml:1: not YAML as a sweep file needs it: a text has a character"),
    ('name: "\\ud800"\n', "invalid Unicode character"),
    ("system: a\nname: x\nsystem: b\n", "small.yaml:3: system: duplicate key, first written at small.yaml:1"),
    (
        "search:\n  g_lr: 1\n  d_lr: 1\n  g_lr: 2\n",
        "small.yaml:4: search.g_lr: duplicate key, first written at small.yaml:2",
    ),
]


@pytest.mark.parametrize(("text", "expected"), BROKEN, ids=[repr(text[:40]) for text, _ in BROKEN])
def test_text_that_is_no_sweep_file_is_refused_with_its_line(text: str, expected: str) -> None:
    assert expected in message(text)


def test_every_mistake_of_a_file_is_told_at_once_each_on_its_own_line() -> None:
    text = message(sweep_text(budget="{trials: 0}", score="{samples: 1}", search="{g_lr: {uniform: [2, 1]}}"))
    assert [line.split(": ")[1] for line in text.splitlines()] == [
        "search.g_lr.uniform",
        "score.samples",
        "budget.trials",
    ]
