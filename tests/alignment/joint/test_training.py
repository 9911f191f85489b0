import copy
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scenes
import torch

from mirror_analysis.alignment.gathering import World
from mirror_analysis.alignment.joint import training as joint_module
from mirror_analysis.alignment.joint.config import JointConfig
from mirror_analysis.alignment.joint.learners import Learner, Step
from mirror_analysis.alignment.joint.reference import (
    ReferenceExecutionLearner,
    ReferenceObservationLearner,
)
from mirror_analysis.alignment.joint.state import STATE, state_file
from mirror_analysis.alignment.joint.targets import pair_labels, partners
from mirror_analysis.alignment.joint.training import one_cycle, train_jointly
from mirror_analysis.alignment.losses import info_nce
from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import (
    DefinitionError,
    DegenerateError,
    DeviceError,
    PairingError,
    ShapeError,
    StoreError,
    UnknownNameError,
)
from mirror_analysis.models.model import weights_digest
from mirror_analysis.models.reference.augmentation import Augmentation

EPISODES = tuple(f"episode {i}" for i in range(24))
LABELS = {
    "instruction": np.array([f"instruction {i % 4}" for i in range(24)]),
    "task": np.array([f"task {i % 2}" for i in range(24)]),
}
QUICK = JointConfig(epochs=4, batch=8, width=16, learning_rate=1e-2)


class Toy(Learner):
    """Regression of one number from noisy views of a hidden vector, with dropout."""

    width = 6

    def __init__(
        self, name: str, seed: int, *, episodes=EPISODES, views=None, targets=None, noise=0.1
    ):
        super().__init__()
        self.name, self.episodes, self.noise = name, episodes, noise
        g = torch.Generator().manual_seed(7)
        count = len(episodes)
        self.views = torch.randn(count, 5, generator=g) if views is None else views
        self.targets = torch.randn(count, generator=g) if targets is None else targets
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Dropout(noise))
            self.head = torch.nn.Linear(6, 1)
        self.seen: list[list[int]] = []

    @property
    def model(self):
        raise NotImplementedError

    def step(self, rows, generator):
        self.seen.append(rows.tolist())
        noisy = self.views[rows] + self.noise * torch.randn(len(rows), 5, generator=generator)
        features = self.body(noisy)
        loss = (self.head(features)[:, 0] - self.targets[rows]).square().mean()
        return Step(loss, features)

    def untrained(self, seed):
        return Toy(
            self.name, seed, episodes=self.episodes, views=self.views, targets=self.targets,
            noise=self.noise,
        )  # fmt: skip


def pair(seed: int = 0, **fields) -> tuple[Toy, Toy]:
    return Toy("observation", seed, **fields), Toy("execution", seed + 100, **fields)


def trained(config=QUICK, *, folder=None, progress=None, learners=None, labels=LABELS):
    u, e = learners or pair()
    return train_jointly(u, e, labels, config=config, folder=folder, progress=progress)


def changed(**fields) -> JointConfig:
    return msgspec.structs.replace(QUICK, **fields)


def digests(joint) -> tuple[str, str]:
    return weights_digest(joint.observation), weights_digest(joint.execution)


# -- what the weights do ----------------------------------------------------------------------


def test_the_loss_is_the_sum_the_paper_gives():
    """One update equals one by hand on L_observation + 3 L_execution + 0.7 L_align."""
    config = changed(epochs=1, batch=24, execution_weight=3.0, align_weight=0.7, pairing="task")
    u, e = pair(noise=0.0)
    by_hand = copy.deepcopy(u), copy.deepcopy(e)
    joint = trained(config, learners=(u, e))

    rows = torch.tensor(u.seen[0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x_map, y_map = torch.nn.Linear(6, 16), torch.nn.Linear(6, 16)
    steps = [
        learner.step(rows, torch.Generator().manual_seed(position))
        for learner, position in zip(by_hand, (1, 2), strict=True)
    ]
    align = info_nce(
        x_map(steps[0].representation), y_map(steps[1].representation), temperature=0.1,
        positives=torch.from_numpy(np.unique(LABELS["task"], return_inverse=True)[1])[rows],
    )  # fmt: skip
    for map_ in (x_map, y_map):
        map_.requires_grad_(False)
    parameters = [p for learner in by_hand for p in learner.parameters()]
    optimiser = torch.optim.AdamW(parameters, 1e-2 / 25, weight_decay=0.01)
    (steps[0].loss + 3.0 * steps[1].loss + 0.7 * align).backward()
    optimiser.step()
    for learner, expected in zip((joint.observation, joint.execution), by_hand, strict=True):
        for found, wanted in zip(learner.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    curve = joint.curve
    assert curve.observation == pytest.approx([steps[0].loss.item()])
    assert curve.execution == pytest.approx([steps[1].loss.item()])
    assert curve.alignment == pytest.approx([align.item()], rel=1e-5)
    assert (curve.update, curve.align_weight) == ([1], [0.7])


def test_at_weight_0_no_model_knows_of_the_other_and_all_targets_are_the_same():
    plain = trained(changed(align_weight=0.0))
    for target in ("shuffled", "untrained", "noise", "identity"):
        other = trained(changed(align_weight=0.0, target=target))
        assert digests(other)[0] == digests(plain)[0], target
        if target != "shuffled":  # there the execution model meets the episodes in another order
            assert digests(other)[1] == digests(plain)[1], target
    u, e = pair()
    e.head.weight.data += 1.0
    changed_partner = trained(changed(align_weight=0.0), learners=(u, e))
    assert digests(changed_partner)[0] == digests(plain)[0]
    assert digests(trained())[0] != digests(plain)[0]


def test_at_weight_0_the_maps_learn_to_align_what_they_may_not_change():
    config = changed(align_weight=0.0, epochs=100, learning_rate=1e-2, pairing="episode")
    u, e = pair()
    e.views = u.views @ torch.linalg.qr(torch.randn(5, 5, generator=torch.manual_seed(1)))[0]
    joint = trained(config, learners=(u, e))
    assert joint.curve.alignment[-1] < 0.5 * joint.curve.alignment[0]
    assert joint.alignment is not None
    with torch.no_grad():
        features = [learner.body(learner.views).numpy() for learner in (u, e)]
    right = joint.alignment.similarity(*features).argmax(axis=1) == np.arange(24)
    assert right.mean() > 0.5  # chance is 1 in 24


@pytest.mark.parametrize(("side", "moved"), [("observation", 0), ("execution", 1)])
def test_the_gradient_flows_to_one_side_only(side, moved):
    apart, aligned = trained(changed(align_weight=0.0)), trained(changed(gradient=side))
    same = [a == b for a, b in zip(digests(apart), digests(aligned), strict=True)]
    assert same == [position != moved for position in (0, 1)]


def test_the_align_weight_follows_its_schedule():
    curve = trained(changed(align_warmup=1.0, epochs=3)).curve
    assert curve.align_weight == pytest.approx([0.5 * d / 9 for d in (2, 5, 8)])
    early = trained(changed(align_weight=0.0, epochs=3))
    assert digests(trained(changed(align_until=0.0, epochs=3))) != digests(early)


def test_half_precision_trains_close_to_single():
    full, half = trained(), trained(changed(precision="bfloat16"))
    assert digests(full) != digests(half)
    assert half.curve.observation[-1] == pytest.approx(full.curve.observation[-1], rel=0.1)
    assert all(p.dtype == torch.float32 for p in half.observation.parameters())


def test_frozen_parts_keep_their_values():
    u, e = pair()
    before = u.body[0].weight.clone(), u.head.weight.clone()
    joint = trained(changed(frozen=("observation.body",)), learners=(u, e))
    assert torch.equal(u.body[0].weight, before[0])
    assert not torch.equal(u.head.weight, before[1])
    assert joint.curve.update[-1] == 12


# -- targets ----------------------------------------------------------------------------------


def test_every_target_pulls_on_both_models():
    apart = trained(changed(align_weight=0.0))
    found = {t: trained(changed(target=t)) for t in ("partner", "untrained", "noise", "identity")}
    for target, joint in found.items():
        assert digests(joint)[0] != digests(apart)[0], target
        assert digests(joint)[1] != digests(apart)[1], target
        assert (joint.alignment is not None) == (target == "partner")
    assert len({digests(joint) for joint in found.values()}) == 4


def test_a_shuffled_partner_sees_other_episodes_always_the_same():
    u, e = pair()
    trained(changed(target="shuffled"), learners=(u, e))
    partner: dict[int, int] = {}
    for watched, acted in zip(u.seen, e.seen, strict=True):
        for x, y in zip(watched, acted, strict=True):
            assert x != y and partner.setdefault(x, y) == y
    assert sorted(partner.values()) == list(range(24))
    assert torch.equal(partners(24, config=QUICK), torch.arange(24))
    again = partners(24, config=changed(target="shuffled", seed=1))
    assert again.tolist() != [partner[i] for i in range(24)]


def test_untrained_twins_never_change():
    seen = []
    make = Toy.untrained

    def watched(self, seed):
        twin = make(self, seed)
        seen.append((twin, weights_digest(twin)))
        return twin

    u, e = pair()
    u.untrained, e.untrained = watched.__get__(u), watched.__get__(e)
    trained(changed(target="untrained"), learners=(u, e))
    assert len(seen) == 2
    for twin, digest in seen:
        assert weights_digest(twin) == digest and not twin.training
        assert len(twin.seen) == 12


def test_noise_is_of_episodes_and_identity_of_groups():
    from mirror_analysis.alignment.joint.targets import Targets

    groups = pair_labels(LABELS, config=QUICK, episodes=24)
    noise = Targets(*pair(), groups, config=changed(target="noise")).noise
    assert len({tuple(row.tolist()) for row in noise}) == 24
    identity = Targets(*pair(), groups, config=changed(target="identity")).noise
    assert len({tuple(row.tolist()) for row in identity}) == 4
    assert torch.equal(identity[0], identity[4])


def test_pairs_are_labelled():
    assert pair_labels(LABELS, config=changed(pairing="episode"), episodes=24) is None
    found = pair_labels(LABELS, config=changed(pairing="task"), episodes=24)
    assert found.tolist() == [0, 1] * 12
    with pytest.raises(UnknownNameError, match="unknown label to pair by 'instruction'"):
        trained(labels={"task": LABELS["task"]})
    with pytest.raises(ShapeError, match=r"label 'instruction' has shape \[3\]; needed one for"):
        trained(labels={"instruction": np.array(["a", "b", "c"])})


# -- stopping and going on --------------------------------------------------------------------


class _Stop(Exception):
    pass


@pytest.mark.parametrize("target", ["partner", "untrained"])
def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path, target):
    config = changed(target=target)
    straight = trained(config)

    def stop(done, total, loss):
        if done == 8:  # in the third pass of four
            raise _Stop

    with pytest.raises(_Stop):
        trained(config, folder=tmp_path, progress=stop)
    assert (tmp_path / STATE).is_file()
    calls = []
    resumed = trained(config, folder=tmp_path, progress=lambda *told: calls.append(told))
    assert digests(resumed) == digests(straight)
    assert resumed.curve == straight.curve
    assert [done for done, _, _ in calls] == list(range(7, 13))
    over = trained(config, folder=tmp_path, progress=lambda *told: calls.append(told))
    assert digests(over) == digests(straight) and len(calls) == 6


def test_a_state_of_another_run_is_not_gone_on_with(tmp_path):
    trained(folder=tmp_path)
    for other in (changed(temperature=0.2), changed(epochs=5)):
        with pytest.raises(StoreError, match="is of a run with other settings, episodes or in"):
            trained(other, folder=tmp_path)
    with pytest.raises(StoreError, match="other settings, episodes or initial weights"):
        trained(folder=tmp_path, learners=pair(seed=5))
    from mirror_analysis.files.safetensors import write_safetensors

    write_safetensors(tmp_path / STATE, {"a": torch.zeros(1)}, {"format": "else"})
    with pytest.raises(StoreError, match="is no state of joint training; move it or train els"):
        trained(folder=tmp_path)


def test_the_same_call_gives_the_same_models_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = trained()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert digests(trained()) == digests(first)
    assert digests(trained(changed(seed=1))) != digests(first)
    assert not first.observation.training and not first.execution.training


def test_the_learning_rate_goes_up_and_down():
    shares = [one_cycle(i / 100) for i in range(101)]
    assert shares[0] == pytest.approx(1 / 25) and shares[30] == 1.0
    assert shares[100] == pytest.approx(0.0, abs=1e-9)
    assert all(np.diff(shares[:31]) > 0) and all(np.diff(shares[30:]) < 0)


# -- several processes ------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path

import torch
from torch import distributed
import test_training as test

rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=size)
for target in ("partner", "untrained"):
    joint = test.trained(
        test.changed(target=target), learners=test.pair(noise=0.0), folder=folder / target
    )
    weights = [p.detach() for x in (joint.observation, joint.execution) for p in x.parameters()]
    torch.save([weights, joint.curve.alignment], folder / f"{target}{rank}.pt")
distributed.destroy_process_group()
"""


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path):
    """Weights after twelve updates, gathered embeddings, averaged gradients and all."""
    words = [sys.executable, "-c", PROGRAM]
    here = Path(__file__).parent
    paths = [str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
    running = [
        subprocess.Popen(
            [*words, str(rank), "2", str(tmp_path)], stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    for target in ("partner", "untrained"):
        config = changed(target=target)
        alone = trained(config, learners=pair(noise=0.0))
        expected = [p for x in (alone.observation, alone.execution) for p in x.parameters()]
        for rank in range(2):
            weights, curve = torch.load(tmp_path / f"{target}{rank}.pt")
            for found, wanted in zip(weights, expected, strict=True):
                torch.testing.assert_close(found, wanted.detach(), atol=2e-5, rtol=1e-4)
            assert curve == pytest.approx(alone.curve.alignment, abs=1e-5)
            assert state_file(tmp_path / target, rank).is_file()


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch):
    monkeypatch.setattr(joint_module, "world", lambda: World(0, 3))
    with pytest.raises(DegenerateError, match="a batch of 8 episodes cannot be divided among 3"):
        trained()


# -- refusals ---------------------------------------------------------------------------------


def test_what_cannot_be_trained_is_refused():
    u, _ = pair()
    _, other = pair(episodes=EPISODES[::-1])
    with pytest.raises(PairingError, match="on 24 and 24 episodes that are not the same in the"):
        trained(learners=(u, other))
    with pytest.raises(DegenerateError, match="24 episodes are fewer than a batch of 25; lower"):
        trained(changed(batch=25))
    with pytest.raises(
        DefinitionError, match=r"frozen part 'observation\.legs' is no parameter or"
    ):
        trained(changed(frozen=("observation.legs",)))
    with pytest.raises(DefinitionError, match=r"frozen part 'observation\.bod' is no parameter"):
        trained(changed(frozen=("observation.bod",)))
    with pytest.raises(DeviceError, match="device 'cuda:99' was asked for but is not there"):
        trained(changed(device="cuda:99"))


def test_a_run_that_diverges_says_so():
    u, e = pair()
    e.targets[:] = float("nan")
    with pytest.raises(DegenerateError, match=r"not finite in update 1 of 12 .* execution nan"):
        trained(learners=(u, e))


# -- the reference pair -----------------------------------------------------------------------


def test_the_reference_pair_trains_together():
    shades = [np.full((3, 64, 64, 3), 60 + 130 * (i % 2), np.uint8) for i in range(6)]
    episodes = Episodes(
        [scenes.episode(i, frames={"A": shade, "B": shade}) for i, shade in enumerate(shades)]
    )
    still = Augmentation(gain=(1.0, 1.0), offset=(0.0, 0.0))
    u = ReferenceObservationLearner(episodes, frames=2, augmentation=still)
    e = ReferenceExecutionLearner(episodes, frames=2, augmentation=still)
    config = changed(batch=6, epochs=8, learning_rate=3e-3)
    joint = train_jointly(u, e, episodes.labels(), config=config)
    assert joint.curve.observation[-1] < joint.curve.observation[0]
    assert joint.curve.execution[-1] < joint.curve.execution[0]
    model = joint.execution.model
    assert model.role == "execution" and model.camera == "B"
    assert joint.alignment.x_weight.shape == (128, 16)
