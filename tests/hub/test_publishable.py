"""What is published, and what is found in it before."""

import json
import zlib

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from ccsam_hf.hub import publishable_files
from ccsam_hf.hub.publishable import MachineStrings, has_path, machine_traces

MACHINE = MachineStrings(folders=("/nowhere/ada",), names=("adalovelace", "enigma7"), secrets=("correct horse",))


def test_allow_list(folder):
    (folder / "figures" / "groups.json").write_text("{}", encoding="utf-8")
    for name in ("pytorch_model.bin", "scaler.pt", "optimizer.safetensors", "runs/a.json", "_tmp/a.json", "log.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    assert publishable_files(folder) == [
        ".eval_results/animals-lt.yaml",
        "README.md",
        "cifar_resnet.py",
        "config.json",
        "figures/groups.json",
        "figures/long_tail.png",
        "metrics.json",
        "model.safetensors",
        "run.json",
    ]


@pytest.mark.parametrize(
    "text",
    [
        '"data_dir": "/home/ada/data"',
        "--data_dir=/mnt/disk1/x",
        "PATH:/opt/env/bin",
        "file:///data/x",
        r'"C:\\Users\\ada"',
        "see /srv/runs",
        "/tmp/abc",
    ],
)
def test_paths_are_found(text):
    assert has_path(text)


@pytest.mark.parametrize(
    "text",
    [
        "figures/long_tail.png",
        "https://example.org/home/data/x",
        "/a/abbey",
        "many/medium/few",
        "and/or",
        "#!/usr/bin/env python",
        "../data/x",
        "~/data/x",
        "uoft-cs/cifar10",
    ],
)
def test_ordinary_text_is_not_a_path(text):
    assert not has_path(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("made by adalovelace.", "the name of this machine or its user"),
        ("on ENIGMA7 or enigma7:", "the name of this machine or its user"),
        ("adalovelacex", None),
        ("in /nowhere/ada/x", "a path of this machine"),
        ("/nowhere/adam", None),
        ("key correct horse battery", "a token or key"),
        ("hf_" + "aB3" * 10, "a token or key"),
        ("ghp_" + "a" * 36, "a token or key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a token or key"),
        ("hf_hub_download", None),
        ("0123456789abcdef0123456789abcdef01234567", None),
    ],
)
def test_kinds(text, kind):
    assert MACHINE.kind_in(text) == kind


def test_every_kind_of_file_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{\n"x": 1,\n"by": "adalovelace"\n}', encoding="utf-8")
    comment = PngInfo()
    comment.add_text("Software", "adalovelace's", zip=True)
    comment.add_itxt("Place", "enigma7", zip=True)
    Image.new("L", (1, 1)).save(tmp_path / "b.png", pnginfo=comment)
    save_file({"w": torch.ones(1)}, tmp_path / "c.safetensors", {"trained_in": "/home/ada/runs"})
    (tmp_path / "d.md").write_bytes("caf\xe9 enigma7".encode("latin-1"))
    found = machine_traces(tmp_path, ["a.json", "b.png", "c.safetensors", "d.md"], MACHINE)
    assert [str(trace).partition(": ")[0] for trace in found] == [
        "a.json, line 3",
        "b.png, comment",
        "b.png, comment",
        "c.safetensors, header 'trained_in'",
        "d.md, line 1",
    ]


def test_damaged_png_does_not_stop_the_search(tmp_path):
    text = b"x\0\0" + zlib.compress(b"adalovelace")[:-6]
    chunk = len(text).to_bytes(4) + b"zTXt" + text + b"0000"
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0")
    assert machine_traces(tmp_path, ["a.png"], MACHINE) == []


def test_strings_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    monkeypatch.setattr("socket.gethostname", lambda: "enigma7.example.org")
    monkeypatch.setenv("WANDB_API_KEY", "w" * 40)
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    found = MachineStrings.of_this_machine(tmp_path, "the token", public_words={"owl"})
    assert found.names == ("ada", "enigma7", "enigma7.example.org")
    assert {"w" * 40, "the token"} <= set(found.secrets)
    assert "abc" not in found.secrets
    assert str(tmp_path) in found.folders
    # A name that the repository bears, or that is a class, is public anyway; "root" says nothing.
    assert MachineStrings.of_this_machine(tmp_path, None, public_words={"ada"}).names == found.names[1:]
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    assert "root" not in MachineStrings.of_this_machine(tmp_path, None).names


def test_no_account_name(tmp_path, monkeypatch):
    def fails():
        raise OSError("no such user")

    monkeypatch.setattr("getpass.getuser", fails)
    assert json.dumps(MachineStrings.of_this_machine(tmp_path, None).names)
