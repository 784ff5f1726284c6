from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from rosters import resolve_roster

from embedcore.errors import UsageError
from embedcore.zoo.families import FAMILIES, Family
from embedcore.zoo.own_models import OwnModel, read_own_models
from embedcore.zoo.roster import family_of_model, own_models, read_roster
from embedcore.zoo.transforms import data_config


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(text) writes ours.toml into the current folder, which contains best.pth and clip.npy."""
    monkeypatch.chdir(tmp_path)
    for name in ("best.pth", "clip.npy", "notes.txt"):
        Path(name).write_bytes(b"content")

    def write(text: str, name: str = "ours.toml") -> Path:
        Path(name).write_text(text)
        return Path(name)

    return write


WHOLE = """
[[model]]
name = "ours-v3"
arch = "resnet18.a1_in1k"
weights = "best.pth"
input_size = [192, 256]
mean = [0, 0.5, 1]
std = [1, 1, 1]
crop_pct = 0.9
crop_mode = "squash"
interpolation = "bilinear"
family = "resnet"
licence = "ours"
pretraining = "emoji"
trust = true

[[model]]
name = "vgg1[13]"

[[model]]
name = "made"
factory = "package.module:function"
family = "Our_CNNs"

[[model]]
name = "clip"
embeddings = "clip.npy"
"""


def test_every_key_is_read(write):
    names = dict(read_own_models(write(WHOLE)))
    assert list(names) == ["ours-v3", "vgg1[13]", "made", "clip"] and names["vgg1[13]"] is None
    ours = names["ours-v3"]
    assert pickle.loads(pickle.dumps(ours)) == ours and hash(ours) == hash(pickle.loads(pickle.dumps(ours)))
    config = data_config(ours)
    assert (config.input_size, config.mean, config.std) == ((3, 192, 256), (0, 0.5, 1), (1, 1, 1))
    assert (config.crop_pct, config.crop_mode, config.interpolation) == (0.9, "squash", "bilinear")
    assert (ours.licence, ours.pretraining, ours.trust, ours.source) == ("ours", "emoji", True, "own:best.pth")
    assert ours.file == Path.cwd() / "best.pth"
    assert (names["made"].source, names["clip"].source) == ("factory:package.module:function", "own:clip.npy")
    assert family_of_model("ours-v3", ours) in FAMILIES
    assert family_of_model("made", names["made"]) == Family("Our_CNNs", "Our_CNNs")
    assert family_of_model("clip", names["clip"]) == Family("own", "Own models")


def test_missing_settings_come_from_the_architecture(write):
    ours = OwnModel(name="ours", arch="resnet18.a1_in1k", weights="best.pth", crop_pct=0.5)
    tag = data_config("resnet18.a1_in1k")
    assert data_config(ours) == type(tag)(**{**vars(tag), "crop_pct": 0.5})
    plain = data_config(OwnModel(name="ours", factory="a:b"))
    assert (plain.input_size, plain.interpolation, plain.crop_pct) == ((3, 224, 224), "bicubic", 0.875)
    assert data_config(OwnModel(name="ours", factory="a:b", input_size=96)).input_size == (3, 96, 96)


def test_paths_are_relative_to_the_roster_file(write, tmp_path, monkeypatch):
    path = write(WHOLE).absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ours = own_models(path)["ours-v3"]
    assert ours.file == path.parent / "best.pth"
    assert ours.import_folders == (str(path.parent), str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert OwnModel(name="x", arch="a", weights="~/best.pth").file == tmp_path / "best.pth"


def test_a_roster_of_files_names_and_keywords(write, monkeypatch):
    write(WHOLE)
    write('[[model]]\nname = "other"\nembeddings = "clip.npy"\n', "more.toml")
    Path("names.txt").write_text("vgg16\n")
    roster = read_roster("ours.toml,vgg11,resnet50.a1_in1k, names.txt,more.toml")
    expected = ["ours-v3", "vgg11.tv_in1k", "vgg13.tv_in1k", "made", "clip", "resnet50.a1_in1k", "vgg16.tv_in1k"]
    assert list(roster) == [*expected, "other"]
    assert [name for name, own in roster.items() if own] == ["ours-v3", "made", "clip", "other"]
    assert own_models("more.toml,vgg*") == {"other": roster["other"]}
    assert own_models("vgg11,all") == {}
    assert set(resolve_roster("ours.toml,local")) > {"ours-v3", "tf_efficientnet_lite0.in1k"}


def test_families_narrow_a_roster_with_own_models(write):
    write(WHOLE)
    assert resolve_roster("ours.toml", families=["own"]) == ["clip"]
    assert resolve_roster("ours.toml", families=["our_cnns", "resnet"]) == ["ours-v3", "made"]
    with pytest.raises(UsageError, match=r"unknown family 'our_cnn'; did you mean 'our_cnns'\?"):
        resolve_roster("ours.toml", families=["our_cnn"])


def entry(**keys: object) -> str:
    lines = [
        f"{key} = {value if isinstance(value, (list, int, float)) else repr(value)}" for key, value in keys.items()
    ]
    return "\n".join(["[[model]]", *lines, ""])


GOOD = {"name": "ours", "arch": "resnet18", "weights": "best.pth"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({**GOOD, "wieghts": "x"}, "unknown key 'wieghts': did you mean 'weights'?"),
        ({**GOOD, "colour": "x"}, "unknown key 'colour': the keys are name, arch, weights"),
        ({"arch": "resnet18", "weights": "best.pth"}, "it has no name"),
        ({**GOOD, "name": "a b"}, 'name = "a b": Expected `str` matching regex '),
        ({**GOOD, "name": "-a"}, 'name = "-a": Expected `str` matching regex '),
        ({**GOOD, "name": 3}, "name = 3: Expected `str`, got `int`"),
        ({**GOOD, "name": "resnet50.a1_in1k"}, "name: reserved by a model of timm"),
        ({**GOOD, "name": "resnet50"}, "name: reserved by a model of timm"),
        (
            {**GOOD, "name": "local"},
            "name: reserved by a model of timm or a keyword of a roster: choose another one",
        ),
        ({**GOOD, "arch": 3}, "arch = 3: Expected `str`, got `int`"),
        ({**GOOD, "arch": "resnet81"}, "arch: unknown model 'resnet81'"),
        ({**GOOD, "weights": "worst.pth"}, "weights: {folder}/worst.pth does not exist"),
        ({**GOOD, "weights": "."}, "is not a file"),
        ({**GOOD, "weights": "notes.txt"}, "notes.txt: must end with .safetensors, .pth, .pt, .bin"),
        ({"name": "ours", "embeddings": "none.npy"}, "embeddings: {folder}/none.npy does not exist"),
        ({"name": "ours", "arch": "resnet18"}, "weights is missing: arch needs it"),
        ({"name": "ours", "weights": "best.pth"}, "arch is missing: weights needs it"),
        ({"name": "ours", "mean": [0, 0, 0]}, "an own model has arch and weights, or factory, or embeddings"),
        ({**GOOD, "factory": "a:b"}, "it has weights and factory: an own model has"),
        ({"name": "ours", "embeddings": "clip.npy", "mean": [0, 0, 0]}, "mean: cannot be combined with embeddings"),
        ({"name": "ours", "factory": "a.b"}, 'factory = "a.b": Expected `str` matching regex '),
        ({**GOOD, "mean": [0.5, 0.5]}, "mean = [0.5, 0.5]: Expected `array` of length 3"),
        ({**GOOD, "mean": [124, 116, 104]}, "mean = [124, 116, 104]: Expected `float` <= 1.0"),
        ({**GOOD, "std": [0, 1, 1]}, "std = [0, 1, 1]: Expected `float` > 0.0"),
        ({**GOOD, "input_size": "large"}, 'input_size = "large": Expected `int | array`, got `str`'),
        ({**GOOD, "input_size": [1, 224, 224]}, "input_size = [1, 224, 224]: expected a number of pixels"),
        ({**GOOD, "crop_pct": 90}, "crop_pct = 90: Expected `float` <= 1.0"),
        (
            {**GOOD, "crop_mode": "middle"},
            "matching regex '^(center|squash|border)$",
        ),
        (
            {**GOOD, "interpolation": "cubic"},
            "matching regex '^(nearest|bilinear|bicubic|",
        ),
        ({**GOOD, "family": "a b"}, 'family = "a b": Expected `str` matching regex '),
        ({"name": "resnet81"}, "unknown model 'resnet81'"),
    ],
    ids=lambda value: "-".join(map(str, value.values()))[:40] if isinstance(value, dict) else "",
)
def test_a_bad_entry_is_one_line_that_names_file_entry_and_key(write, keys, message):
    write(entry(name="vgg11") + entry(**keys))
    with pytest.raises(UsageError) as caught:
        read_roster("ours.toml")
    line = str(caught.value)
    assert line.startswith("ours.toml, model 2") and "\n" not in line
    assert message.format(folder=Path.cwd()) in line


def test_all_bad_entries_are_reported_at_once(write):
    write(entry(name="a", arch="resnet18") + entry(**GOOD) + entry(**GOOD, colour=1, shape=2) + entry(**GOOD))
    with pytest.raises(UsageError) as caught:
        read_own_models(Path("ours.toml"))
    first, second, third, fourth = str(caught.value).splitlines()
    assert "model 1 ('a'): weights is missing" in first
    assert "model 3 ('ours'): unknown key 'colour'" in second and "'shape'" in third
    assert fourth.endswith("model 4 ('ours'): name: already used by model 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[model]\n", "is not TOML: "),
        ("", "`model`: write [[model]] entries"),
        ('model = "a"\n', "Expected `array`, got `str`"),
        ('[model]\nname = "a"\n', "Expected `array`, got `object`"),
        ('[[models]]\nname = "a"\n', "unknown field `models`: write [[model]] entries and nothing else"),
        ("\xff", "is not TOML: "),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "ours.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        read_roster(str(path))
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml': no such file"):
        read_roster(str(tmp_path / "none.toml"))


def test_two_files_with_one_name_are_reported(write):
    write(entry(**GOOD))
    write(entry(name="ours", embeddings="clip.npy"), "more.toml")
    with pytest.raises(UsageError, match="two files have a model 'ours'"):
        read_roster("ours.toml,more.toml")
    assert resolve_roster("ours.toml,ours.toml") == ["ours"]


def test_its_state_changes_with_the_entry_and_with_the_file(write):
    write(entry(**GOOD))
    first = own_models("ours.toml")["ours"]
    before = first.state(first.content())
    assert first.state(first.content()) == before
    write(entry(**GOOD, crop_pct=0.9))
    second = own_models("ours.toml")["ours"]
    assert second.state(second.content()) != before
    Path("best.pth").write_bytes(b"trained on")
    assert first.state(first.content()) != before
    Path("best.pth").unlink()
    assert first.content() == ""


def test_the_source_of_a_factory_is_found_without_running_it(write):
    Path("package").mkdir()
    Path("package/__init__.py").write_text("raise AssertionError('was run')")
    Path("package/module.py").write_text("raise AssertionError('was run')")
    made = OwnModel(name="made", factory="package.module:function", folders=(str(Path.cwd()),))
    assert made.file == Path.cwd() / "package" / "module.py"
    before = made.content()
    Path("package/module.py").write_text("def function(): ...")
    assert before and made.content() != before
    for unknown in ("package.none:f", "nowhere:f", "sys:exit"):
        assert OwnModel(name="made", factory=unknown).file is None
