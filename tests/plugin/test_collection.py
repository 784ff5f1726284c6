from __future__ import annotations

from pathlib import Path

import forked
import pytest

from embedcore.zoo.families import family_of
from embedcore.zoo.tags import all_tags

ROOT = Path(__file__).parents[2]


def collected(outcome):
    return [line.partition("::")[2] for line in outcome.outlines if "::" in line]


def test_every_tag_is_a_case(run):
    outcome = run("--collect-only", "-q", roster="all")
    assert sorted(collected(outcome)) == sorted(f"test_model[{tag}]" for tag in all_tags())


def test_ctrl_c_is_not_lost_in_an_import_that_swallows_it(project):
    project.makeconftest(
        """
        import signal, sys

        class Swallows:  # as some of what torch and timm import does
            def find_spec(self, name, path, target=None):
                if name == "timm":
                    try:
                        signal.raise_signal(signal.SIGINT)
                    except BaseException:
                        pass

        sys.meta_path.insert(0, Swallows())
        """
    )
    outcome = project.runpytest_subprocess("--embed-roster=roster.txt", "--embed-weights=random", "--collect-only")
    assert outcome.ret == pytest.ExitCode.INTERRUPTED


def test_k_is_a_substring_match_on_the_tag(run):
    outcome = run("--collect-only", "-q", "-k", "vit", roster="all")
    assert sorted(collected(outcome)) == sorted(f"test_model[{tag}]" for tag in all_tags() if "vit" in tag)


def test_family_narrows_the_roster(run):
    outcome = run("--collect-only", "-q", "--embed-family=convnext", "--embed-family=vgg", roster="all")
    expected = [tag for tag in all_tags() if family_of(tag).slug in ("convnext", "vgg")]
    assert sorted(collected(outcome)) == sorted(f"test_model[{tag}]" for tag in expected)


def test_a_marker_carries_the_family(run, project):
    project.makeconftest(
        """
        def pytest_collection_modifyitems(items):
            for item in items:
                print(item.callspec.params["embed_model"], item.get_closest_marker("embed_family").kwargs)
        """
    )
    run("--collect-only", "-q", "-s").stdout.fnmatch_lines(["test_vit.r160_in1k {'slug': 'vit'}"])
    selected = run("--collect-only", "-q", "-m", "embed_family(slug='resnet')")
    assert collected(selected) == ["test_model[test_resnet.r160_in1k]"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"dataset": "nowhere"}, "*nowhere*"),
        ({"roster": "nowhere.txt"}, "*nowhere.txt*"),
        ({"extra": "--embed-family=resnett"}, "*resnett*resnet*"),
        ({"extra": "--embed-family=vgg"}, "*no model of family vgg*"),
        ({"extra": "--embed-max-classes=1"}, "*only one class is left*"),
        ({"extra": "--embed-device=cuda:77"}, "*cuda:77*"),
        ({"weights": "nowhere"}, "*nowhere*"),
        ({"extra": "--embed-report=roster.txt"}, "*roster.txt*"),
    ],
    ids=["dataset", "roster", "family", "empty family", "one class", "device", "weights", "report"],
)
def test_missing_inputs_are_one_line_and_exit_code_4(run, arguments, line):
    extra = arguments.pop("extra", None)
    outcome = run(*([extra] if extra else []), **arguments)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    errors = [text for text in outcome.errlines if text.startswith("ERROR")]
    assert len(errors) == 1, outcome.errlines
    outcome.stderr.fnmatch_lines([f"ERROR: {line}"])


def test_broken_images_end_the_run_before_any_model_all_of_them_listed(run, project):
    project.path.joinpath("images", "class0", "broken.png").write_bytes(b"not an image")
    project.path.joinpath("images", "class1", "empty.jpg").touch()
    outcome = run("--embed-isolation=none")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: 2 of 11 images *", "*broken.png*", "*empty.jpg*"])


def test_broken_images_are_skipped_on_request_with_a_note(run, project):
    project.path.joinpath("images", "class0", "broken.png").write_bytes(b"not an image")
    outcome = run("--embed-isolation=none", "--embed-bad-images=skip", "-k", "test_vit")
    outcome.assert_outcomes(passed=1)
    assert "1 images that cannot be read were skipped" in " ".join(outcome.stdout.str().split())


def test_collecting_does_not_load_the_dataset(run):
    outcome = run("--collect-only", "-q", dataset="nowhere")
    assert outcome.ret == 0


def test_the_harness_is_left_out_unless_named(tmp_path):
    def harness_cases(number, *arguments):
        output = tmp_path / str(number)
        lean = ("--collect-only", "-q", "-p", "no:cacheprovider", *arguments)
        assert forked.ended(forked.start(forked.lean_session, *lean, folder=ROOT, output=output)) == 0
        return sum("benchmarks/harness/" in line and "::" in line for line in output.read_text().splitlines())

    roster = ("--embed-roster", "local")
    assert harness_cases(1, "benchmarks", *roster) == 0
    by_marker = harness_cases(2, "benchmarks", "-m", "embed_harness", *roster)
    assert by_marker == harness_cases(3, "benchmarks/harness") > 5


def test_a_project_without_embedcore_tests_imports_neither_torch_nor_timm(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_light(request):
            assert request.config.pluginmanager.hasplugin("embedcore")
            assert not {"torch", "timm", "numpy"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_works_without_pytest_benchmark_in_other_projects(pytester):
    pytester.makepyfile("def test_nothing(): pass")
    pytester.runpytest_subprocess("-p", "no:benchmark").assert_outcomes(passed=1)
