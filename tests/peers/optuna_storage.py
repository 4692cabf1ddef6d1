"""Optuna's own tests of a storage, through the unmodified `GrpcStorageProxy`, against a server of ours.

    QUINTET_TEST_OPTUNA=127.0.0.1:7700 python -m pytest tests/peers/optuna_storage.py

The server has to be one that may be emptied: the tests count studies. Needs optuna 5.0.0, grpcio and pytest.
"""

import os

import pytest
from optuna.storages import GrpcStorageProxy
from optuna.testing.pytest_storages import StorageTestCase


@pytest.fixture
def storage():
    host, port = os.environ["QUINTET_TEST_OPTUNA"].rsplit(":", 1)
    proxy = GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=30)
    for study in proxy.get_all_studies():
        proxy.delete_study(study._study_id)
    yield proxy
    proxy.close()


class TestQuintet(StorageTestCase):
    @pytest.mark.skip(reason="a map of the wire has no order; Optuna skips this for its own proxy")
    def test_get_all_trials_params_order(self):
        pass
