"""Downloads from a server on this machine that answers as the hub does: same client, same requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from cotrain.config import RunConfig
from cotrain.errors import ConfigError, NotAuthorizedError, NotFoundError, UnreachableError
from cotrain.train.data.hub import MARKER, download_dataset, is_wanted
from cotrain.train.data.prepare import prepare_dataset
from cotrain.train.data.samples import SampleFile

CARD = b"---\nlicense: cc-by-4.0\n---\n# Rows\n"
ROWS = "".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(50)).encode()
Revisions = dict[str, dict[str, bytes]]


class Hub(ThreadingHTTPServer):
    """Serves one dataset, `org/rows`, in revisions of files."""

    def __init__(self, revisions: Revisions):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.revisions = {name: (hashlib.sha1(name.encode()).hexdigest(), files) for name, files in revisions.items()}
        self.requests: list[str] = []
        self.refused: dict[str, int] = {}
        """HTTP status for requests of a path that ends so."""
        self.error_code = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *arguments: object) -> None:
        return None

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0].replace("%2F", "/")
        self.server.requests.append(f"{self.command} {path}")
        for ending, status in self.server.refused.items():
            if path.endswith(ending):
                return self._send(status, b"", body=body)
        for name, (sha, files) in self.server.revisions.items():
            if path == f"/api/datasets/org/rows/revision/{name}":
                listing = {"id": "org/rows", "sha": sha, "siblings": [{"rfilename": file} for file in files]}
                return self._send(200, json.dumps(listing).encode(), body=body)
            if path == f"/api/datasets/org/rows/tree/{sha}":
                tree = [{"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for file, content in files.items()]  # fmt: skip
                return self._send(200, json.dumps(tree).encode(), body=body)
            prefix = f"/datasets/org/rows/resolve/{sha}/"
            if path.startswith(prefix):
                return self._send(200, files[path.removeprefix(prefix)], body=body, sha=sha)
        missing = "RevisionNotFound" if "/org/rows/" in path else "RepoNotFound"
        return self._send(404, b"{}", body=body, error=missing)

    def _send(self, status: int, content: bytes, *, body: bool, sha: str = "", error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if sha:
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", sha)
        if error or self.server.error_code:
            self.send_header("X-Error-Code", error or self.server.error_code)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub({"main": {"README.md": CARD, "data/rows.jsonl": ROWS, "load.py": b"raise SystemExit", "w.pkl": b"x"}})
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def download(hub: Hub, raw: Path, *, hub_id: str = "org/rows", pattern: str = "") -> Path:
    return download_dataset(hub_id, raw, pattern=pattern, endpoint=hub.url)


def test_only_data_files_and_the_card_are_downloaded(hub: Hub, tmp_path: Path):
    folder = download(hub, tmp_path)
    assert folder == tmp_path / "org--rows"
    visible = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(name for name in visible if not name.startswith(".")) == ["README.md", "data/rows.jsonl"]
    assert (folder / "data" / "rows.jsonl").read_bytes() == ROWS
    assert json.loads((folder / MARKER).read_text())["licence"] == "cc-by-4.0"
    assert not any("load.py" in request or "w.pkl" in request for request in hub.requests)


def test_the_licence_is_shown_each_time(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="cotrain")
    for _ in range(2):
        caplog.clear()
        download(hub, tmp_path)
        assert "org/rows: licence cc-by-4.0" in caplog.text


def test_what_is_complete_is_not_asked_for_again(hub: Hub, tmp_path: Path):
    download(hub, tmp_path)
    hub.requests.clear()
    download(hub, tmp_path)
    assert hub.requests == []


def test_a_download_that_broke_off_is_gone_on_from(hub: Hub, tmp_path: Path):
    hub.revisions["main"][1]["data/more.jsonl"] = ROWS * 2
    hub.refused = {"more.jsonl": 403}
    with pytest.raises(UnreachableError, match="cannot be downloaded") as caught:
        download(hub, tmp_path)
    assert "goes on where it broke off" in caught.value.hint
    assert not (tmp_path / "org--rows" / MARKER).exists()
    hub.refused = {}
    hub.requests.clear()
    folder = download(hub, tmp_path)
    assert (folder / "data" / "more.jsonl").read_bytes() == ROWS * 2
    assert not any(request.startswith("GET") and "rows.jsonl" in request for request in hub.requests)


def test_what_is_there_of_a_download_is_no_dataset_while_the_hub_does_not_answer(hub: Hub, tmp_path: Path):
    (tmp_path / "org--rows").mkdir()
    (tmp_path / "org--rows" / "half.jsonl").write_text("{}")
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UnreachableError) as caught:
        download(hub, tmp_path)
    assert "data.data_path" in caught.value.hint


def test_a_dataset_that_is_a_script_comes_from_the_hubs_own_conversion(hub: Hub, tmp_path: Path):
    hub.revisions = {
        "main": ("a" * 40, {"README.md": CARD, "rows.py": b"raise SystemExit"}),
        "refs/convert/parquet": ("b" * 40, {"default/train/0000.parquet": b"PAR1"}),
    }
    folder = download(hub, tmp_path)
    assert (folder / "default" / "train" / "0000.parquet").read_bytes() == b"PAR1"
    assert not (folder / "rows.py").exists()


def test_a_dataset_without_data_files_is_refused(hub: Hub, tmp_path: Path):
    del hub.revisions["main"][1]["data/rows.jsonl"]
    with pytest.raises(ConfigError, match="no data files"):
        download(hub, tmp_path)


def test_an_unknown_dataset_and_a_gated_one_are_told_apart(hub: Hub, tmp_path: Path):
    with pytest.raises(NotFoundError, match="org/other"):
        download(hub, tmp_path, hub_id="org/other")
    hub.refused, hub.error_code = {"/revision/main": 403}, "GatedRepo"
    with pytest.raises(NotAuthorizedError, match="sign-in") as caught:
        download(hub, tmp_path)
    assert "HF_TOKEN" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("data/a.parquet", True), ("A.JSONL", True), ("load.py", False), ("w.pkl", False), ("x.zip", False),
     ("../../x.csv", False), ("/etc/x.csv", False), (".hidden/x.csv", False), ("README.md", False)],
)  # fmt: skip
def test_code_archives_and_ways_out_of_the_folder_are_never_wanted(name: str, wanted: bool):
    assert is_wanted(name, "") is wanted
    assert not is_wanted(name, "other/*.csv")


def test_a_run_trains_on_a_dataset_of_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    download(hub, tmp_path / "raw")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = RunConfig.model_validate({"schema_version": 1, "data": {"dataset": "org/rows", "seq_length": 8}})
    prepared = prepare_dataset(config, folder=tmp_path / "out", raw_folder=tmp_path / "raw")
    assert prepared.documents == 50
    assert b"row 1" in SampleFile(prepared.train).columns["tokens"].tobytes()


def test_a_dataset_of_the_catalog_brings_its_files_columns_and_spelling(tmp_path: Path):
    folder = tmp_path / "raw" / "azarijafari--FarsTail"
    (folder / "data").mkdir(parents=True)
    rows = "".join(f"جملهٔ اول {number}\tفرض كوتاه\t{'ecn'[number % 3]}\n" for number in range(30))
    for name in ("Train-word.csv", "Val-word.csv", "Test-word.csv", "Indexed-FarsTail.csv"):
        (folder / "data" / name).write_text("premise\thypothesis\tlabel\n" + rows)
    marker = {"id": "azarijafari/FarsTail", "pattern": "data/*-word.csv"}
    (folder / MARKER).write_text(json.dumps(marker))
    config = RunConfig.model_validate(
        {
            "schema_version": 1,
            "model": {"type": "bert"},
            "train": {"task": "text-classification"},
            "data": {"dataset": "FarsTail", "seq_length": 96},
        }
    )
    prepared = prepare_dataset(config, folder=tmp_path / "out", raw_folder=tmp_path / "raw")
    assert prepared.spec.labels == ("c", "e", "n")
    assert (prepared.train_samples, prepared.validation_samples) == (30, 30)
    sample = SampleFile(prepared.train).read(np.array([0]))[0]
    assert "فرض کوتاه".encode() in bytes(token for token in sample["tokens"].tolist() if token < 256)
