import copy
import logging
import pickle
import re

import pytest

import tallow as tl
from tallow import device
from tallow.cli import main
from tallow.device import CPU, as_device, default_device


def test_there_is_one_object_for_each_device():
    assert tl.Device("cpu") is CPU
    assert tl.Device("cuda", 1) is tl.Device("cuda", 1)
    assert tl.Device("cuda", 1) != tl.Device("cuda")
    assert pickle.loads(pickle.dumps(CPU)) is CPU
    assert copy.deepcopy(CPU) is CPU
    assert (tl.zeros(2, device=tl.Device("cpu")) + tl.ones(2)).tolist() == [1.0, 1.0]


def test_devices_print_as_they_are_named():
    assert [str(CPU), str(tl.Device("cuda", 2)), repr(CPU)] == ["cpu", "cuda:2", "Device('cpu')"]


@pytest.mark.parametrize(("kind", "index"), [("tpu", 0), ("cpu", 1), ("cuda:1", 0)])
def test_other_kinds_are_refused(kind, index):
    with pytest.raises(tl.DeviceError, match="no device"):
        tl.Device(kind, index)


@pytest.mark.parametrize("name", ["gpu", "cuda:-1", "cuda:x", "", "cpu:0", 3])
def test_names_that_mean_no_device(name):
    with pytest.raises(tl.DeviceError, match="no device"):
        as_device(name)


def test_none_and_cpu_mean_the_cpu():
    assert as_device(None) is as_device("cpu") is as_device(CPU) is CPU


def test_cuda_asked_for_and_absent_names_the_extra_to_install(monkeypatch):
    monkeypatch.setattr(device, "cuda_device_count", lambda: 0)
    with pytest.raises(tl.DeviceError, match=r"'cuda:1'.*pip install 'tallow\[cuda\]'"):
        as_device("cuda:1")


def test_cards_beyond_the_last_are_refused_with_their_number(monkeypatch):
    monkeypatch.setattr(device, "cuda_device_count", lambda: 2)
    with pytest.raises(tl.DeviceError, match="2 CUDA device"):
        as_device("cuda:2")


def test_auto_is_chosen_once_and_logged_with_the_reason(monkeypatch, caplog):
    monkeypatch.setattr(device, "cuda_trouble", lambda index: "no CUDA device on this machine")
    default_device.cache_clear()
    caplog.set_level(logging.INFO, "tallow")
    assert as_device("auto") is as_device("auto") is CPU
    assert [record.message for record in caplog.records] == ["device auto: cpu (no CUDA device on this machine)"]
    default_device.cache_clear()


def test_auto_takes_a_card_that_can_be_used(monkeypatch, caplog):
    monkeypatch.setattr(device, "cuda_trouble", lambda index: None)
    monkeypatch.setattr(device, "cuda_device_count", lambda: 2)
    default_device.cache_clear()
    caplog.set_level(logging.INFO, "tallow")
    assert as_device("auto") is tl.Device("cuda")
    assert "cuda:0 (2 GPU(s) found)" in caplog.text
    default_device.cache_clear()


@pytest.fixture
def card(monkeypatch):
    """A machine with one card that can be used, as far as ``cuda_trouble`` can see; gives a way to change that."""
    said = {"count": 1, "driver": (13, 0), "toolkit": (13, 0), "capability": (9, 0), "cupy": True}
    monkeypatch.setattr(device, "_forked", False)
    monkeypatch.setattr(device, "cuda_device_count", lambda: said["count"])
    monkeypatch.setattr(device, "driver_version", lambda: said["driver"])
    monkeypatch.setattr(device, "_toolkit_version", lambda: said["toolkit"])
    monkeypatch.setattr(device, "compute_capability", lambda index: said["capability"])
    find = device.importlib.util.find_spec
    monkeypatch.setattr(
        device.importlib.util, "find_spec", lambda name: said["cupy"] or None if name == "cupy" else find(name)
    )
    device._too_old.cache_clear()
    yield said
    device._too_old.cache_clear()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"count": 0}, "no CUDA device on this machine"),
        ({"cupy": False}, r"not installed: pip install 'tallow\[cuda\]'"),
        ({"driver": (12, 4)}, r"driver is for CUDA 12\.4, the installed backend needs 13\.0.*tallow\[cuda12\]"),
        ({"driver": (11, 8), "toolkit": (12, 0)}, r"driver is for CUDA 11\.8.*update the driver$"),
        ({"capability": (7, 5)}, r"compute capability 7\.5; 8\.0 .*is the least"),
    ],
)
def test_why_a_card_cannot_be_used(card, change, message):
    card.update(change)
    if message is None:
        assert as_device("cuda:0") is tl.Device("cuda")
        return
    with pytest.raises(tl.DeviceError, match=message):
        as_device("cuda")
    default_device.cache_clear()
    assert as_device("auto") is CPU
    default_device.cache_clear()


class Driver:
    """Stands in for the driver's library, at the very functions that are called."""

    def __init__(self, **said):
        self.said = {"status": 0, "count": 1, "version": 13000, "capability": (9, 0)} | said

    def cuInit(self, flags):  # noqa: N802
        return self.said["status"]

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = self.said["count"]
        return 0

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = self.said["version"]
        return 0

    def cuDeviceGetAttribute(self, value, attribute, index):  # noqa: N802
        value._obj.value = self.said["capability"][{75: 0, 76: 1}[attribute]]
        return 0


@pytest.fixture
def installed(monkeypatch):
    """Gives a way to say what driver there is: a Driver, or None. The backend is installed, for CUDA 13."""
    caches = (device._started_driver, device.cuda_device_count, device._too_old, device.default_device)

    def forget():
        for cache in caches:
            cache.cache_clear()

    def install(driver):
        def load(name):
            if driver is None:
                raise OSError(f"{name}: cannot open shared object file")
            return driver

        monkeypatch.setattr(device.ctypes, "CDLL", load)
        forget()

    monkeypatch.setattr(device, "_forked", False)
    monkeypatch.setattr(device.os, "register_at_fork", lambda **_: None)
    monkeypatch.setattr(device, "_toolkit_version", lambda: (13, 0))
    find = device.importlib.util.find_spec
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: name == "cupy" or find(name))
    yield install
    monkeypatch.undo()
    forget()


TROUBLES = {
    "no driver": ("cuda", None, r"no CUDA device on this machine \(no NVIDIA driver\).*tallow\[cuda\]"),
    "no card": ("cuda", Driver(status=100), r"\(the driver finds none\)"),
    "hidden cards": ("cuda", Driver(count=0), r"\(the driver shows none\)"),
    "broken driver": ("cuda", Driver(status=803), r"\(the driver does not start: error 803; restart the machine"),
    "old driver": ("cuda", Driver(version=12040), r"driver is for CUDA 12\.4, the installed backend needs 13\.0"),
    "old card": ("cuda", Driver(capability=(7, 5)), r"has compute capability 7\.5; 8\.0 \(Ampere, 2020\) is the least"),
    "no such card": ("cuda:7", Driver(), r"'cuda:7': this machine has 1 CUDA device\(s\), cuda:0 to cuda:0"),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_what_the_driver_says_becomes_an_error_and_a_line_of_the_command(name, installed, capsys):
    asked, driver, message = TROUBLES[name]
    installed(driver)
    with pytest.raises(tl.DeviceError, match=message):
        as_device(asked)
    assert main(["embed", "photo.jpg", "--model", "some/model", "--device", asked]) == 1
    told = capsys.readouterr().err
    assert told.startswith("tallow: error: device 'cuda")
    assert told.count("\n") == 1
    assert re.search(message, told)
    assert as_device("auto") is (CPU if asked == "cuda" else tl.Device("cuda"))


def test_a_driver_and_a_card_that_will_do(installed):
    installed(Driver(count=2, version=13010, capability=(8, 0)))
    assert as_device("cuda:1") is tl.Device("cuda", 1)
    assert device.compute_capability(0) == (8, 0)
    assert device.driver_version() == (13, 1)


def test_a_card_that_the_machine_lacks(card):
    with pytest.raises(tl.DeviceError, match=r"has 1 CUDA device\(s\), cuda:0 to cuda:0"):
        as_device("cuda:7")


def test_a_forked_process_is_told_why_it_cannot_use_the_card(card):
    device._note_fork()
    with pytest.raises(tl.DeviceError, match="forked; start such processes with multiprocessing's 'spawn'"):
        as_device("cuda")
