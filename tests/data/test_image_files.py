import io

import datasets
import numpy as np
import pytest
from PIL import Image

from ccsam_hf.data.folder import load_images
from ccsam_hf.data.image_files import eight_bit, image_fault, images_below, left_out_text, open_rgb, to_uint8
from ccsam_hf.data.records import class_report
from ccsam_hf.data.views import TensorImages, TransformedImages

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(path, image: Image.Image, **options) -> dict:
    image.save(path, **options)
    return {"bytes": None, "path": str(path)}


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path):
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    for name in ("deep.png", "deep.tif"):
        found = np.asarray(open_rgb(saved(tmp_path / name, deep), "image 0"))
        np.testing.assert_array_equal(found, np.repeat(RAMP[:, :, None], 3, axis=2))
    assert np.asarray(Image.open(tmp_path / "deep.png").convert("RGB")).mean() > 250  # Pillow alone: nearly white
    levels = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_uint8(levels), [round(v * 255 / 65535) for v in range(65536)])


def test_floats_from_0_to_1_are_scaled_and_others_refused(tmp_path):
    unit = Image.fromarray((RAMP / 255).astype(np.float32))
    np.testing.assert_array_equal(np.asarray(eight_bit(unit)), RAMP)
    saved(tmp_path / "wide.tif", Image.fromarray(RAMP.astype(np.float32)))
    assert "floats from 0 to 255, of which only the range 0..1 has a meaning" in image_fault(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match=r"wide.tif \(line 3\) cannot be decoded .*floats from 0 to 255"):
        open_rgb({"bytes": None, "path": str(tmp_path / "wide.tif")}, "line 3")
    for wrong in (np.array([0.5, np.nan]), np.array([-0.1, 0.5]), np.array([np.inf])):
        with pytest.raises(ValueError, match=r"only the range 0\.\.1 has a meaning"):
            to_uint8(wrong)
    with pytest.raises(ValueError, match="it holds int64: convert it to uint8"):
        to_uint8(np.array([1, 2]))
    with pytest.raises(ValueError, match="32-bit integers of unknown range"):
        eight_bit(Image.fromarray(RAMP.astype(np.int32)))


def test_other_modes_stay_as_they_are():
    for mode in ("RGB", "L", "P", "1", "RGBA", "CMYK"):
        image = Image.new(mode, (4, 3))
        assert eight_bit(image) is image


def test_training_images_stand_upright_as_in_prediction():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format="png", exif=exif)
    upright = np.rot90(pixels, -1)
    np.testing.assert_array_equal(np.asarray(open_rgb({"bytes": file.getvalue(), "path": None}, "image 0")), upright)
    rows = {"image": [{"bytes": file.getvalue(), "path": None}], "label": [0]}
    dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    images = TensorImages.from_dataset(dataset, mean=(0.5,) * 3, std=(0.5,) * 3).images
    np.testing.assert_array_equal(images[0].permute(1, 2, 0).numpy(), upright)
    assert TransformedImages(dataset)[0]["pixel_values"].shape == (3, 224, 224)


def test_files_that_are_no_images_are_counted(tmp_path):
    for label, name in enumerate(("ant", "bee")):
        for i in range(4):
            (tmp_path / name / "deep").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (label, i, 0)).save(tmp_path / name / "deep" / f"{i}.png")
        (tmp_path / name / "scan").write_bytes(b"an image without extension")
    (tmp_path / "ant" / "notes.TXT").write_text("no image", encoding="utf-8")
    (tmp_path / "ant" / ".hidden").write_text("passed over", encoding="utf-8")
    paths, others = images_below(tmp_path)
    assert paths == [f"{name}/deep/{i}.png" for name in ("ant", "bee") for i in range(4)]
    assert left_out_text(others) == "2 without extension, 1 .txt"
    data = load_images(data_dir=tmp_path)
    assert data.settings["left_out_files"] == "2 without extension, 1 .txt"
    lines = class_report(data, rows=2).splitlines()
    assert lines[1] == "Files left out, no images by their extension: 2 without extension, 1 .txt"
    assert lines[2].startswith("Shots (many")


def test_avif_is_read_where_pillow_decodes_it_and_counted_where_not(tmp_path, monkeypatch):
    (tmp_path / "a.avif").write_bytes(b"x")
    monkeypatch.setattr("ccsam_hf.data.image_files.IMAGE_SUFFIXES", frozenset({".png"}))
    assert images_below(tmp_path) == ([], {".avif": 1})
    monkeypatch.setattr("ccsam_hf.data.image_files.IMAGE_SUFFIXES", frozenset({".png", ".avif"}))
    assert images_below(tmp_path) == (["a.avif"], {})
    with pytest.raises(ValueError, match=r"There is no folder .*nowhere"):
        images_below(tmp_path / "nowhere")
