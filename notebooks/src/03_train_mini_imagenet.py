# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · Train it: mini-ImageNet on a GPU, photographs anywhere
#
# **Does it train, and what does it change?**
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/ckfr-notebooks/ckfr-notebooks/blob/main/notebooks/03_train_mini_imagenet.ipynb)
#
# Notebook 02 let free points follow a tree. Now a real network has to do it, from real pictures. We train two
# classifiers that start from the same weights and see the same batches. One minimises cross-entropy alone: the
# *baseline*. The other adds the aligned triplet loss: *CKFR*. Whatever differs in the end, the loss did it.
#
# ### What you will be able to do
#
# 1. Train a baseline and its CKFR twin so that nothing but the loss differs between them.
# 2. Read a confusion matrix in tree order, and tell *how often* a model is wrong from *how badly*.
# 3. Put every trained method beside the free one, minimum-risk decisions.
# 4. Say what five seeds allow you to claim, and what they do not.
#
# ### What you need
#
# Notebooks 01 and 02. On a CPU this takes two to three minutes on two idle cores, after the photographs have been
# fetched (about 160 MB once). With a GPU *and* mini-ImageNet in `data/mini-imagenet`, the same cells fine-tune a whole
# Wide ResNet instead; plan for half an hour or more, depending on the card.

# %% [markdown]
# ## Set-up
#
# One cell: on Colab it brings the helper package; everywhere it sets the style of the figures.

# %% tags=["setup"]
# On Colab this brings the helpers, once; anywhere else `make lab` has already done so.
import importlib.util, pathlib, subprocess, sys

if "google.colab" in sys.modules and importlib.util.find_spec("ckfr_helpers") is None:
    if not pathlib.Path("/content/ckfr").exists():
        repository = "https://github.com/ckfr-notebooks/ckfr-notebooks"
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", repository, "/content/ckfr"], check=True)
    subprocess.run([sys.executable, "/content/ckfr/tools/colab.py"], check=True)
    sys.path.insert(0, "/content/ckfr")

import numpy as np
import pandas as pd
import torch

from ckfr_helpers import datasets, metrics, runtime
from ckfr_helpers.teaching import sliders
from ckfr_helpers.teaching.lesson import choose_lesson, run_lesson
from ckfr_helpers.teaching.plots import photos, study as studies, study_tables as tables, training as plots
from ckfr_helpers.teaching.plots.style import show, use_style
from ckfr_helpers.teaching.refit import RefitSetting, photo_latents, refit
from ckfr_helpers.training.results import CRM, read_results

use_style()

# %% [markdown]
# ## 1 · What there is to train on
#
# The original demo fine-tunes on mini-ImageNet: 100 classes, 600 pictures each. Few people have it lying about, and
# fine-tuning wants a GPU. So the series brings its own data set: photographs of 24 kinds of things, cut out, pasted
# into painted places. `fetch` gets them once; after that it only checks that they are whole.

# %%
lesson = choose_lesson(alpha=20)
if lesson.data == "photos":
    datasets.fetch("photos")
print("Here we train on", lesson)

# %% [markdown]
# Look before you train. Here are ten training scenes. Each comes with the exact mask of its object, which notebook
# 04 will need. The photographs in the test split appear in no training scene, and neither do the places.

# %%
scenes = datasets.open_source("photos", "train", size=224, scenes=240, background_bias=0.0)
labels = [5, 0, 9, 16, 12, 22, 20, 19, 2, 14]
tiles = [photos.Tile(scenes[label + 24 * turn][0].numpy()) for turn, label in enumerate(labels)]
names = [scenes.hierarchy.names[label] for label in labels]
for row in (slice(0, 5), slice(5, 10)):
    figure = photos.photo_grid({"": tiles[row]}, names[row], side=1.9)
    show(figure, "Training scenes: " + ", ".join(names[row]), photo=True)

# %% [markdown]
# One knob makes this more than a stand-in. At *bias 0* every kind of place is equally likely for every class. At *bias
# 0.9* nine in ten training scenes of a class stand in its usual kind of place, so a network can do well by reading
# the background. The test scenes have no such tie, at either setting. Count it:

# %%
biased = datasets.open_source("photos", "train", scenes=2400, background_bias=0.9)
usual = np.mean([biased.background_of(i) == biased.usual[biased.labels[i]] for i in range(len(biased))])
test = datasets.open_source("photos", "test", scenes=2400, background_bias=0.9)
chance = np.mean([test.background_of(i) == test.usual[test.labels[i]] for i in range(len(test))])
print(f"training scenes in their class's usual place: {usual:.0%}; test scenes: {chance:.0%}")

# %% [markdown]
# A place drawn at random is the usual one in one of nine cases. So expect 0.9 + 0.1/9 and 1/9, give or take chance:

# %%
assert abs(usual - (0.9 + 0.1 / 9)) < 0.03, "nine in ten, plus one ninth of the rest"
assert abs(chance - 1 / 9) < 0.03, "one in nine: no tie in the test split"

# %% [markdown]
# ## 2 · The recipe
#
# For a batch of $B$ pictures the network gives latents $z$ and logits. The loss is
#
# $$L = \mathrm{CE} + \alpha \cdot \operatorname{mean}_{(a,p,n)} \left| d_{ap}\,\delta_{an} - d_{an}\,\delta_{ap} \right|$$
#
# with $\delta$ the path length between classes, times 0.1 as in the demo, and ell = 1.2. The original encodes three
# pictures for every triplet. We encode each picture once and use every triplet in the batch, as notebook 02 showed.
#
# The network is EfficientNet-Lite0 with ImageNet weights. On a CPU we freeze all but its last stage, run the frozen
# part over every scene *once*, and keep what it gives. What is trained afterwards is small, so a run takes seconds.
# ImageNet holds pictures of most of our classes; a network that has never seen a lion would make other mistakes.

# %%
pairs = run_lesson(lesson)

# %% [markdown]
# Two things must hold before any comparison: both methods learned something, and both were stopped by the same rule,
# the epoch that validates best.

# %%
for pair in pairs:
    for outcome in (pair.baseline, pair.ckfr):
        first, last = (outcome.history[epoch]["train_cross_entropy"] for epoch in (0, -1))
        assert last < first, "cross-entropy did not fall"
        assert outcome.scores["top1"] > 3 / len(pair.hierarchy.classes), "hardly better than guessing"
        best = max(row["val_top1"] for row in outcome.history)
        assert outcome.history[outcome.best_epoch - 1]["val_top1"] == best, "another epoch validates better"

# %% [markdown]
# ## 3 · Curves
#
# Mind the axis of the validation panels: it spans a few hundredths, on one seed.
#
# The metric term falls while the cross-entropy falls: the two do not fight each other to a standstill. Note that the
# baseline's metric term is zero because it is not computed, not because its latents follow the tree.

# %% tags=["page"]
show(
    plots.curves(pairs),
    alt="Training curves of baseline and CKFR: cross-entropy, metric term, validation accuracy.",
)

# %% [markdown]
# ## 4 · Do the latents follow the tree?
#
# For every pair of test scenes we plot the distance between latents against the number of edges between classes. Three
# times: before any training, after the baseline, after CKFR. A network that has learned the tree shows boxes that
# climb like stairs. Before training there is hardly any slope: ImageNet weights alone do not know our tree.

# %% tags=["page"]
show(
    plots.latent_against_tree(pairs[0]),
    alt="Box plots of latent distance by tree distance, before training, for the baseline, and for CKFR.",
)

# %% [markdown]
# The same for class means, as matrices in tree order. Dark is near. The blocks along the diagonal of the first matrix
# are the branches of the tree: mammals, birds, fruit, vehicles. How much of them do you find in the other two?

# %% tags=["page"]
show(
    plots.three_matrices(pairs[0]),
    alt="Distances between classes in tree order: the tree's own, the baseline's, and CKFR's.",
)

# %% [markdown]
# The box plots' correlation is over pairs of scenes and leaves out pairs of one class: that two lions lie close
# together is what any classifier achieves. The matrices' is over class means, and this one is the score that we report
# from here on as *latent–tree correlation* (Pearson's; Spearman's, over ranks, beside it):

# %%
for pair in pairs:
    for name, outcome in (("baseline", pair.baseline), ("CKFR", pair.ckfr)):
        found = {key: round(value, 2) for key, value in outcome.scores.items() if "correlation" in key}
        print(f"{pair.condition:8} {name:8} {found}")

# %% [markdown]
# ## 5 · Where the mistakes go
#
# Sort the classes as they stand in the tree, and the confusion matrix becomes a map. Mistakes near the diagonal are
# small ones: a deer taken for an antelope. Mistakes far from it are the ones that make people laugh, or sue.

# %% tags=["page"]
show(
    plots.confusions(pairs[-1]),
    alt="Confusion matrices of baseline and CKFR with classes in tree order.",
)

# %% [markdown]
# The same as a count. The severity of a mistake is the height of the lowest common ancestor of answer and truth: 1 for
# siblings, the height of the tree for things that have nothing in common but being things.

# %%
show(plots.severities(pairs[-1]), alt="Number of mistakes by severity, baseline beside CKFR.")

# %% [markdown]
# ## 6 · The free opponent
#
# There is a way to make milder mistakes without training anything. Take the baseline's probabilities and answer not
# with the likeliest class, but with the class of smallest *expected distance* to the truth:
#
# $$\hat{y} = \arg\min_k \sum_j D_{kj}\, p_j$$
#
# This is conditional risk minimisation, CRM for short. At 40 % *saw*, 30 % *lion*, 30 % *tiger* it says *lion* or
# *tiger*. Any trained method that talks about milder mistakes has to stand beside it, so here it stands, applied to
# both networks. These are single, short runs: read them as a demonstration.

# %% tags=["page"]
plots.quick_table(pairs).style.format("{:.3f}").set_caption(
    f"This run only: one seed, {runtime.mode()} settings"
)

# %% [markdown]
# ## 7 · Alpha and ell under your fingers
#
# One alpha, one ell: what would others have done? Training the last stage takes too long for a slider. So here is the
# smallest model in which the loss can move anything at all: one matrix, which projects the latents of the *untrained*
# network from 1280 numbers to 32, and a linear classifier after it. The network runs over the scenes once, 16 training
# scenes a class and 10 to score on; every fit after that is 120 steps of Adam, and takes about half a second.
#
# The scenes to score on come from the **validation** split. Who moves a slider while looking at a score is choosing by
# it, and a split that was used for choosing is no test any more.

# %% tags=["panel"]
datasets.fetch("photos")
frozen = photo_latents(scenes=16, held_out_scenes=10)
print(
    f"{len(frozen.train)} latents to fit to, {len(frozen.held_out)} held out, {frozen.train.shape[1]} features"
)

# %% [markdown]
# First a grid, for twelve settings. A dot is the mean of a class over the held-out scenes, and colours are the large
# branches of the tree: mammals orange, birds light blue, artefacts brown, fruit and vegetables pink. Each map shows the
# plane in which its class means spread most, turned to make the maps comparable.

# %% tags=["panel"]
panel = sliders.refit_panel(frozen)
panel.show_static()

# %% [markdown]
# From left to right, the branches draw together and the correlation $r$ climbs. At least half of the way is done by a
# *small* alpha: compare 0.2 with 2. At alpha = 20 the tree is followed no better; there are a few more mistakes,
# and in two of the three rows they are milder. ($r$ is measured with ell = 1.2 everywhere, whatever the
# fit was trained with.)
#
# Do not read single points of accuracy, though: on these few held-out scenes, of still fewer photographs, a
# difference of five points can be chance. The panel has a third slider for that. *Start* changes the first weights
# and the order of the scenes, and nothing else; whatever moves with it is noise. The hollow dots are the setting before.

# %% tags=["panel"]
panel.show()

# %% [markdown]
# Things to try: alpha from 0 to 0.05, the smallest step; then *start* from 1 to 5 at each of the two. Which of the three
# scores tells the two alphas apart, whatever the start? And at alpha = 100: which animals sit on top of each other?
#
# As in notebook 02, a cell can move the slider and check the panel against the function behind it:

# %%
panel.controls["alpha"].value = 0
panel.wait()
alone = refit(frozen, RefitSetting(alpha=0, ell=1.2, seed=0))
assert f"accuracy {alone.scores['top1']:.1%} " in panel.view.numbers.splitlines()[0]
assert "alpha 2 " in panel.view.numbers.splitlines()[1], "the setting before stays as a ghost"
print(panel.view.numbers)

# %% [markdown]
# Mind what this is: one small refit on frozen latents. Where the last stage learns too, as in the sections above, there
# is more freedom, other step sizes, and another best alpha. The next section has the numbers that count.

# %% [markdown]
# ## 8 · What five seeds say
#
# One run is an anecdote. `ckfr study` repeats it over five seeds and a grid of settings: on these photos, on real CIFAR-10
# and Tiny-ImageNet (100 classes) behind the same frozen trunk, and on Tiny-ImageNet once more with a small network that starts
# from random weights, so that no ImageNet training has shown it the classes. The result files are committed.
#
# Where did alpha and ell come from? From the validation split: the ring is the smallest hierarchical distance, and the test
# split was never asked. The learning rate was chosen before, for cross-entropy alone; from scratch, for each loss.

# %%
STUDIES = ("photos_grid", "cifar10_grid", "tiny_imagenet_100", "tiny_imagenet_scratch")
results = [read_results(f"study_{name}") for name in STUDIES]
show(
    studies.choices(results[:3]),  # from scratch a single alpha was tried
    "Hierarchical distance on validation by alpha, one line an ell, one panel a data set; a ring marks the choice.",
    dpi=80,
    colours=64,
)

# %% [markdown]
# And the test scores, as differences to cross-entropy on the same seeds. The bar is the 95 % interval over seeds. A bar that
# crosses the line: the interval includes zero. In orange the rival that needs no training: cross-entropy with minimum-risk
# decisions (CRM). The correlation is taken over class means, latent distances with ell 1.2.

# %% tags=["page"]
show(
    studies.differences(results),
    "Differences of CKFR and of CRM to cross-entropy on test, with 95 percent intervals, one line a data set.",
    dpi=85,
    colours=64,
)
print(tables.by_chance(results, studies.SCORES, ("ckfr", CRM)))
tables.verdicts(results)

# %% [markdown]
# Read it fairly:
#
# - **The loss does what it is for.** Latents follow the tree better everywhere, also from random weights.
# - **Behind a frozen trunk, accuracy stays where it was**: the interval includes zero on all three data sets.
# - **On the photos mistakes get milder**: hierarchical distance falls at both ends of the bias knob, severity at bias 0.9. On
#   CIFAR-10 and Tiny-ImageNet both intervals include zero. There, too much alpha does harm: look at the lines above.
# - **Against CRM**, which needs no training, only the photos at bias 0 keep an advantage; on Tiny-ImageNet CRM is ahead.
# - **From random weights it costs accuracy.** Why? Look at every run of that study:

# %%
runs = results[3].table.query("split == 'test' and score == 'top1'")
runs.pivot_table(index=["method", "parameters"], columns="seed", values="value").style.format("{:.3f}")

# %% [markdown]
# At the rate that suits cross-entropy best, three of five CKFR networks end at 0.010: one guess in a hundred classes. Notebook 02
# warned of the shared offset, which makes all distances nearly zero and so satisfies the metric term. Here is the share of
# the latents' variance that all validation pictures have in common (`benchmarks/scratch_offset.py`):

# %%
offsets = pd.DataFrame(runtime.load_result("scratch_offset")["runs"])
offsets.pivot_table(index=["alpha", "lr"], columns="seed", values="offset_share").style.format("{:.3f}")

# %% [markdown]
# In the networks that ended at 0.010 it is everything: each picture has the same latent. The others, too, share far more than
# with cross-entropy alone. Behind a pretrained trunk no network collapsed. At the lower rate none did, but all of them
# stay a little below cross-entropy at that same rate. One alpha and two rates were tried; letting alpha grow during
# training may mend it, and nobody has shown that here.
#
# Seeds are not the only source of chance. Our test scenes show 35 photographs again and again, and an interval over seeds
# says nothing about other photographs. Resampling *photographs* would: `ckfr study` keeps the accuracy on each of them, and
# `results.over_photographs` draws the interval. The committed tables were made before it did, so they lack these rows.
#
# Each row of a table says what made it: which code, on which machine, with which versions.

# %%
for result in results:
    for machine in result.about["made_by"].values():
        print(f"{result.name}: torch {machine['torch']}, {machine['cores']} cores, GPU {machine['gpu']}")

# %% [markdown]
# CRM is not the only rival. Here are soft labels, hierarchical cross-entropy (HXE) and Proxy-Anchor too, each with its own
# parameters chosen on validation in the same way. First line of each block: cross-entropy. Below: differences to it; a
# star where the interval leaves out zero.

# %%
tables.losses(results, ("top1", "mistake_severity", "hdist@1", "hdist@5"))

# %% [markdown]
# Soft labels and, except on Tiny-ImageNet, Proxy-Anchor hardly differ from cross-entropy: validation mostly chose very sharp
# labels and the smallest weight. HXE orders the first five answers better everywhere it was tried, and makes milder mistakes on
# Tiny-ImageNet, and its interval for accuracy includes zero everywhere.
#
# One last question. CRM and CKFR do not exclude each other: one acts after training, the other during it. For the distance
# of the *first* answer compare the middle columns; for the first *five* CRM reorders the whole list by risk, and is hard to beat.

# %%
tables.four_ways(results).style.format("{:.3f}").highlight_min(axis=1, props="font-weight: bold")

# %% [markdown]
# ## 9 · Your turn
#
# Each exercise has a cell to fill in, a cell that checks it, and a folded solution. Unsolved ones do no harm.
#
# **Your turn 1 · CRM in one line.** Given probabilities `p` (N, C) and distances `D` (C, C), return the answers of
# smallest expected distance.


# %%
def minimum_risk(p: np.ndarray, D: np.ndarray) -> np.ndarray | None:
    """(N, C), (C, C) -> (N,)"""
    return None  # your code


# %% [markdown]
# Check it against the package, on this run's test probabilities:

# %%
D = pairs[0].hierarchy.distances("lca_height")
p = torch.tensor(pairs[0].baseline.test.logits).double().softmax(1).numpy()
answer = minimum_risk(p, D)
if answer is None:
    print("Exercise 1 waits for you.")
else:
    wrong = int((np.asarray(answer) != metrics.minimum_risk_labels(p, D)).sum())
    assert wrong == 0, f"{wrong} of {len(p)} answers have a larger expected distance than another class"
    print("Right: no training, one matrix product.")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def minimum_risk(p, D):
#     return (p @ D.T).argmin(axis=1)
# ```
# `D` is symmetric here, so `p @ D` does as well. Write the transpose anyway: one day a cost matrix will not be.
# </details>
#
# **Your turn 2 · A misleading number.** Mistake severity averages over mistakes only. Build two sets of answers for the
# same labels, so that the second makes *more* mistakes, none of the old ones milder, and yet has the *lower* severity.

# %%
labels = np.array([0, 0, 0, 0])
first_answers, second_answers = None, None  # two arrays of four class numbers

# %% [markdown]
# Check it:

# %%
if first_answers is None or second_answers is None:
    print("Exercise 2 waits for you.")
else:
    far = [metrics.mistake_distances(np.asarray(a), labels, D) for a in (first_answers, second_answers)]
    severity = [x[x > 0].mean() for x in far]
    assert (far[1] > 0).sum() > (far[0] > 0).sum(), "the second set of answers must make more mistakes"
    assert (far[1] >= far[0]).all(), "one of the old mistakes became milder; it must stay as it is"
    assert severity[1] < severity[0], (
        f"severity went from {severity[0]:.1f} to {severity[1]:.1f}: add milder ones"
    )
    print(f"Severity fell from {severity[0]:.1f} to {severity[1]:.1f}, and the second is worse everywhere.")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# Take one terrible mistake, then add easy ones.
#
# ```python
# near, far_off = D[0].argsort()[1], D[0].argmax()  # the closest other class, and the farthest
# first_answers = np.array([far_off, 0, 0, 0])
# second_answers = np.array([far_off, near, near, near])
# ```
# This is why the tables show accuracy and hierarchical distance@1, which counts right answers as 0, next to severity.
# </details>
#
# **Your turn 3 · Pair or not?** From the study's runs, compute the 95 % interval of the difference in test mistake
# severity on the photos at bias 0, once paired by seed and once pretending the ten runs have nothing in common.

# %%
base, ckfr = (
    results[0].values("bias 0", method, "mistake_severity").to_numpy() for method in ("cross-entropy", "ckfr")
)
paired, unpaired = None, None  # two metrics.Interval

# %% [markdown]
# Check it:

# %%
if paired is None or unpaired is None:
    print("Exercise 3 waits for you.")
else:
    assert np.isclose(paired.mean, unpaired.mean), (
        "both intervals are about one mean difference: CKFR − baseline"
    )
    assert np.isclose(paired.mean, (ckfr - base).mean()), (
        "the difference is CKFR − baseline, not the other way"
    )
    assert paired.n == 5, f"five seeds make five pairs, not {paired.n}"
    print(f"paired {paired:.2f}, unpaired {unpaired:.2f}")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# from scipy import stats
#
# paired = metrics.paired_difference(ckfr, base)
# low, high = stats.ttest_ind(ckfr, base).confidence_interval()
# unpaired = metrics.Interval(np.mean(ckfr) - np.mean(base), low, high, 5)
# ```
# Pairing helps when the seed moves both methods the same way: the same classifier initialisation, the same batches.
# Whether it did here, your two intervals say.
# </details>
#
# **Your turn 4 · Another tree distance.** Train the CKFR twin again with `measure="wu_palmer"`, through
# `ckfr train --data photos --measure wu_palmer --alpha 20 --epochs 4 --lr 1e-3 --freeze 8 --transform light --normalise`
# in a terminal, and once more with `--alpha 0`. Severity is in LCA height whatever the loss is trained with, so the scores
# of both runs can be compared with each other and with the tables above. What can they tell you, and what not?
#
# <details>
# <summary>A hint, not a solution</summary>
#
# Wu–Palmer distances lie between 0 and 1, path lengths reach two digits, and the loss grows with both. So alpha 20
# does not mean the same for both: choose alpha anew, on validation. And two runs are one pair: no interval at all.
# </details>

# %% [markdown]
# ## On a GPU, with mini-ImageNet
#
# Put the demo's folder at `data/mini-imagenet` (`train.csv`, `val.csv`, `test.csv`, `images/`) and run this notebook
# again, or train from a terminal with the original's own options:
#
# ```
# ckfr train --alpha 20 --ell 1.2 --epochs 30 --lr 1e-5
# ckfr train --alpha 0            --epochs 30 --lr 1e-5
# ```
#
# Ctrl-C saves; the same command goes on where it stopped; another alpha in the same folder is refused. Mind that
# mini-ImageNet is cut from the ImageNet training set: a network with ImageNet weights has seen every test picture.
#
# ## What this did not show
#
# - **Not the paper's numbers.** We do not know its tables, and its demo's sampling line may or may not have been in its
#   own runs (notebook 02). Nothing here confirms or refutes them.
# - **Not a whole large network.** Trunks were frozen, so the loss could only rearrange what ImageNet weights already see; the
#   one network trained from scratch was small, its pictures few, and a single alpha was tried.
# - **Not where it looks.** Milder mistakes do not prove attention to the object; that is notebook 04's question.
# - **Not every rival at its best.** One learning rate served all losses behind a frozen trunk, and the chosen weight of
#   Proxy-Anchor lies at the edge of its grid everywhere.
# - **Few photographs.** The test scenes show 35. Intervals over seeds do not cover that; the real data sets do better.
#
# ## References
#
# - Y. Zhao, H. Zhou, F. Wu, X. Wu: *Categorical Knowledge Fused Recognition*, ICVISP 2024 (arXiv 2407.20600).
# - L. Bertinetto et al.: *Making Better Mistakes*, CVPR 2020: mistake severity and hierarchical distance@k.
# - S. Karthik et al.: *No Cost Likelihood Manipulation at Test Time for Making Better Mistakes*, ICLR 2021: CRM.
# - A. Krizhevsky: *Learning Multiple Layers of Features from Tiny Images*, 2009: CIFAR-10.
# - Photographs: Tux Paint's stamps, GNU General Public License version 2.
