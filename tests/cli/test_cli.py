"""The command line: verbs, listing, and mistakes told in one line."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import zoo as package
from zoo import weights
from zoo.cli import main
from zoo.cli.main import VERBS
from zoo.models.catalogue import CATALOGUE, derive_catalogue
from zoo.models.registry import DEFAULT_MODEL, list_models

ROOT = Path(__file__).resolve().parents[2]


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "zoo", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_list_is_quick_and_loads_no_torch():
    start = time.perf_counter()
    done = shell("list")
    seconds = time.perf_counter() - start
    assert done.returncode == 0
    assert DEFAULT_MODEL in done.stdout
    assert seconds < 3  # 0.2 s on an idle laptop; CI machines are busy
    code = (
        "import sys, zoo.cli, zoo; zoo.cli.main(['list']); zoo.cli.main(['show', 'utnet-m', '--json']);"
        " heavy = {'torch', 'rawpy', 'scipy', 'PIL', 'tifffile'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_the_catalogue_is_current():
    assert CATALOGUE.read_text() == derive_catalogue(), "run: python -m zoo.models.catalogue"


def test_list_json(zoo, shipped):
    code, out, _ = zoo("list", "utnet-*", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert list(rows) == list_models("utnet-*")
    assert (rows["utnet-n"]["weights"], rows["utnet-n"]["psnr_db"]) == (["fp32"], 35.0)
    assert (rows["utnet-m"]["weights"], rows["utnet-m"]["psnr_db"]) == ([], None)


def test_list_compares_no_model_that_only_demosaics(zoo):
    rows = {row["name"]: row for row in json.loads(zoo("list", "utnet-*", "--json")[1])}
    assert rows["utnet-demosaic"]["psnr_db"] is None  # its validation holds no noise
    assert rows["utnet-n"]["psnr_db"] > 30
    assert zoo("list", "utnet-demosaic")[1].split()[-1] == "-"


def test_list_table(zoo, shipped):
    code, out, _ = zoo("list", "utnet-n")
    assert code == 0
    assert "GMAC/MP" in out
    assert "35.00" in out
    assert "utnet-m" not in out


def test_show(zoo, shipped):
    code, out, _ = zoo("show", "utnet-n")
    assert code == 0
    assert "bayer_vst_v1" in out
    assert "sha256" in out
    code, out, _ = zoo("show", "utnet-n", "--json")
    facts = json.loads(out)
    assert facts["card"]["description"] == "for tests"
    assert facts["weights"][0]["sha256"] == facts["card"]["sha256"]["utnet-n.safetensors"]
    assert zoo("show", "utnet-m", "--json")[0] == 0


def test_show_prints_the_contract_of_the_model_s_own(zoo):
    for name, words in (("pmrid", "k-Sigma transform"), ("xtrans-unet-16", "X-Trans starts at"), ("utnet-n", "detail")):
        code, out, _ = zoo("show", name)
        assert code == 0
        assert words in out
        assert json.loads(zoo("show", name, "--json")[1])["contract"] in out


def test_list_names_task_and_contract_in_one_line_each(zoo):
    code, out, _ = zoo("list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert set(list_models()) < set(lines)
    assert "ksigma_bayer_v1" in lines["pmrid"]
    assert "1,031,908" in lines["pmrid"]


def test_train_takes_the_model_from_the_command_line(zoo, tmp_path):
    (tmp_path / "c.yaml").write_text("model: utnet-n\n")
    command = ["train", "--config", tmp_path / "c.yaml", "--data", tmp_path / "none", "--output-dir", tmp_path / "run"]
    assert "passthrough has no parameters to train" in zoo(*command, "--model", "passthrough")[2]
    assert "unknown model 'utnet-q'" in zoo(*command, "--model", "utnet-q")[2]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["lst"], "unknown verb 'lst'; did you mean 'list'?"),
        ([], "VERB"),
        (["list", "utnt-*"], "no model matches"),
        (["show", "utnet-mm"], "unknown model 'utnet-mm'; did you mean 'utnet-m'?"),
        (["show"], "NAME"),
        (["list", "--jsn"], "--jsn"),
        (["denoise", "a.dng"], "-o"),
        (["denoise", "a.dng", "-o", "b.tiff", "--tile", "many"], "--tile"),
    ],
)
def test_mistakes_are_one_line(zoo, arguments, text):
    code, out, err = zoo(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert text in err


def test_debug_shows_the_traceback():
    done = shell("show", "nothing-like-it", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: unknown model")
    done = shell("show", "nothing-like-it")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["--output-dir", "out"], ["--check"], ["--update"]])
def test_a_report_of_nothing(zoo, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, out, err = zoo("report", "--evidence", "empty", *words)
    assert (code, out, err) == (
        2,
        "",
        "error: empty: holds no records; give the folder that they lie in with --evidence\n",
    )
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
    assert zoo("report", "--evidence", "missing", *words)[0] == 2


def test_a_bug_is_called_one(zoo, monkeypatch):
    monkeypatch.setattr(weights, "card", lambda name: 1 / 0)
    code, _, err = zoo("list")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "bug" in err
    assert "Traceback" in zoo("list", "--debug")[2]


def test_ctrl_c(zoo, monkeypatch):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "card", interrupt)
    assert zoo("list")[0] == 130


def test_signals_stop_the_verb_and_are_given_back(zoo, monkeypatch):
    def stop(name):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(weights, "card", stop)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        code, out, err = zoo("list")
        assert (code, out, err) == (143, "", "error: stopped by SIGTERM\n")
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as nohup does with SIGHUP
        monkeypatch.setattr(weights, "card", lambda name: stop(name) or {})
        assert zoo("list")[0] == 0
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_may_call_it(zoo):
    with ThreadPoolExecutor(1) as worker:
        assert worker.submit(main, ["list"]).result() == 0


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m zoo list --json | true", shell=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stderr == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_the_common_options(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "--json" in out
    assert "--debug" in out


@pytest.mark.parametrize(("verb", "module"), [(verb, module) for verb, (module, _) in VERBS.items()])
def test_the_line_of_help_is_the_one_that_main_holds(verb, module):
    subparsers = argparse.ArgumentParser().add_subparsers()
    importlib.import_module(module).add_parser(subparsers, "given")
    assert [(action.dest, action.help) for action in subparsers._choices_actions] == [(verb, "given")]


def test_the_public_names_exist():
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package._HOME) | {"__version__"} == set(package.__all__) == set(dir(package))
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert package.__version__ == declared
    assert importlib.import_module("zoo").denoise.__module__ == "zoo.inference.denoise"
