import pytest

from detailbase.command import LAST, claim_folder
from detailbase.config import Config
from refer3d.runs.errors import InputError
from tests.errors import raises


def test_runs_begun_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "20260101_000000")
    folders = []
    for _ in range(3):
        with claim_folder(Config(name="boxes"), lambda path: path.touch()) as folder:
            folders.append(folder.name)
    assert folders == ["20260101_000000", "20260101_000000_2", "20260101_000000_3"]


def test_a_run_killed_before_its_first_state_can_be_begun_again(tmp_path):
    config = Config(work_dir=str(tmp_path / "run"))

    def killed(path):
        path.write_text("a state of another start")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), claim_folder(config, killed):
        pass
    with claim_folder(config, lambda path: path.write_text("state")) as folder:
        assert (folder / LAST).read_text() == "state"
    with (
        raises(InputError, "--work_dir", tmp_path / "run", "--resume"),
        claim_folder(config, killed),
    ):
        pass
