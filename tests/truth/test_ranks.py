"""Under torchrun each process has its share, and only the first puts the study together."""

from dataclasses import dataclass

import pytest

from noisekit.errors import InputError, NoisekitError
from noisekit.truth.cells import run_cells, wait_for
from noisekit.truth.experiment import Experiment
from noisekit.truth.ranks import Rank
from noisekit.truth.study import Plan, run_truth_study

TINY = Experiment("quadratic", "sgd", 0.1, 4, 8, noise="gaussian", arms=("consistent", "fine"), warmup=2)


@pytest.fixture
def launched(monkeypatch):
    """Set what torchrun would."""

    def set_rank(number, size, **local):
        values = {"RANK": number, "WORLD_SIZE": size, "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": size} | local
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return set_rank


def test_shares_are_disjoint_and_complete(launched):
    items = list(range(11))
    found = []
    for number in range(3):
        launched(number, 3)
        found += Rank.here().share(items)
    assert sorted(found) == items


def test_a_process_alone_is_the_first_of_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Rank.here() == Rank()
    assert Rank().is_first


@pytest.mark.parametrize(("number", "size"), [(2, 2), ("one", 2), (0, 0)])
def test_contradictions_are_refused(launched, number, size):
    launched(number, size)
    with pytest.raises(InputError, match=r"RANK"):
        Rank.here()


def test_the_first_rank_waits_for_the_others_and_only_it_returns_the_tree(launched, tmp_path, monkeypatch):
    study = Plan([TINY])
    launched(1, 2)
    assert run_truth_study(study, tmp_path, workers=1) is None
    ready = len(list(tmp_path.glob("*.nc")))
    assert ready == 1
    launched(0, 2)
    tree = run_truth_study(study, tmp_path, workers=1)
    assert tree is not None
    assert list(tree["truth"].children) == ["quadratic_sgd_gaussian"]
    assert tree.attrs["cells_made_with"].startswith("noisekit ")
    assert ";" not in tree.attrs["cells_made_with"]


@dataclass(frozen=True)
class Coming:
    label: str
    looks: list

    def is_finished(self, folder):
        self.looks.append(folder)
        return len(self.looks) > 2


def test_waiting_ends_when_cells_come_or_never_will(tmp_path):
    late = Coming("late", [])
    wait_for([late], tmp_path, pause=0)
    assert len(late.looks) == 3

    @dataclass(frozen=True)
    class Never(Coming):
        def is_finished(self, folder):
            return False

    with pytest.raises(NoisekitError, match=r"1 cells of other ranks, such as lost.*what is finished stays"):
        wait_for([Never("lost", [])], tmp_path, patience=0.01, pause=0.001)


def test_a_full_disk_ends_the_study_at_once(tmp_path, monkeypatch):
    import errno

    tried = []

    @dataclass(frozen=True)
    class NoRoom:
        label: str
        device: str = "cpu"
        cost: float = 1.0

        def is_finished(self, folder):
            return False

        def store(self, folder):
            tried.append(self.label)
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoisekitError, match=r"is full; make room and run it again\. 0 of 3 cells"):
        run_cells([NoRoom(name) for name in "abc"], tmp_path, workers=1)
    assert len(tried) == 1


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        with pytest.raises(InputError, match=r"Cells cannot be kept in .*name a"):
            run_truth_study(Plan([TINY]), folder)


def test_a_damaged_cell_is_named(tmp_path):
    from noisekit.truth.cells import cells_of

    cell = cells_of([TINY])[0]
    with pytest.raises(NoisekitError, match="is missing"):
        cell.open(tmp_path)
    cell.path(tmp_path).write_bytes(b"not a file")
    with pytest.raises(NoisekitError, match="is damaged; delete it"):
        cell.open(tmp_path)


def test_an_insight_in_other_sizes_is_not_taken_for_this_one(tmp_path):
    from noisekit.truth.insight_cells import InsightCell
    from noisekit.truth.insights.labelled import insight_dataset
    from noisekit.truth.insights.signsgd_stationary import SIZES, asdict

    cell = InsightCell("signsgd_stationary", "quick")
    texts = {"verdict": "v", "finding": "held"}
    for settings, expected in (
        (asdict(SIZES["quick"]) | {"seed": 0}, True),
        (asdict(SIZES["full"]) | {"seed": 0}, False),
        (asdict(SIZES["quick"]) | {"seed": 1}, False),
    ):
        data = insight_dataset(cell.name, "claim", {}, {}, settings=settings, **texts)
        data.to_netcdf(cell.path(tmp_path), engine="h5netcdf")
        assert cell.is_finished(tmp_path) is expected
