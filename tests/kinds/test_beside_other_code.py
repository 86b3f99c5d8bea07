"""Explanations beside other code: threads, processes, memory, interrupts, the user's tensors."""

import copy
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
import weakref

import numpy
import pytest
import torch
from torch import multiprocessing, nn

import unilens
from unilens._engine.guard import USER_MODULE, Guard

from . import by_hand
from .by_hand import METRICS, PICTURES, SETTINGS

SEEN: queue.SimpleQueue[object] = queue.SimpleQueue()
"""What a model saw from inside; a queue, since what it appends to a list is taken back."""


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    ).eval()


def everything(model):
    """Explain with every kind of method and measure with every kind of metric."""
    for method in SETTINGS:
        by_hand.explain(model, PICTURES, method)
    for metric in METRICS:
        by_hand.evaluate(model, PICTURES, metric)
    values = by_hand.explain(model, PICTURES, "ig")
    few = unilens.PathAttribution(n_steps=2)
    found = few(model, PICTURES, 0)
    unilens.evaluate(model, PICTURES, found, "top_eigenvalue", iterations=2)
    unilens.evaluate(model, PICTURES, found, "path_curvature", n_steps=2)
    unilens.evaluate(model, PICTURES, found, "stability", method=few, steps=(1,), against=2)
    unilens.evaluate(model, PICTURES, values, "max_sensitivity", method="gradient", samples=2)
    unilens.evaluate(model, PICTURES, values, "fgsm_spearman", method="gradient", nodes=2)
    unilens.evaluate(
        model, PICTURES, values, "randomisation_cascading", method="gradient", layers=2
    )


def global_state():
    """Everything of the process that an explanation could set and other threads read."""
    sdp = torch.backends.cuda
    return {
        "default dtype": torch.get_default_dtype(),
        "interop threads": torch.get_num_interop_threads(),
        "sdp": (sdp.flash_sdp_enabled(), sdp.mem_efficient_sdp_enabled(), sdp.math_sdp_enabled()),
        "cudnn": tuple(
            getattr(torch.backends.cudnn, name)
            for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
        ),
        "mkldnn": torch.backends.mkldnn.enabled,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "anomaly": torch.is_anomaly_enabled(),
        "call": (nn.Module.__call__, nn.Module._call_impl, nn.Module.forward),
        "getattr": (nn.Module.__getattr__, nn.Module.__setattr__, nn.Module.register_module),
        "tensor": (torch.Tensor.__add__, torch.relu, nn.functional.relu, nn.functional.conv2d),
        "module hooks": tuple(
            len(getattr(nn.modules.module, name))
            for name in ("_global_forward_hooks", "_global_forward_pre_hooks")
        ),
        "filters": (id(warnings.filters), tuple(warnings.filters)),
        "showwarning": warnings.showwarning,
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "numpy generator": numpy.random.get_state()[1].tobytes(),
        "switch interval": sys.getswitchinterval(),
        "excepthook": (sys.excepthook, threading.excepthook),
    }


def per_thread_state():
    return {
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "functions": torch.overrides._get_current_function_mode_stack(),
        "dispatch": torch.utils._python_dispatch._get_current_dispatch_mode_stack(),
    }


def differences(before, after):
    return {name for name in before if before[name] != after[name]}


def test_global_state_is_untouched_during_an_explanation_seen_from_a_thread():
    model = net()
    before, seen, stop = global_state(), set(), threading.Event()
    own, rounds = [], []

    def watch():
        first = per_thread_state()
        while not stop.is_set():
            seen.update(differences(before, global_state()))
            own.append(per_thread_state() == first)
            rounds.append(1)
            time.sleep(1e-3)

    watcher = threading.Thread(target=watch)
    mine = per_thread_state()
    watcher.start()
    try:
        everything(model)
    finally:
        stop.set()
        watcher.join()
    assert not seen
    assert all(own)
    assert len(rounds) > 20
    assert per_thread_state() == mine
    assert not differences(before, global_state())


class LooksAround(nn.Module):
    """Notes what it sees of the process whenever it runs."""

    def __init__(self):
        super().__init__()
        self.net = net()
        self.eval()

    def forward(self, inputs):
        SEEN.put(global_state())
        return self.net(inputs)


def test_global_state_is_untouched_during_an_explanation_seen_from_a_forward():
    model, before = LooksAround(), global_state()
    everything(model)
    assert SEEN.qsize() > 100
    while not SEEN.empty():
        assert not differences(before, SEEN.get())


def test_new_threads_begin_as_they_would():
    """A thread that starts while an explanation runs has the process's number of threads."""
    before = torch.get_num_threads()
    seen, stop = set(), threading.Event()
    torch.set_num_threads(3)
    try:

        def start():
            while not stop.is_set():
                one = threading.Thread(target=lambda: seen.add(torch.get_num_threads()))
                one.start()
                one.join()

        starter = threading.Thread(target=start)
        starter.start()
        by_hand.explain(net(), PICTURES, "ig")
        by_hand.explain(net(), PICTURES, "rise")
        stop.set()
        starter.join()
        assert seen == {3}
        assert torch.get_num_threads() == 3
    finally:
        stop.set()
        torch.set_num_threads(before)


@pytest.fixture(params=[1, 2], ids="{} workers".format)
def workers(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def on_threads(*works):
    """Run functions beside each other, and raise what any of them raises."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


METHODS = ("ig", "uni_blur", "gradient", "deeplift", "guided_backprop", "gradcam", "occlusion")


@pytest.mark.slow
@pytest.mark.parametrize("share", ["module", "evaluator", "stateful module", "global store"])
def test_two_threads_share(share, workers):
    made = {"stateful module": Keeps, "global store": KeepsInAGlobal}.get(share, net)
    model = made()
    given = unilens.Evaluator(model) if share == "evaluator" else model
    methods = ("ig", "gradient", "occlusion") if share == "global store" else METHODS
    right = {method: by_hand.explain(made(), PICTURES, method) for method in methods}

    def work(order):
        for _ in range(2):
            for method in order:
                torch.testing.assert_close(by_hand.explain(given, PICTURES, method), right[method])

    on_threads(lambda: work(methods), lambda: work(methods[::-1]))


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.kept = net(), None
        self.net[2].register_forward_hook(lambda module, given, out: setattr(self, "kept", out))
        self.eval()

    def forward(self, inputs):
        return self.net(inputs) + self.kept.mean((1, 2, 3), keepdim=True)[:, :, 0, 0]


class Looks:
    """Notes what its owner has when it goes: what a thread could see at that moment."""

    def __init__(self, owner):
        self.owner = weakref.ref(owner)

    def __del__(self):
        SEEN.put(set(vars(self.owner())))


@pytest.mark.parametrize("name", ["kept", "added"])
def test_guard_never_empties_a_module_that_another_thread_may_read(name):
    model = Keeps()
    model.net[2].register_forward_hook(lambda *_: setattr(model, name, Looks(model)))
    before = dict(vars(model))
    del model.net[2]._forward_hooks[min(model.net[2]._forward_hooks)]
    with USER_MODULE, Guard(model):
        model.net(PICTURES)
    assert SEEN.get(timeout=1) >= set(before)
    assert vars(model) == before


KEPT = {}


class KeepsInAGlobal(Keeps):
    def __init__(self):
        super().__init__()
        self.net[2]._forward_hooks.clear()
        self.net[2].register_forward_hook(lambda module, given, out: KEPT.update(it=out))

    def forward(self, inputs):
        return self.net(inputs) + KEPT["it"].mean((1, 2, 3), keepdim=True)[:, :, 0, 0]


def test_bystanders_that_run_and_train():
    stop = threading.Event()
    torch.manual_seed(3)
    other, begin = net(), copy.deepcopy(net().state_dict())
    with torch.no_grad():
        right = other(PICTURES)

    def runs():
        with torch.no_grad():
            while not stop.is_set():
                assert torch.equal(other(PICTURES), right)

    def trained(steps):
        model = net()
        model.load_state_dict(begin)
        model.train()
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(PICTURES), torch.tensor([0, 1])).backward()
            optimiser.step()
        return model.state_dict()

    def trains():
        expected = trained_alone
        while not stop.is_set():
            for name, value in trained(5).items():
                assert torch.equal(value, expected[name]), name

    def explains():
        try:
            everything(net())
        finally:
            stop.set()

    trained_alone = trained(5)
    on_threads(runs, trains, explains)


MEMORY = """
import gc, sys
import psutil, torch, unilens
from tests.kinds import by_hand
from tests.kinds.test_beside_other_code import PICTURES, net
torch.set_num_threads(1)
process, model, sizes, counts = psutil.Process(), net(), [], []
kept = unilens.Evaluator(net())
inputs = torch.rand(2, 3, 8, 8)
values = by_hand.explain(model, inputs, "gradient")
for call in range(60):
    method = ("ig", "uni_blur", "deeplift", "occlusion")[call // 2 % 4]
    by_hand.explain(net() if call % 2 else kept, inputs, method)
    if call % 3 == 0:
        by_hand.evaluate(model, inputs, "deletion_auc")
    if call % 6 == 0:
        unilens.evaluate(
            model, inputs, values, "randomisation_independent", method="gradient", layers=1
        )
    if call >= 10 and call % 5 == 0:
        gc.collect()
        counts.append(sum(isinstance(one, torch.Tensor) for one in gc.get_objects()))
        sizes.append(process.memory_info().rss / 2**20)
assert max(counts) == min(counts[:2]), counts
print(sizes[-1] - sizes[0])
"""


@pytest.mark.slow
def test_memory_of_repeated_calls():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4  # MiB


def test_nothing_keeps_a_model_alive():
    import gc

    model = net()
    gone = weakref.ref(model[0].weight)
    gc.collect()
    gc.disable()  # no cycle: it goes with the last reference
    try:
        everything_of_a_few = ("ig", "uni_blur", "deeplift", "guided_backprop", "occlusion")
        for method in everything_of_a_few:
            by_hand.explain(model, PICTURES, method)
        del model
        assert gone() is None
    finally:
        gc.enable()


def wait_until(holds):
    for _ in range(100):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("still not so after a second")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a callback
@pytest.mark.parametrize("method", ["gradient", "uni_blur", "deeplift"])
def test_interrupt_at_any_moment(method, workers):
    model = net()
    want = by_hand.explain(model, PICTURES, method)
    state = copy.deepcopy(model.state_dict())
    threads, before, armed = threading.active_count(), global_state(), [False]

    def interrupt(*_):
        if armed[0]:  # never outside of the call
            armed[0] = False
            raise KeyboardInterrupt

    known = signal.signal(signal.SIGALRM, interrupt)
    hits, moments = 0, torch.rand(60, generator=torch.Generator().manual_seed(0)).tolist()
    began = time.perf_counter()
    by_hand.explain(model, PICTURES, method)
    lasts = time.perf_counter() - began
    try:
        for moment in moments:
            try:
                armed[0] = True
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + moment * lasts)
                by_hand.explain(model, PICTURES, method)
                armed[0] = False
            except (KeyboardInterrupt, RuntimeError) as error:  # the latter while torch's modes end
                assert isinstance(error, KeyboardInterrupt) or error.__context__  # noqa: PT017
                hits += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        armed[0] = False
        signal.signal(signal.SIGALRM, known)
    assert hits > 5
    wait_until(lambda: threading.active_count() == threads)  # each ends with its pass
    assert torch.equal(by_hand.explain(model, PICTURES, method), want)
    assert not differences(before, global_state())
    assert not torch.overrides._get_current_function_mode_stack()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


class Interrupted(nn.Module):
    """Is interrupted where a block of torch took a mode off, to put it on again at its end."""

    armed = False  # of the class, so that copies are armed too

    def __init__(self):
        super().__init__()
        self.net = net()
        self.eval()

    def forward(self, inputs):
        if self.armed and torch.overrides._get_current_function_mode_stack():
            block = torch.overrides._pop_mode_temporarily()
            block.__enter__()
            raise KeyboardInterrupt
        return self.net(inputs)


@pytest.mark.parametrize("workers", [1], indirect=True)  # interrupts reach the main thread alone
@pytest.mark.parametrize("method", ["deeplift", "guided_backprop", "balanced"])
def test_interrupt_while_torch_has_taken_a_mode_off(method, workers, monkeypatch):
    model = Interrupted()
    evaluator = unilens.Evaluator(model)
    unilens.explain(evaluator, PICTURES, method, [0, 1])
    monkeypatch.setattr(Interrupted, "armed", True)
    for of in (model, evaluator):
        with pytest.raises(KeyboardInterrupt):
            unilens.explain(of, PICTURES, method, [0, 1])
        assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("workers", [1], indirect=True)
def test_errors_while_an_earlier_interrupt_is_handled(workers):
    class Fails(nn.Module):
        def forward(self, inputs):
            raise ValueError("no such kernel")

    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(unilens.UnilensError, match="no such kernel"):
            unilens.explain(Fails().eval(), PICTURES, "gradient", [0, 1])


class Rows(torch.utils.data.Dataset):
    """Explains its rows in the workers of a loader."""

    def __init__(self, model, method):
        self.model, self.method = model, method

    def __len__(self):
        return 2

    def __getitem__(self, row):
        return by_hand.explain(self.model, PICTURES[row : row + 1], self.method)[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["module", "evaluator"])
def test_workers_of_a_loader_after_use(kind):
    model = net() if kind == "module" else unilens.Evaluator(net())
    right = by_hand.explain(model, PICTURES, "ig")
    loader = torch.utils.data.DataLoader(
        Rows(model, "ig"), batch_size=2, num_workers=2, multiprocessing_context="fork"
    )
    (found,) = loader
    torch.testing.assert_close(found, right)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_use_by_several_workers():
    code = """
import os, torch
from tests.kinds import by_hand
from tests.kinds.test_beside_other_code import PICTURES, net
torch.set_num_threads(2)
model = net()
right = by_hand.explain(model, PICTURES, "uni_blur")
child = os.fork()
if child == 0:
    torch.set_num_threads(1)  # as a loader's workers do: GNU's OpenMP hangs after a fork
    os._exit(0 if torch.equal(by_hand.explain(model, PICTURES, "uni_blur"), right) else 3)
again = by_hand.explain(model, PICTURES, "uni_blur")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert torch.equal(again, right)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def explained(evaluator, send):
    send.send(by_hand.explain(evaluator, PICTURES, "ig").numpy())


@pytest.mark.slow
def test_evaluator_goes_to_a_spawned_process():
    evaluator = unilens.Evaluator(net(), chunk=3, fold=False)
    right = by_hand.explain(evaluator, PICTURES, "ig")
    receive, send = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=explained, args=(evaluator, send))
    process.start()
    assert receive.poll(60)
    numpy.testing.assert_allclose(receive.recv(), right.numpy(), rtol=1e-5, atol=1e-7)
    process.join()
    assert process.exitcode == 0


def test_evaluator_pickles_with_its_settings():
    evaluator = unilens.Evaluator(net(), chunk=3, fold=False, outputs="logits")
    right = by_hand.explain(evaluator, PICTURES, "uni_blur")
    again = pickle.loads(pickle.dumps(evaluator))
    assert torch.equal(by_hand.explain(again, PICTURES, "uni_blur"), right)
    assert again._settings == evaluator._settings
    copied = copy.deepcopy(evaluator)
    assert torch.equal(by_hand.explain(copied, PICTURES, "uni_blur"), right)


# The user's own tensors and stores.


class Renormalises(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.table = net(), nn.Embedding(3, 3, max_norm=0.5)
        self.eval()

    def forward(self, inputs):
        rows = torch.arange(3, device=inputs.device)
        return self.net(inputs) @ self.table(rows)


class Clamps(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
        self.eval()

    def forward(self, inputs):
        self.net[4].weight.data.clamp_(-0.05, 0.05)
        return self.net(inputs)


class Counts(Clamps):
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def forward(self, inputs):
        self.calls += 1
        self.passes += 1
        return self.net(inputs)


class UpdatesStatistics(Clamps):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def forward(self, inputs):
        with torch.no_grad():
            self.mean.lerp_(inputs.mean((0, 2, 3))[:, None, None], 0.1)
            self.net[1].running_mean.mul_(0.99)
        return self.net(inputs - 0.0 * self.mean)


class Rebinds(Clamps):
    """Replaces a buffer and a parameter by new tensors."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, inputs):
        self.scale = self.scale * 1.0
        self.net[4].bias.data = self.net[4].bias.data.clone()
        return self.scale * self.net(inputs)


@pytest.mark.parametrize("kind", [Renormalises, Clamps, Counts, UpdatesStatistics, Rebinds])
def test_tensors_of_the_user_stay_bitwise(kind):
    model = kind()
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = {name: value.detach().clone() for name, value in named.items()}
    storages = {name: value.data_ptr() for name, value in named.items()}
    for method in SETTINGS:
        try:
            by_hand.explain(model, PICTURES, method)
        except unilens.UnilensError as error:
            assert "\n" not in str(error)  # noqa: PT017
        for name, value in {
            **dict(model.named_parameters()),
            **dict(model.named_buffers()),
        }.items():
            assert value is named[name], (method, name)
            assert torch.equal(value, before[name]), (method, name)
            assert value.data_ptr() == storages[name], (method, name)
    if kind is Counts:
        assert model.calls == 0
    fresh = kind()
    right = torch.cat([copy.deepcopy(fresh)(row) for row in PICTURES.split(1)]).detach()
    found = unilens.explain(kind(), PICTURES, "occlusion").outputs
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)


def test_stores_and_flags_of_the_user_stay():
    model = Keeps()
    model.log, model.train_flags = [], {"first": [1, 2]}
    model.net[0].register_forward_pre_hook(lambda module, given: model.log.append(len(given)))
    with torch.no_grad():
        model(PICTURES)
    kept, log = model.kept, list(model.log)
    values = kept.clone()
    hooks = {name: dict(part._forward_hooks) for name, part in model.named_modules()}
    flags = [value.requires_grad for value in model.parameters()]
    model.net[0].weight.grad = torch.ones_like(model.net[0].weight)
    everything(model)
    assert model.kept is kept
    assert torch.equal(kept, values)
    assert model.log == log
    assert model.train_flags == {"first": [1, 2]}
    assert hooks == {name: dict(part._forward_hooks) for name, part in model.named_modules()}
    assert flags == [value.requires_grad for value in model.parameters()]
    assert torch.equal(model.net[0].weight.grad, torch.ones_like(model.net[0].weight))
    assert all(value.grad is None for value in list(model.parameters())[1:])
    assert not isinstance(model.forward, types.FunctionType)
