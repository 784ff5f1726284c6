from __future__ import annotations

import pytest

from embedcore.cli import main


@pytest.fixture
def plan(tmp_path, monkeypatch, caches, capsys):
    """Run the command in an empty folder; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def plan(*arguments):
        code = main(["plan", "--embed-cache=cache", *arguments])
        return code, *capsys.readouterr()

    return plan


@pytest.fixture
def photos(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    return "--embed-dataset=photos"


def test_a_plan_shows_downloads_and_disk_space(plan, photos, tmp_path):
    code, out, _ = plan(photos, "-k", "resnet18.a")
    assert code == 0
    assert "to fetch" in out and "for 3 images in" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80 or str(tmp_path) in out
    assert not (tmp_path / "cache").exists()


def test_without_labels_a_view_of_each_image_is_counted(plan, photos):
    code, out, _ = plan(photos, "--embed-weights=random", "--embed-roster=vgg11", "--embed-unlabelled")
    assert code == 0 and "for 6 images in" in " ".join(out.split())


def test_random_weights_are_not_fetched(plan, photos):
    code, out, _ = plan(photos, "--embed-weights=random", "--embed-roster=vgg11,vgg13")
    assert code == 0 and out.startswith("models: 2, with random weights\n") and "fetch" not in out.splitlines()[0]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_time_is_said_only_if_it_is_known(plan, photos, monkeypatch, device):
    """Also for a device that this machine lacks."""
    monkeypatch.setattr("embedcore.plugin.start.cpu_gmacs_per_s", lambda: 0.1)
    monkeypatch.setattr("embedcore.measure.forecast._LONG_GMACS", 10.0)
    code, out, _ = plan(photos, "--embed-weights=random", "--embed-roster=vgg11", f"--embed-device={device}")
    assert code == 0 and ("time: roughly" in out) == (device == "cpu")


@pytest.mark.parametrize(
    "argument", ["--embed-rounds=0", "--embed-roster=vgg1111", "--embed-dataset=nowhere", "-k=vittt"]
)
def test_a_mistake_is_one_line(plan, argument):
    code, out, error = plan("--embed-weights=random", argument)
    assert code == 4 and out == "" and error.count("\n") == 1
    assert argument.partition("=")[2] in error or "no case is selected" in error


def test_help_is_that_of_the_command(plan):
    code, out, _ = plan("-h")
    assert code == 0 and "embedcore plan [ARGUMENT ...]" in out
