"""From a folder to the Hub and back with the real clients: one process tells the story, the tests read it."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from ccsam_hf.hub import RunRecord

HERE = Path(__file__).parent
PUBLISHED = [
    ".eval_results/animals-lt.yaml",
    ".gitattributes",
    "README.md",
    "cifar_resnet.py",
    "config.json",
    "figures/long_tail.png",
    "metrics.json",
    "model.safetensors",
    "run.json",
]
TOKEN = "hf_" + "localtesttoken" * 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def client_environment(home):
    """What `local_hub.hub_environment` says, without the variables of whoever runs the tests."""
    code = "import json, local_hub, sys; print(json.dumps(local_hub.hub_environment(*sys.argv[1:])))"
    call = [sys.executable, "-c", code, f"http://127.0.0.1:{free_port()}", home]
    done = subprocess.run(call, cwd=HERE, capture_output=True, text=True, check=True, encoding="utf-8")
    others = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return others | json.loads(done.stdout) | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("story")


@pytest.fixture(scope="module")
def story(make_folder, room):
    work = room / "work"
    work.mkdir()
    folder = make_folder(room / "model")
    call = [sys.executable, "-W", "ignore", str(HERE / "push_story.py"), str(folder), str(work)]
    done = subprocess.run(
        call, capture_output=True, text=True, timeout=300, env=client_environment(str(work / "home")), encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("FACTS")[2])


def test_created_private_with_the_allowed_files_in_one_commit(story):
    assert story["first"]["files"] == PUBLISHED
    assert story["first"]["private"] is True
    assert story["first"]["messages"] == ["initial commit", "first"]


def test_pushing_the_same_again_changes_nothing(story):
    assert story["again"] == {"id": story["first"]["id"], "uploads": 0}


def test_changes_are_pushed_and_only_own_leftovers_removed(story):
    """The stale figure goes, what somebody else added stays."""
    assert story["changed"]["files"] == sorted([*PUBLISHED, "NOTES.md", "per_class.csv"])
    assert story["changed"]["messages"] == ["by hand", "second"]
    assert story["download"] == story["changed"]["files"]


def test_three_libraries_give_the_same_logits(story, record):
    assert max(story["logits"].values()) < 1e-5, story["logits"]
    assert set(story["logits"]) == {"transformers", "timm", "ccsam_hf"}
    assert story["pipeline"] < 1e-6
    assert story["names"] == list(record.data.label_names)


def test_snippets_of_the_card_run_and_agree(story):
    """Those that name the repository, and those of a folder that was never pushed."""
    for printed in (story["snippets"], story["local snippets"]):
        assert set(printed) == {"timm", "transformers", "ccsam_hf"}
        best = printed["timm"].strip()
        assert all(f"'label': '{best}'" in printed[library][:20] for library in ("transformers", "ccsam_hf")), printed
    assert story["snippets"]["timm"].strip() == story["best label"]
    assert story["snippets"]["ccsam_hf"].count("[{") == 2, "the uniform prior's answer follows the trained one"


def test_published_card_names_the_repository(story, record):
    texts = story["texts"]
    assert RunRecord.from_json(texts["run.json"]).repo_id == "ada/animals"
    assert 'model="ada/animals"' in texts["README.md"]
    assert [result.metric_value for result in ModelCard(texts["README.md"]).data.eval_results] == [
        *record.published_metrics.values()
    ]


def test_nothing_of_the_machine_is_published(story, room):
    own = [str(room), str(Path.home() / ""), TOKEN, str(Path.cwd()), "left behind"]
    host = re.compile(rf"\b{re.escape(socket.gethostname())}\b")
    paths = re.compile(r"(?<![\w.])/(home|root|tmp|Users|work|var)/")
    for file, text in story["texts"].items():
        assert not [piece for piece in own if piece in text], file
        if not file.endswith(".safetensors"):  # whose bytes, read as text, may spell any short word
            assert not paths.search(text), file
            assert not host.search(text), file


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("server error", r"problem of its own \(status 500\)"),
        ("cut connection", "connection to the Hub failed"),
        ("cut commit", "connection to the Hub failed"),
        ("conflict", "it conflicts with what is on the Hub"),
        ("no network", "connection to the Hub failed"),
        ("no token", r"no token. Log in with `hf auth login`"),
        ("bad token", "does not accept the token"),
        ("read token", "may not write to ada/animals"),
        ("someone else's", "may not write to bob/animals"),
        ("bad name", "'ada/animals/too/long' is no repository name"),
        ("no branch", "it has no branch 'trial'. Create it with"),
        ("a dataset", "ada/dataset is a dataset there"),
        ("no model", "ada/other holds files but no model of this kind"),
        ("another model", "ada/bert holds a bert model, not a timm_wrapper one"),
    ],
)
def test_failures_say_why_and_lose_nothing(story, case, says):
    found = story[case]
    assert found["error"] == "PushError"
    assert re.search(says, found["message"]), found["message"]
    assert re.search(r"every file is still in .*\n  python -m ccsam_hf push \S+ \S+", found["message"])
    assert TOKEN not in found["message"]
    assert found["kept"]
    assert found["commits"] <= (case == "server error"), "only the repository itself may have been created"


def test_retry_command_repeats_the_options(story):
    assert story["no branch"]["message"].endswith("ada/animals --revision trial")


def test_machine_traces_are_refused_before_anything_is_created(story):
    leak = story["leak"]
    assert leak["error"] == "ValueError"
    assert "notes.md, line 2: a path of this machine" in leak["message"]
    assert "notes.md, line 3: a token or key" in leak["message"]
    assert TOKEN not in leak["message"]
    assert leak["kept"]
    assert not leak["created"]


def test_branch_pull_request_and_command_line(story):
    assert story["branch"]["main"] == "on a branch"
    assert "per_class.csv" in story["branch"]["trial"]
    assert "NOTES.md" not in story["branch"]["trial"]
    assert story["request"]["url"].endswith("/ada/animals/discussions/1")
    assert story["request"]["moved"] is False
    assert "/ada/by-command/commit/" in story["command"]["printed"]
    assert story["command"]["private"] is False
    assert story["short name"]


def test_a_folder_without_a_record_gets_a_card_that_says_so(story):
    card = story["bare"]
    assert "# bare" in card
    assert "has not been evaluated: no figures are claimed" in card
    assert "does not say how the model was trained" in card
    assert ModelCard(card).data.eval_results is None


STRANGER = """
import sys
from transformers import pipeline
try:
    pipeline("image-classification", model=sys.argv[1], device="cpu")
except (ImportError, ValueError) as error:
    print(type(error).__name__)
trusting = pipeline("image-classification", model=sys.argv[1], trust_remote_code=True, device="cpu")
print(trusting(sys.argv[2])[0]["label"])
assert not any(name.startswith("ccsam_hf") for name in sys.modules)
"""


@pytest.mark.slow
def test_remote_code_from_the_hub_without_this_package(folder, tmp_path):
    """Somebody who has transformers and timm only."""
    from PIL import Image

    Image.new("RGB", (16, 16), "red").save(tmp_path / "image.png")
    environment = client_environment(str(tmp_path / "home"))
    port = environment["HF_ENDPOINT"].rpartition(":")[2]
    serve = f"from local_hub import LocalHub; LocalHub({port}).server.serve_forever()"
    server = subprocess.Popen([sys.executable, "-c", serve], cwd=HERE)
    try:
        push = [
            sys.executable,
            "-c",
            "from ccsam_hf.hub import push_command; push_command()",
            str(folder),
            "ada/animals",
        ]
        subprocess.run(push, env=environment, check=True, capture_output=True, text=True, timeout=200, encoding="utf-8")
        call = [sys.executable, "-c", STRANGER, "ada/animals", str(tmp_path / "image.png")]
        done = subprocess.run(
            call, env=environment, capture_output=True, text=True, timeout=200, cwd=tmp_path, encoding="utf-8"
        )
    finally:
        server.terminate()
        server.wait()
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] in {"owl", "cat", "emu", "fox", "yak"}
