"""What each command prints, as words and as JSON."""

import json
import subprocess
import sys

import pytest
import tiny_world as world

from mirror_analysis import __version__
from mirror_analysis.episodes import load_episodes
from mirror_analysis.models import load_model
from mirror_analysis.results import load_result

PROGRAM = [sys.executable, "-c", "from mirror_analysis.cli import main; main()"]


def test_version_and_help_from_the_shell_without_torch():
    code = (
        "import sys\nfrom mirror_analysis.cli import main\nsys.argv = ['mirror', '--help']\n"
        "try:\n    main()\nfinally:\n    assert not {'torch', 'mujoco', 'matplotlib', 'pandas'} &"
        " set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    commands = ("list", "inspect", "check", "episodes", "extract", "compare", "train", "rollout",
                "run", "report")  # fmt: skip
    for command in commands:
        assert f" {command} " in shown.stdout
    shown = subprocess.run(
        [*PROGRAM, "--version"], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert (shown.stdout, shown.stderr) == (f"{__version__}\n", "")


def test_a_fault_from_the_shell_is_one_line(tmp_path):
    words = ["episodes", str(tmp_path / "nowhere")]
    shown = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False)
    assert shown.returncode == 1 and shown.stdout == ""
    assert (
        shown.stderr == f"error: no episodes at {tmp_path}/nowhere; give a file or folder that is"
        " there, or collect some with `mirror episodes metaworld --out DIR`\n"
    )


# -- list, inspect, check -----------------------------------------------------------------------


def test_list_has_every_kind_with_a_line_each(mirror, place):
    found = json.loads(mirror("list", "--json", "--include", place / "include").out)
    kinds = ["checkpoints", "probes", "reports", "families", "measures", "sources"]
    assert list(found) == kinds
    own = next(row for row in found["checkpoints"] if row["name"] == "watcher-s0")
    assert own["summary"] == "A small model." and own["from"] == "bundled"
    public = next(row for row in found["checkpoints"] if row["name"] == "dinov2-base")
    assert public["from"] == "hub" and public["place"] == "facebook/dinov2-base"
    assert {"name": "tiny", "summary": "A small study."} in found["reports"]
    shown = mirror("list", "--include", place / "include")
    for rows in found.values():
        for row in rows:
            assert row["name"] in shown.out and row["summary"] in shown.out
    assert list(json.loads(mirror("list", "measures", "--json").out)) == ["measures"]


def test_the_measures_that_are_listed_are_there():
    from mirror_analysis.cli.listing import listing
    from mirror_analysis.information import BOUNDS
    from mirror_analysis.similarity.measures import MEASURES

    named = {row["name"] for row in listing("measures", ())["measures"]}
    assert named == {*MEASURES, *BOUNDS, "gaussian_mi", "ksg_mi", "recall_at_k"}


def test_inspect_tells_a_checkpoint_by_name_and_file(mirror, place):
    model = load_model(place / "watcher.safetensors")
    found = json.loads(mirror("inspect", place / "watcher.safetensors", "--json").out)
    assert found["name"] == "watcher" and found["role"] == "observation"
    assert found["weights sha256"] == model.weights_sha256
    assert found["parameters"] == sum(p.numel() for p in model.module.parameters())
    assert [row["layer"] for row in found["layers"]] == [info.name for info in model.layers()]
    assert "license" not in found
    named = mirror("inspect", "actor-s0", "--include", place / "include").out
    for words in (
        "camera:B, states [39]",
        "A small model.",
        "Apache-2.0",
        "accuracy: 0.25",
        "hidden3",
    ):
        assert words in named


def test_check_says_what_was_checked_and_every_fault(mirror, place, tmp_path):
    names = ["watcher-s0", "actor-s0", "tiny", "success"]
    fine = mirror("check", *names, "--include", place / "include")
    assert (fine.code, fine.out) == (0, "4 definitions checked, no faults\n")
    include = world.include(tmp_path / "include")
    file = include / "checkpoints" / "actor-s0.toml"
    file.write_text(file.read_text().replace('"conv4"', '"conv9"'))
    study = include / "reports" / "tiny.toml"
    study.write_text(study.read_text().replace('"vision"', '"visoin"'))
    bad = mirror("check", "actor-s0", "tiny", "--include", include, "--json")
    assert bad.code == 1 and bad.err == ""
    found = json.loads(bad.out)
    assert found["checked"] == 2 and len(found["faults"]) == 2
    assert "unknown layer of actor-s0 'visoin'; did you mean 'vision'" in found["faults"][0]
    assert "'conv9'" in found["faults"][1]
    # Faults of others are not told to who asks of one.
    other = mirror("check", "watcher-s0", "--include", include)
    assert (other.code, other.out) == (0, "1 definitions checked, no faults\n")


def test_check_does_not_take_one_name_for_the_end_of_another(mirror, tmp_path):
    include = world.include(tmp_path / "include", world.definition())
    longer = (include / "reports" / "tiny.toml").read_text().replace('"tiny"', '"un.tiny"')
    (include / "reports" / "un.tiny.toml").write_text(longer.replace('"vision"', '"nope"'))
    assert mirror("check", "un.tiny", "--include", include).code == 1
    assert mirror("check", "tiny", "--include", include).code == 0


# -- episodes, extract, train -------------------------------------------------------------------


def test_episodes_describes_a_folder(mirror, place):
    shown = mirror("episodes", place / "episodes", "--json")
    found = json.loads(shown.out)
    assert found["episodes"] == 32 and found["cameras"] == "A, B"
    assert found["fingerprint"] == load_episodes(str(place / "episodes")).fingerprint
    rows = {row["task"]: row for row in found["by_task"]}
    assert (rows["push"]["episodes"], rows["push"]["successes"]) == (16, 12)
    assert rows["pull"]["instructions"] == 2 and rows["pull"]["median_length"] > 20
    assert "median_length" in mirror("episodes", place / "episodes").out


def test_extract_keeps_features_and_finds_them_again(mirror, place, tmp_path):
    words = ("extract", place / "actor.safetensors", "--episodes", place / "episodes", "--store",
             tmp_path / "store", "--pooling", "last", "--json")  # fmt: skip
    first = mirror(*words)
    assert {"layer": "vision", "rows": 32, "features": 128} in json.loads(first.out)
    assert "extracting actor: 0/32" in first.err
    again = mirror(*words)
    assert again.out == first.out
    assert again.err.splitlines()[0].startswith("extracting actor: 32/32")


@pytest.mark.parametrize("role", ["observation", "execution"])
def test_train_writes_a_model_that_can_be_inspected(mirror, place, tmp_path, role):
    out = tmp_path / "runs" / "mine.safetensors"
    shown = mirror("train", role, "--episodes", place / "episodes", "--out", out, "--epochs", 1)
    assert (shown.code, shown.out) == (0, f"{out}\n"), shown.err
    assert f"training the {role} model" in shown.err
    found = json.loads(mirror("inspect", out, "--json").out)
    assert (found["role"], found["name"]) == (role, "mine")
    assert [path.name for path in out.parent.iterdir()] == ["mine.safetensors"]


# -- studies ------------------------------------------------------------------------------------


def test_run_concludes_with_findings_and_the_page(mirror, place, tmp_path, small):
    out = tmp_path / "out"
    words = ("run", "tiny", "--include", place / "include", "--out", out)
    shown = mirror(*words)
    assert shown.code == 0, shown.err
    result = load_result(out)
    assert result.study == "tiny" and shown.out.endswith(f"report: {out}/report.html\n")
    verdicts = {True: "holds", False: "does not hold", None: "cannot tell"}
    for finding in result.findings:
        assert f"[{verdicts[finding.holds]}] {finding.statement}\n" in shown.out
    assert "measuring, by part: 0/" in shown.err and "drawing the report: 1/1" in shown.err
    # A page made from this very result is not drawn again, one of another is.
    again = mirror(*words, "--json")
    assert "drawing the report" not in again.err
    found = json.loads(again.out)
    assert found["report"] == str(out / "report.html")
    assert [f["name"] for f in found["findings"]] == [f.name for f in result.findings]
    (out / ".report").write_bytes(b"\xff other")
    assert "drawing the report: 1/1" in mirror(*words).err


def test_compare_takes_files_and_names(mirror, place, tmp_path, small):
    shown = mirror("compare", place / "watcher.safetensors", "actor-s0", "--episodes",
                   place / "episodes", "--out", tmp_path / "out", "--include", place / "include",
                   "--y-layer", "vision", "--draws", 21)  # fmt: skip
    assert shown.code == 0, shown.err
    result = load_result(tmp_path / "out")
    assert result.title == "watcher and actor-s0"
    assert result.definition["models"]["y_layer"] == "vision"
    assert {s.null.draws for s in result.scores if s.null} == {21}
    assert "Recall@1" in shown.out


def test_report_takes_a_result_or_its_folder(mirror, place, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "mirror_analysis.reporting.render_report",
        lambda result, *, out: drawn.append(result) or out / "report.html",
        raising=False,
    )
    shown = mirror("report", tmp_path / "result.json", "--out", tmp_path / "page")
    assert shown.out == f"{tmp_path}/page/report.html\n" and drawn == [tmp_path / "result.json"]


# -- usage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["compare", "a"], "Missing argument"),
        (["compare", "a", "b", "--out", "o"], "Missing option '--episodes'"),
        (["run", "tiny"], "Missing option '--out'"),
        (["list", "--nope"], "No such option: --nope"),
        (["run", "tiny", "--out", "o", "--workers", "0"], "Invalid value for '--workers'"),
        (
            ["compare", "a", "b", "--episodes", "e", "--out", "o", "--draws", "5"],
            "Invalid value for '--draws'",
        ),
        (["episodes", "metaworld", "--frames", "one"], "Invalid value for '--frames'"),
    ],
)
def test_wrong_usage_exits_2(mirror, words, said):
    shown = mirror(*words)
    assert shown.code == 2 and shown.out == ""
    assert said in " ".join(shown.err.split())


def test_nothing_at_all_shows_the_help(mirror):
    shown = mirror()
    assert shown.code == 2
    assert "Usage" in shown.out + shown.err
