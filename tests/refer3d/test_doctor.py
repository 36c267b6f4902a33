"""The page about machine and installation: everything there, and what is missing with a remedy."""

import pytest
import torch

from refer3d import doctor


def finding(topic):
    (found,) = [f for f in doctor.examine() if f.topic == topic]
    return found


def test_names_what_is_there():
    page = doctor.describe(doctor.examine())
    for word in ("refer3d", torch.__version__, "ops of refersplat", "ops of detailbase", "MiniLM",
                 "memory", "disk here", "extra cuda"):  # fmt: skip
        assert word in page


def test_ops_that_do_not_load_come_with_the_command(monkeypatch):
    monkeypatch.setattr(doctor, "backend", lambda package: "reference")
    monkeypatch.setattr(doctor, "build_failure", lambda package: "no compiler")
    found = finding("ops of refersplat")
    assert "no compiler" in found.text
    assert found.remedy == doctor.REBUILD
    assert f"-> {doctor.REBUILD}" in doctor.describe([found])


def test_missing_and_old_packages_come_with_the_command(monkeypatch):
    wanted = ["numpy>=9999", "no-such-distribution>=1.2", 'other; extra == "dev"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    found = list(doctor._requirements())
    assert [f.remedy for f in found] == ['pip install "numpy>=9999"',
                                         'pip install "no-such-distribution>=1.2"', ""]  # fmt: skip
    assert "not installed" in found[1].text


def test_little_memory_is_named(monkeypatch):
    class Memory:
        available, total = 2**30, 2**34

    monkeypatch.setattr(doctor.psutil, "virtual_memory", Memory)
    assert "1.0 of 16.0 GiB" in finding("memory").text
    assert finding("memory").remedy


def test_a_check_that_fails_is_a_line(monkeypatch):
    def _broken():
        raise RuntimeError("a library is damaged\nwith a long trace")

    monkeypatch.setattr(doctor, "CHECKS", (_broken,))
    (found,) = doctor.examine()
    assert found.text == "RuntimeError: a library is damaged"
    assert found.remedy


def test_no_home_folder_in_the_page(monkeypatch):
    monkeypatch.setattr(doctor.Path, "home", lambda: doctor.Path("/home/someone"))
    text = doctor.describe([doctor.Finding("here", "/home/someone/data")])
    assert "someone" not in text
    assert "~/data" in text


@pytest.mark.parametrize("model", ["refersplat", "detailbase"])
def test_both_commands_have_it(model, capsys):
    command = __import__(f"{model}.__main__", fromlist=["main"])
    command.main(["doctor"])
    assert "problem" in capsys.readouterr().out
