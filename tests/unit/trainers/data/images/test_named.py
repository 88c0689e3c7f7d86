"""Data sets by name: where they are looked for, and the download of their archives."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pitstop.configs.errors import DataError, ResourceError
from pitstop.configs.paths import cache_directory
from pitstop.trainers.data.images import cifar, download, named
from pitstop.trainers.data.images.cifar import read_cifar_archive
from pitstop.trainers.data.images.download import Published
from pitstop.trainers.data.images.named import CIFAR10, CIFAR100, FASHION_MNIST, NamedSet, locate, named_set
from support.image_files import write_cifar, write_idx


@dataclass
class Site:
    """A web site with one file on it."""

    address: str = ""
    body: bytes = b""
    claimed: int | None = None
    status: int = 200
    asked: list[str] = field(default_factory=list)

    def named(self, **changes: object) -> NamedSet:
        """CIFAR-10, published here."""
        published = Published(f"{self.address}/cifar-10-binary.tar.gz", len(self.body), hashlib.sha256(self.body).hexdigest())
        return replace(CIFAR10, published=replace(published, **changes))  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The archive of a small CIFAR-10 on a server of our own, an empty cache, and leave to use the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    monkeypatch.setattr(named, "DEBIAN_DATASETS", tmp_path / "debian")
    site = Site(body=write_cifar(tmp_path / "published", archive=True).read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            self.send_response(site.status)
            self.send_header("Content-Length", str(len(site.body) if site.claimed is None else site.claimed))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # who asked may have had enough
                self.wfile.write(site.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def silent(message: str) -> None:
    """Tell nobody."""


def cached() -> list[Path]:
    """All files in the cache."""
    return [path for path in cache_directory().rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("CIFAR10", CIFAR10), ("cifar-10", CIFAR10), ("CIFAR", CIFAR10), ("cifar_100", CIFAR100), ("Cifar100", CIFAR100),
        ("FashionMNIST", FASHION_MNIST), ("fashion-mnist", FASHION_MNIST), ("Fashion MNIST", FASHION_MNIST),
        ("CIFAR1000", None), ("MNIST", None), ("", None), ("data/CIFAR10", None),
    ],
)  # fmt: skip
def test_names(text: str, found: NamedSet | None) -> None:
    assert named_set(text) is found


def test_the_published_archives() -> None:
    assert CIFAR10.published is not None and CIFAR100.published is not None
    assert CIFAR10.published.url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert CIFAR100.published.url == "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    assert {len(each.published.sha256) for each in (CIFAR10, CIFAR100) if each.published} == {64}


def test_an_archive_is_downloaded_once(site: Site) -> None:
    told: list[str] = []
    path = locate(site.named(), None, tell=told.append)
    assert path == cache_directory() / "datasets" / "cifar-10-binary.tar.gz"
    assert path.read_bytes() == site.body
    assert told == [f"downloading CIFAR10 (0 MB) from {site.address}/cifar-10-binary.tar.gz"]
    assert len(read_cifar_archive(path, split="train")) == 50
    assert locate(site.named(), None, tell=told.append) == path
    assert site.asked == ["/cifar-10-binary.tar.gz"]
    assert cached() == [path]


@pytest.mark.parametrize("place", ["cifar-10-binary.tar.gz", "cifar-10-batches-bin"])
def test_the_data_root_goes_before_the_cache(site: Site, tmp_path: Path, place: str) -> None:
    root = tmp_path / "root"
    for archive in (True, False):
        write_cifar(cache_directory() / "datasets", archive=archive)
    found = write_cifar(root, archive=place.endswith("gz"))
    assert locate(site.named(), root, tell=silent) == found == root / place
    assert locate(site.named(), tmp_path / "elsewhere", tell=silent).parent == cache_directory() / "datasets"
    assert not site.asked


def test_a_directory_of_another_data_set_is_not_taken(site: Site, tmp_path: Path) -> None:
    (tmp_path / "root" / "fashion-mnist").mkdir(parents=True)
    with pytest.raises(DataError, match="FashionMNIST is not on this machine"):
        locate(FASHION_MNIST, tmp_path / "root", tell=silent)
    write_cifar(tmp_path / "root", cifar.CIFAR100)
    assert locate(site.named(), tmp_path / "root", tell=silent).parent == cache_directory() / "datasets"


def _refused(site: Site, named: NamedSet, reason: str) -> DataError:
    with pytest.raises(DataError, match=reason) as caught:
        locate(named, None, tell=silent)
    assert cached() == []
    target = cache_directory() / "datasets" / "cifar-10-binary.tar.gz"
    assert str(caught.value.hint).startswith(f"Fetch {site.address}/cifar-10-binary.tar.gz elsewhere and put it at {target}")
    return caught.value


def test_a_wrong_download_leaves_nothing(site: Site) -> None:
    right = site.named()
    whole = site.body
    site.body = b"x" + whole[1:]
    _refused(site, right, f"{len(whole):,} bytes with the SHA-256 {hashlib.sha256(site.body).hexdigest()} came")
    site.body = whole[:-1]
    _refused(site, right, f"{len(whole) - 1:,} bytes")
    site.body, site.claimed = whole[:100], len(whole)
    _refused(site, right, "could not be downloaded")
    site.body, site.claimed = whole, None
    assert locate(right, None, tell=silent).is_file()


def test_an_endless_answer_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_CHUNK", 1000)
    right = site.named()
    site.body += bytes(5_000_000)
    error = _refused(site, right, "bytes with the SHA-256")
    came = int(error.message.split(": ")[1].split(" bytes")[0].replace(",", ""))
    assert right.published is not None and right.published.size < came <= right.published.size + 1000


def test_a_site_that_does_not_answer_leaves_nothing(site: Site) -> None:
    site.status = 503
    _refused(site, site.named(), "HTTP Error 503")


def test_offline_nothing_is_asked_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    _refused(site, site.named(), "CIFAR10 is not on this machine, and HF_HUB_OFFLINE forbids to download it")
    assert not site.asked


def test_an_interruption_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(download.LocalStorage, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        locate(site.named(), None, tell=silent)
    assert cached() == []


def test_a_full_disk_is_no_fault_of_the_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.LocalStorage, "write", full)
    with pytest.raises(ResourceError, match=r"could not be saved to .*: the disk is full"):
        locate(site.named(), None, tell=silent)
    assert cached() == []


def test_nothing_is_renamed_before_it_is_on_the_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    for name in ("sync_file", "replace"):
        real = getattr(download.LocalStorage, name)
        monkeypatch.setattr(download.LocalStorage, name, lambda *a, name=name, real=real: (steps.append(name), real(*a))[1])
    locate(site.named(), None, tell=silent)
    assert steps == ["sync_file", "replace"]


def test_fashion_mnist_is_found_and_never_downloaded(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="FashionMNIST is not on this machine") as caught:
        locate(FASHION_MNIST, None, tell=silent)
    assert "dataset-fashion-mnist" in str(caught.value.hint)
    assert str(cache_directory() / "datasets" / "fashion-mnist") in str(caught.value.hint)
    debian = write_idx(tmp_path / "debian" / "fashion-mnist")
    assert locate(FASHION_MNIST, None, tell=silent) == debian
    cache = write_idx(cache_directory() / "datasets" / "fashion-mnist")
    assert locate(FASHION_MNIST, None, tell=silent) == cache
    root = write_idx(tmp_path / "root" / "FashionMNIST" / "raw")
    assert locate(FASHION_MNIST, tmp_path / "root", tell=silent) == root
    assert not site.asked


def test_debian_s_path() -> None:
    assert Path("/usr/share/datasets") == named.DEBIAN_DATASETS
    assert FASHION_MNIST.places[0] == "fashion-mnist"
