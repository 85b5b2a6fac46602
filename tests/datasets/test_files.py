"""Reading pictures as cameras, scanners and people leave them, and naming the file that cannot be read."""

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ckfr_helpers.datasets.files import FileSource, class_folders, decode_image, read_rows
from ckfr_helpers.runtime import CkfrError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encode(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def written(folder: Path, picture: Image.Image, form: str, **options: object) -> Path:
    (folder / "x").write_bytes(encode(picture, form, **options))
    return folder / "x"


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_pixels_come_back(tmp_path, form):
    image = decode_image(written(tmp_path, Image.fromarray(PIXELS), form))
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), PIXELS)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, form):
    levels = np.linspace(0, 65535, 6 * 9).reshape(6, 9).astype(np.uint16)
    image = decode_image(written(tmp_path, Image.fromarray(levels), form))
    expected = np.round(levels / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(image.numpy(), np.stack([expected] * 3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_the_camera_says(tmp_path, orientation):
    """Each orientation undone by NumPy, as the EXIF standard defines them."""
    turns = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.rot90(a, -1),
        lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        lambda a: np.rot90(a),
    ]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(written(tmp_path, Image.fromarray(PIXELS), "PNG", exif=exif))
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), turns[orientation - 1](PIXELS))


def huge() -> bytes:
    """A PNG whose header promises 400 megapixels."""
    data = bytearray(encode(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        encode(Image.fromarray(PIXELS), "PNG")[:60],
        encode(Image.fromarray(PIXELS), "JPEG")[:-80],
        encode(Image.fromarray(PIXELS[..., 0].astype(np.float32)), "TIFF"),
        encode(Image.fromarray(PIXELS[..., 0].astype(np.int32) * 1000), "TIFF"),
        huge(),
    ],
)
def test_what_cannot_be_read_is_one_sentence_that_names_the_file(tmp_path, data):
    (tmp_path / "lion.png").write_bytes(data)
    (tmp_path / "tiger.png").mkdir()
    for name in ("lion", "tiger"):
        with pytest.raises(CkfrError, match=rf"/{name}\.png cannot be decoded") as caught:
            decode_image(tmp_path / f"{name}.png")
        assert "\n" not in str(caught.value)


def test_class_folders_and_what_does_not_belong_there(tmp_path):
    for name in ("b/2.JPG", "b/1.webp", "a/x.tif", "a/.hidden.jpg", "a/Thumbs.db", ".git/y.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert class_folders(tmp_path) == {"a": ["x.tif"], "b": ["1.webp", "2.JPG"]}
    assert class_folders(tmp_path / "none") == {}
    (tmp_path / "a" / "photo.heic").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 file\(s\), first .*photo\.heic, are left out: expected \.jpg"):
        assert class_folders(tmp_path)["a"] == ["x.tif"]
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(CkfrError, match=r"holds loose pictures such as 0\.png"):
        class_folders(tmp_path)


def test_tables_in_another_encoding_and_without_their_columns_are_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("a,b\n1,2\nü,3\n".encode("latin-1"))
    with pytest.raises(CkfrError, match=r"t\.csv cannot be read as a table in UTF-8"):
        read_rows(path, ("a", "b"))
    path.write_text("a,b\n1,2\nü,3\n", encoding="utf-8-sig")
    assert read_rows(path, ("a", "b")) == [(2, {"a": "1", "b": "2"}), (3, {"a": "ü", "b": "3"})]
    with pytest.raises(CkfrError, match=r"t\.csv has no column 'c'; expected a,c"):
        read_rows(path, ("a", "c"))


def test_a_file_that_changes_changes_the_fingerprint_and_a_move_does_not(tmp_path):
    def mark(folder: str, *names: str) -> str:
        source = FileSource()
        source._hold(tmp_path / folder, names, np.zeros(len(names)))
        return source.fingerprint()

    (tmp_path / "a").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "a" / name).write_text("x")
    before = mark("a", "1.jpg", "2.jpg")
    assert before != mark("a", "2.jpg")
    (tmp_path / "a").rename(tmp_path / "b")
    assert mark("b", "1.jpg", "2.jpg") == before
    os.utime(tmp_path / "b" / "2.jpg", (1, 1))
    assert mark("b", "1.jpg", "2.jpg") != before
