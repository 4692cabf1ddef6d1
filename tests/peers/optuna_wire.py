"""What Optuna's own tests of a storage leave open, through `GrpcStorageProxy` and below it: claims, numbers, ids, opaque texts.

    QUINTET_TEST_OPTUNA=127.0.0.1:7700 python -m pytest tests/peers/optuna_wire.py

Needs optuna 5.0.0, grpcio and pytest, and the server's zone to be the client's. With `QUINTET_TEST_LONG_NAMES=true` the server's
database takes names of any length, as SQLite does.
"""

import json
import math
import os
import random
import threading
import uuid
from datetime import datetime, timedelta

import grpc
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import GrpcStorageProxy
from optuna.storages._grpc.auto_generated import api_pb2
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

optuna.logging.set_verbosity(optuna.logging.WARNING)
MINIMIZE = [StudyDirection.MINIMIZE]
FLOAT = FloatDistribution(0.0, 1.0)
I64 = 2**63
LONG_NAMES = os.environ.get("QUINTET_TEST_LONG_NAMES") == "true"


def connect():
    host, port = os.environ["QUINTET_TEST_OPTUNA"].rsplit(":", 1)
    proxy = GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=30)
    return proxy


@pytest.fixture
def storage():
    proxy = connect()
    yield proxy
    proxy.close()


@pytest.fixture
def study(storage):
    return storage.create_new_study(MINIMIZE, f"wire-{uuid.uuid4()}")


def together(count, work):
    """Runs `work(index, proxy)` in threads with connections of their own, and returns what each returned."""
    answers, start = [None] * count, threading.Barrier(count)

    def run(index):
        proxy = connect()
        start.wait()
        try:
            answers[index] = work(index, proxy)
        except BaseException as error:
            answers[index] = error
        finally:
            proxy.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def code(call, *arguments):
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments)
    return error.value.code()


def test_a_queued_trial_is_claimed_once(storage, study):
    queued = [storage.create_new_trial(study, create_trial(state=TrialState.WAITING)) for _ in range(60)]

    def claim(index, proxy):
        order = random.Random(index).sample(queued, len(queued))
        return [trial for trial in order if proxy.set_trial_state_values(trial, TrialState.RUNNING)]

    claimed = [trial for mine in together(8, claim) for trial in mine]
    assert sorted(claimed) == queued
    assert not storage.set_trial_state_values(queued[0], TrialState.RUNNING)
    assert storage.get_trial(queued[0]).datetime_start is not None


def test_enqueued_trials_are_run_once_each_and_in_order(storage):
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=1))
    for x in range(30):
        study.enqueue_trial({"x": x / 30}, user_attrs={"x": x})

    def work(_, proxy):
        mine = optuna.load_study(study_name=study.study_name, storage=proxy)
        seen = []
        for _ in range(5):
            trial = mine.ask()
            trial.suggest_float("x", 0, 1)
            seen.append((trial.number, trial.user_attrs.get("x"), trial.params["x"]))
            mine.tell(trial, 0.0)
        return seen

    seen = sorted(one for mine in together(6, work) for one in mine)
    assert seen == [(number, number, number / 30) for number in range(30)]


def test_numbers_are_dense_and_ids_grow_whoever_asks(storage, study):
    other = storage.create_new_study(MINIMIZE, f"wire-{uuid.uuid4()}")

    def make(index, proxy):
        return [proxy.create_new_trial((study, other)[(index + n) % 2]) for n in range(20)]

    made = together(8, make)
    for mine in made:
        assert mine == sorted(mine)
    assert len({trial for mine in made for trial in mine}) == 160
    for one in (study, other):
        trials = storage.get_all_trials(one)
        assert [trial.number for trial in trials] == list(range(80))
        assert [trial._trial_id for trial in trials] == sorted(trial._trial_id for trial in trials)


def test_ids_of_what_was_deleted_are_not_used_again(storage):
    seen, studies = set(), set()
    for _ in range(4):
        study = storage.create_new_study(MINIMIZE, "wire: made again")
        trials = [storage.create_new_trial(study) for _ in range(3)]
        assert study not in studies and not seen & set(trials)
        seen |= set(trials)
        studies.add(study)
        storage.delete_study(study)
        for call in (lambda: storage.get_trial(trials[0]), lambda: storage.get_study_name_from_id(study)):
            with pytest.raises(KeyError):
                call()
        with pytest.raises(KeyError):
            storage.set_trial_user_attr(trials[0], "k", 1)
        with pytest.raises(KeyError):
            connect().get_all_trials(study)


def test_nothing_appears_behind_a_trial_that_was_seen_finished(storage, study):
    """A client never asks again for a lower id that it has not seen."""
    done = threading.Event()

    def work(index, proxy):
        if index == 0:
            while not done.is_set():
                proxy.get_all_trials(study, deepcopy=False)
            return proxy.get_all_trials(study, deepcopy=False)
        for n in range(25):
            state = (TrialState.COMPLETE, TrialState.WAITING)[(n + index) % 2]
            value = 1.0 if state == TrialState.COMPLETE else None
            trial = proxy.create_new_trial(study, create_trial(state=state, value=value))
            if state == TrialState.WAITING:
                assert proxy.set_trial_state_values(trial, TrialState.RUNNING)
                assert proxy.set_trial_state_values(trial, TrialState.COMPLETE, [2.0])
        if index == 1:
            for _ in range(200):
                if sum(t.state.is_finished() for t in storage.get_all_trials(study, deepcopy=False)) == 125:
                    break
            done.set()
        return None

    watched = together(6, work)[0]
    fresh = storage.get_all_trials(study)
    known = {trial.number for trial in watched}
    assert known == set(range(len(known))), "the watcher has missed a trial"
    assert len(fresh) == 125 and all(trial.state == TrialState.COMPLETE for trial in fresh)


def test_existence_is_checked_first_then_the_state_then_the_distribution(storage, study):
    other = CategoricalDistribution(["a"])
    missing = 2**40
    first, ended = storage.create_new_trial(study), storage.create_new_trial(study)
    storage.set_trial_param(first, "x", 0.5, FLOAT)
    storage.set_trial_state_values(ended, TrialState.COMPLETE, [1.0])
    with pytest.raises(KeyError):
        storage.set_trial_param(missing, "x", 0, other)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_param(ended, "x", 0, other)
    with pytest.raises(ValueError):
        storage.set_trial_param(first, "x", 0, other)
    with pytest.raises(ValueError):
        storage.set_trial_param(first, "x", 0.5, FloatDistribution(0.1, 1.0, log=True))
    # What a value or a name may be comes last as well.
    one = CategoricalDistribution(["a"])
    nul = "nul \x00"
    for trial, error in ((missing, KeyError), (ended, UpdateFinishedTrialError), (first, ValueError)):
        with pytest.raises(error):
            storage.set_trial_param(trial, "new", math.nan, FLOAT)
        with pytest.raises(error):
            storage.set_trial_param(trial, "new", 0.5, one)
        with pytest.raises(error):
            storage.set_trial_param(trial, nul, 0.5, FLOAT)
        request = api_pb2.SetTrialParameterRequest(
            trial_id=trial, param_name="new", param_value_internal=5.0, distribution=distribution_to_json(one)
        )
        expected = {
            KeyError: grpc.StatusCode.NOT_FOUND,
            UpdateFinishedTrialError: grpc.StatusCode.FAILED_PRECONDITION,
            ValueError: grpc.StatusCode.INVALID_ARGUMENT,
        }[error]
        assert code(storage._stub.SetTrialParameter, request) == expected
        # Of a text that nobody can read nothing is known.
        request.distribution = "{"
        assert code(storage._stub.SetTrialParameter, request) == grpc.StatusCode.INVALID_ARGUMENT
    for write in (storage.set_trial_user_attr, storage.set_trial_system_attr):
        with pytest.raises(KeyError):
            write(missing, nul, 1)
        with pytest.raises(UpdateFinishedTrialError):
            write(ended, nul, 1)
    for write in (storage.set_study_user_attr, storage.set_study_system_attr):
        with pytest.raises(KeyError):
            write(missing, nul, 1)
    with pytest.raises(KeyError):
        storage.create_new_trial(missing, create_trial(value=1.0, user_attrs={nul: 1}))
    # Another range, and a step, are compatible.
    storage.set_trial_param(first, "x", 5.0, FloatDistribution(4.0, 6.0, step=0.5))
    for write in (
        lambda trial: storage.set_trial_state_values(trial, TrialState.RUNNING),
        lambda trial: storage.set_trial_state_values(trial, TrialState.FAIL),
        lambda trial: storage.set_trial_intermediate_value(trial, 1, 0.5),
        lambda trial: storage.set_trial_user_attr(trial, "k", 1),
        lambda trial: storage.set_trial_system_attr(trial, "k", 1),
    ):
        with pytest.raises(KeyError):
            write(missing)
        with pytest.raises(UpdateFinishedTrialError):
            write(ended)
    for read in (
        lambda: storage.get_all_trials(missing),
        lambda: storage.get_trial_id_from_study_id_trial_number(study, 99),
        lambda: storage.get_trial_id_from_study_id_trial_number(missing, 0),
        lambda: storage.create_new_trial(missing),
        lambda: storage.set_study_user_attr(missing, "k", 1),
        lambda: storage.get_study_id_from_name("wire: nobody"),
        lambda: storage.get_study_directions(missing),
        lambda: storage.delete_study(missing),
    ):
        with pytest.raises(KeyError):
            read()


ODD = [
    float("nan"),
    [float("inf"), -float("inf"), {"deep": [float("nan")]}],
    10**400,
    -(2**63) - 1,
    "lone \ud800 and \udfff, paired \U0001f600, nul \x00, quote \" and \\",
    {"ключ": "значение", "": None, "1": 1e-320},
    [[[[[]]]]],
]


def same(a, b):
    return json.dumps(a) == json.dumps(b)


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_attributes_are_opaque(storage, study, value):
    trial = storage.create_new_trial(study)
    storage.set_study_user_attr(study, "k", value)
    storage.set_study_system_attr(study, "k", value)
    storage.set_trial_user_attr(trial, "k", value)
    storage.set_trial_system_attr(trial, "k", value)
    fresh = connect()
    assert same(fresh.get_study_user_attrs(study)["k"], value)
    assert same(fresh.get_study_system_attrs(study)["k"], value)
    for frozen in (fresh.get_trial(trial), fresh.get_all_trials(study)[0]):
        assert same(frozen.user_attrs["k"], value) and same(frozen.system_attrs["k"], value)
    template = create_trial(value=1.0, user_attrs={"k": value}, system_attrs={"k": value})
    copy = storage.get_trial(storage.create_new_trial(study, template))
    assert same(copy.user_attrs["k"], value) and same(copy.system_attrs["k"], value)


def test_the_text_of_an_attribute_comes_back_to_the_byte(storage, study):
    trial = storage.create_new_trial(study)
    text = '{"b":  1.50,\n "a": [1e2, -0, 1E+05], "b": "\\u00e9é"}'
    request = api_pb2.SetTrialUserAttributeRequest(trial_id=trial, key="k", value=text)
    storage._stub.SetTrialUserAttribute(request)
    storage._stub.SetStudyUserAttribute(api_pb2.SetStudyUserAttributeRequest(study_id=study, key="k", value=text))
    found = storage._stub.GetTrial(api_pb2.GetTrialRequest(trial_id=trial)).trial
    assert found.user_attributes["k"] == text
    request = api_pb2.GetStudyUserAttributesRequest(study_id=study)
    assert storage._stub.GetStudyUserAttributes(request).user_attributes["k"] == text


def test_messages_are_larger_than_any_default(storage, study):
    big = "x" * (20 << 20)
    storage.set_study_user_attr(study, "big", big)
    trial = storage.create_new_trial(study)
    storage.set_trial_user_attr(trial, "big", big)
    storage.create_new_trial(study, create_trial(value=1.0, user_attrs={"big": big}))
    for _ in range(10):
        storage.set_trial_system_attr(storage.create_new_trial(study), "part", "x" * (1 << 20))
    fresh = connect()
    assert fresh.get_study_user_attrs(study)["big"] == big
    trials = fresh.get_all_trials(study)
    assert [trial.user_attrs.get("big") == big for trial in trials] == [True, True] + [False] * 10
    assert all(len(trial.system_attrs["part"]) == 1 << 20 for trial in trials[2:])


def test_times_are_local_and_naive_to_the_microsecond(storage, study):
    before = datetime.now()
    trial = storage.create_new_trial(study)
    storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.0])
    after = datetime.now()
    frozen = storage.get_trial(trial)
    margin = timedelta(milliseconds=1)
    assert before - margin <= frozen.datetime_start <= frozen.datetime_complete <= after + margin
    wire = storage._stub.GetTrial(api_pb2.GetTrialRequest(trial_id=trial)).trial
    for text in (wire.datetime_start, wire.datetime_complete):
        assert len(text) == len("2026-01-01 00:00:00.000000") and text[19] == "."
    for start in (datetime(1971, 3, 4, 5, 6, 7), datetime(2024, 7, 1, 12, 0, 0, 1), datetime(2099, 12, 31, 23, 59, 59, 999999)):
        end = start + timedelta(seconds=3, microseconds=10)
        template = create_trial(value=1.0)
        template.datetime_start, template.datetime_complete = start, end
        copy = connect().get_trial(storage.create_new_trial(study, template))
        assert (copy.datetime_start, copy.datetime_complete) == (start, end)
    waiting = storage.get_trial(storage.create_new_trial(study, create_trial(state=TrialState.WAITING)))
    assert waiting.datetime_start is None and waiting.datetime_complete is None


def test_templates_are_copied_whatever_their_state(storage, study):
    distributions = {
        "x": FloatDistribution(1e-3, 1e3, log=True),
        "n": IntDistribution(-(2**40), 2**40, step=1),
        "c": CategoricalDistribution([None, True, 3, 0.5, "é", math.nan, math.inf]),
    }
    params = {"x": 0.1, "n": -(2**39), "c": None}
    reports = {-I64: 1.0, -1: math.nan, 0: -math.inf, I64 - 1: math.inf}
    for state, value in (
        (TrialState.COMPLETE, -math.inf),
        (TrialState.PRUNED, 0.25),
        (TrialState.PRUNED, None),
        (TrialState.FAIL, None),
        (TrialState.RUNNING, None),
        (TrialState.WAITING, None),
    ):
        template = create_trial(
            state=state,
            value=value,
            params=params,
            distributions=distributions,
            intermediate_values=reports,
            user_attrs={"u": [1]},
            system_attrs={"s": {"a": None}},
        )
        if state == TrialState.RUNNING:
            template.datetime_start = datetime(2026, 1, 2, 3, 4, 5, 6)
        trial = storage.create_new_trial(study, template)
        for frozen in (storage.get_trial(trial), connect().get_all_trials(study)[-1]):
            assert frozen._trial_id == trial and frozen.state == state and frozen.params == params
            assert frozen.values == template.values and frozen.system_attrs == {"s": {"a": None}}
            assert repr(sorted(frozen.intermediate_values.items())) == repr(sorted(reports.items()))
            assert frozen.datetime_start == template.datetime_start
            assert frozen.datetime_complete == template.datetime_complete
            assert distribution_to_json(frozen.distributions["c"]) == distribution_to_json(distributions["c"])


def test_steps_are_any_integer_and_values_any_number(storage, study):
    trial = storage.create_new_trial(study)
    told = {-I64: 0.5, -7: math.inf, 0: math.nan, 1: 5e-324, I64 - 1: -1.7976931348623157e308}
    for step, value in told.items():
        storage.set_trial_intermediate_value(trial, step, 99.0)
        storage.set_trial_intermediate_value(trial, step, value)
    assert repr(sorted(connect().get_trial(trial).intermediate_values.items())) == repr(sorted(told.items()))
    assert code(storage.set_trial_state_values, trial, TrialState.COMPLETE, [math.nan]) == grpc.StatusCode.INVALID_ARGUMENT
    assert storage.set_trial_state_values(trial, TrialState.COMPLETE, [math.inf])
    assert connect().get_trial(trial).values == [math.inf]


def test_states_change_by_the_rules(storage, study):
    trial = storage.create_new_trial(study)
    assert not storage.set_trial_state_values(trial, TrialState.RUNNING), "it runs already"
    assert storage.set_trial_state_values(trial, TrialState.WAITING)
    assert storage.set_trial_state_values(trial, TrialState.RUNNING)
    assert not storage.set_trial_state_values(trial, TrialState.RUNNING)
    assert storage.set_trial_state_values(trial, TrialState.COMPLETE, [1.5])
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial, TrialState.RUNNING)
    # Values that are not given stay.
    partial = storage.create_new_trial(study)
    storage.set_trial_state_values(partial, TrialState.WAITING, [0.5])
    storage.set_trial_state_values(partial, TrialState.PRUNED)
    assert storage.get_trial(partial).values == [0.5]


def test_trials_are_asked_for_by_id(storage, study):
    trials = [storage.create_new_trial(study) for _ in range(5)]
    other = storage.create_new_study(MINIMIZE, f"wire-{uuid.uuid4()}")
    elsewhere = storage.create_new_trial(other)
    later = storage.create_new_trial(study)

    def asked(after, also):
        request = api_pb2.GetTrialsRequest(study_id=study, included_trial_ids=also, trial_id_greater_than=after)
        return [trial.trial_id for trial in storage._stub.GetTrials(request).trials]

    assert asked(-1, []) == [*trials, later]
    assert asked(trials[3], [trials[0], trials[0], 2**40, -5, elsewhere]) == [trials[0], trials[4], later]
    assert asked(2**62, [elsewhere]) == []
    assert asked(-I64, [trials[1]]) == [*trials, later]


NAMES = ["", " ", "a/b?c=d&e#f", "üñï 名 \U0001f600", "x" * 512, "é" * 512, "'; DROP TABLE studies; --", "line\nbreak"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_studies_are_any_text(storage, name):
    if name in {study.study_name for study in storage.get_all_studies()}:
        storage.delete_study(storage.get_study_id_from_name(name))
    study = storage.create_new_study([StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE], name)
    with pytest.raises(DuplicatedStudyError):
        storage.create_new_study(MINIMIZE, name)
    fresh = connect()
    assert fresh.get_study_id_from_name(name) == study and fresh.get_study_name_from_id(study) == name
    assert fresh.get_study_directions(study) == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    assert [s.study_name for s in fresh.get_all_studies() if s._study_id == study] == [name]
    storage.delete_study(study)


def test_what_no_column_holds_is_refused_and_leaves_nothing(storage, study):
    refused = grpc.StatusCode.INVALID_ARGUMENT
    count = len(storage.get_all_studies())
    wrong = ["nul \x00"] if LONG_NAMES else ["nul \x00", "k" * 513]
    trial = storage.create_new_trial(study)
    for key in wrong:
        assert code(storage.create_new_study, MINIMIZE, key) == refused
        assert code(storage.set_trial_user_attr, trial, key, 1) == refused
        assert code(storage.set_study_user_attr, study, key, 1) == refused
        with pytest.raises(ValueError):
            storage.set_trial_param(trial, key, 0.5, FLOAT)
        assert code(storage.create_new_trial, study, create_trial(value=1.0, user_attrs={key: 1})) == refused
    with pytest.raises(ValueError):
        storage.set_trial_param(trial, "x", math.nan, FLOAT)
    assert len(storage.get_all_studies()) == count and len(storage.get_all_trials(study)) == 1
    frozen = storage.get_trial(trial)
    assert not frozen.params and not frozen.user_attrs
    if LONG_NAMES:
        key = f"{uuid.uuid4()}" + "é" * 5000
        storage.set_trial_param(trial, key, 0.5, FLOAT)
        storage.set_trial_user_attr(trial, key, 1)
        named = storage.create_new_study(MINIMIZE, key)
        frozen = connect().get_trial(trial)
        assert frozen.params == {key: 0.5} and frozen.user_attrs == {key: 1}
        assert connect().get_study_id_from_name(key) == named


@pytest.mark.parametrize("text", ["", "{bad", "1 2", "'a'", "[1,]", "nan", "01", "1.", '"\\u+123"', "[" * 200])
def test_an_attribute_that_no_client_could_read_is_refused(storage, study, text):
    refused, stub, trial = grpc.StatusCode.INVALID_ARGUMENT, storage._stub, storage.create_new_trial(study)
    for owner, ids in (("Study", {"study_id": study}), ("Trial", {"trial_id": trial})):
        for kind in ("User", "System"):
            request = getattr(api_pb2, f"Set{owner}{kind}AttributeRequest")(**ids, key="k", value=text)
            assert code(getattr(stub, f"Set{owner}{kind}Attribute"), request) == refused
    template = api_pb2.Trial(state=api_pb2.TrialState.COMPLETE, values=[1.0], user_attributes={"k": text})
    assert code(stub.CreateNewTrial, api_pb2.CreateNewTrialRequest(study_id=study, template_trial=template)) == refused
    assert storage.get_study_user_attrs(study) == {} and len(storage.get_all_trials(study)) == 1


def test_a_whole_study_of_optuna_works(storage):
    """Pruner, callbacks, constraints, attributes, several objectives and choices that are no plain values."""
    study = optuna.create_study(
        storage=storage, directions=["minimize", "maximize"], sampler=optuna.samplers.TPESampler(seed=1, n_startup_trials=4)
    )

    def objective(trial):
        x = trial.suggest_float("x", 1e-3, 1.0, log=True)
        branch = trial.suggest_categorical("branch", ["a", "b"])
        y = trial.suggest_int("y", 0, 3) if branch == "a" else 0
        trial.set_constraint("c", x - 0.5)
        return x + y, x * 2

    study.optimize(objective, n_trials=12)
    again = optuna.load_study(study_name=study.study_name, storage=connect())
    assert [t.values for t in again.trials] == [t.values for t in study.trials]
    assert [t.number for t in again.best_trials] == [t.number for t in study.best_trials]
    pruned = optuna.create_study(storage=storage, pruner=optuna.pruners.MedianPruner(n_startup_trials=2))

    def stops(trial):
        trial.report(float(trial.number), step=1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return float(trial.number)

    pruned.optimize(stops, n_trials=6)
    assert {t.state for t in pruned.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_domains_are_as_wide_as_optuna_takes_them(storage, study):
    wide = {
        "open": (1e300, FloatDistribution(0.0, math.inf)),
        "all": (-1.0, FloatDistribution(-math.inf, math.inf)),
        "log": (2.0, FloatDistribution(1.0, math.inf, log=True)),
        "int": (float(2**63), IntDistribution(0, 2**64)),
        "huge": (7.0, IntDistribution(1, 2**200, log=True)),
        "seed": (0.0, CategoricalDistribution([2**64 - 1, 1])),
        "text": (0.0, CategoricalDistribution(["\ud800", "\udc00x"])),
        "infinite": (math.inf, FLOAT),
        "below": (-math.inf, FloatDistribution(0.0, 1.0, step=0.5)),
    }
    trial = storage.create_new_trial(study)
    for name, (value, distribution) in wide.items():
        storage.set_trial_param(trial, name, value, distribution)
    for frozen in (storage.get_trial(trial), connect().get_all_trials(study)[0]):
        for name, (value, distribution) in wide.items():
            assert distribution_to_json(frozen.distributions[name]) == distribution_to_json(distribution)
            assert frozen.params[name] == distribution.to_external_repr(value)
        assert type(frozen.params["seed"]) is int


def test_errors_are_the_promised_ones_however_much_they_are_about(storage, study):
    choices = [f"choice {index}" for index in range(2000)]
    first, second = storage.create_new_trial(study), storage.create_new_trial(study)
    storage.set_trial_param(first, "x", 0, CategoricalDistribution(choices))
    for others in (choices[:-1] + ["another"], choices[1:]):
        with pytest.raises(ValueError):
            storage.set_trial_param(second, "x", 0, CategoricalDistribution(others))
    with pytest.raises(ValueError):
        storage.set_trial_param(second, "x", math.nan, CategoricalDistribution(choices))
    for character in ("\U0001f600", "世", '"', "x"):
        name = str(uuid.uuid4()).ljust(512, character)
        storage.create_new_study(MINIMIZE, name)
        with pytest.raises(DuplicatedStudyError):
            storage.create_new_study(MINIMIZE, name)
        with pytest.raises(KeyError):
            storage.get_study_id_from_name(name[:-1])


def test_choices_that_are_equal_in_python_are_the_same(storage, study):
    for name, choices, others in [
        ("flag", [True, False], [1, 0]),
        ("n", [1, 2], [1.0, 2.0]),
        ("nan", [math.nan, None], [math.nan, None]),
    ]:
        for given in (choices, others):
            trial = storage.create_new_trial(study)
            storage.set_trial_param(trial, name, 1, CategoricalDistribution(given))
            frozen = storage.get_trial(trial).distributions[name]
            assert distribution_to_json(frozen) == distribution_to_json(CategoricalDistribution(given))
        with pytest.raises(ValueError):
            storage.set_trial_param(trial, name, 0, CategoricalDistribution([*choices, "another"]))


def test_choices_may_be_lists_as_optuna_allows_with_a_warning(storage):
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=2))
    choices = [[64, 64], [128]]
    with pytest.warns(UserWarning):
        study.optimize(lambda trial: float(len(trial.suggest_categorical("layers", choices))), n_trials=4)
    assert all(trial.params["layers"] in choices for trial in connect().get_all_trials(study._study_id))
