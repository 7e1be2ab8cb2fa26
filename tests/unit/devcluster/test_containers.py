import hashlib
import io
import json
import tarfile

from devcluster.containers import image_archive


def unpack(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {entry.name: opened.extractfile(entry).read() for entry in opened}  # type: ignore[union-attr]


def test_the_pause_image_names_its_layer_by_the_digest_of_its_content() -> None:
    files = unpack(image_archive("localhost/x:1", "pause", b"program"))
    manifest, config = json.loads(files["manifest.json"])[0], json.loads(files["config.json"])
    assert manifest["RepoTags"] == ["localhost/x:1"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(files['layer.tar']).hexdigest()}"]
    assert unpack(files["layer.tar"]) == {"pause": b"program"}


def test_the_pause_image_does_not_run_as_root() -> None:
    config = json.loads(unpack(image_archive("localhost/x:1", "pause", b"program"))["config.json"])
    assert config["config"]["User"] == "65535:65535"


def test_the_same_program_gives_the_same_image() -> None:
    assert image_archive("x", "pause", b"program") == image_archive("x", "pause", b"program")
